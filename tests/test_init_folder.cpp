#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <map>
#include <set>

#include "model/parameters.h"
#include "tests/fault_of.h"
#include "tests/temporary_folder.h"
#include "tokenizer/byte_tokenizer.h"
#include "utils/error.h"
#include "utils/files.h"
#include "utils/json.h"
#include "weights_tools/init_folder.h"
#include "weights_tools/model_folder.h"
#include "weights_tools/presets.h"

static const Vocabulary BYTES = {BYTE_VOCABULARY, BYTE_MASK, {BYTE_IM_END, BYTE_END_OF_TEXT}};
static const std::vector<std::string> SMALLER = {
    "num_hidden_layers=1",   "hidden_size=16", "num_attention_heads=2",
    "num_key_value_heads=1", "head_dim=6",     "intermediate_size=10"};

static std::string usage_fault(const std::string& preset, const std::vector<std::string>& set) {
    return fault_of(Exit::Usage, [&] { init_config(preset, BYTES, set); });
}

#define EXPECT_HAS(text, part) EXPECT_NE((text).find(part), std::string::npos) << (text)

TEST(InitFolder, SmallPresetsTakeTheTokenizersVocabulary) {
    for (const char* preset : {"tiny", "mini", "small"}) {
        const ModelConfig c = init_config(preset, BYTES, {});
        EXPECT_EQ(c.V, 264);
        EXPECT_EQ(c.mask_id, 259);
        EXPECT_EQ(c.eos_ids, std::vector<int>({258, 256}));
        EXPECT_EQ(c.B, 4);
        EXPECT_TRUE(c.tied && c.qk_norm);
        EXPECT_EQ(c.NH * c.HD, c.C);
        EXPECT_TRUE(c.notices.empty());
    }
}

// What a published preset's config.json says is what the published file says.
TEST(InitFolder, PublishedPresets) {
    const std::string root = "../shared/data/configs/";
    if (!folder_exists(root)) GTEST_SKIP() << "no " << root;
    const std::vector<std::pair<const char*, const char*>> published = {
        {"sdar-1.7b", "SDAR-1dot7B-Chat"},    {"sdar-4b", "SDAR-4B-Chat"},       {"sdar-8b", "SDAR-8B-Chat"},
        {"dream-7b", "Dream-v0-Instruct-7B"}, {"llada-8b", "LLaDA-8B-Instruct"},
    };
    for (const auto& [preset, folder] : published) {
        const ModelConfig ours = init_config(preset, {}, {});
        const ModelConfig theirs = read_model_config(root + folder);
        EXPECT_EQ(ours.eos_ids, theirs.eos_ids) << preset;
        EXPECT_EQ(ours.n_parameters(), theirs.n_parameters()) << preset;
        const std::set<std::string> about_files = {"flash_attention", "use_cache", "bos_token_id", "dtype"};
        for (const auto& [field, value] : ours.raw->items())
            if (theirs.raw->contains(field) && !about_files.count(field)) {
                EXPECT_EQ(value, theirs.raw->at(field)) << preset << " " << field;
            }
    }
}

TEST(InitFolder, FieldsAreSet) {
    const ModelConfig c = init_config(
        "tiny", BYTES, {"num_hidden_layers=2", "tie_word_embeddings=false", "eos_token_id=[7, 8]"});
    EXPECT_EQ(c.L, 2);
    EXPECT_FALSE(c.tied);
    EXPECT_EQ(c.eos_ids, std::vector<int>({7, 8}));
}

TEST(InitFolder, UnsoundFieldsAreFaultsOfTheCommandLine) {
    const std::string text =
        usage_fault("tiny", {"layers=2", "hidden_act=gelu", "block_size=0", "vocab_size"});
    EXPECT_HAS(text, "--set layers=2: config.json of this preset has no such field, but architectures");
    EXPECT_HAS(text, "--set vocab_size: write FIELD=VALUE");
    EXPECT_HAS(text, "hidden_act is \"gelu\"");
    EXPECT_HAS(text, "block_size is 0");
    EXPECT_HAS(usage_fault("tiny", {"vocab_size=100"}), "mask_token_id is 259");
    EXPECT_HAS(
        usage_fault("tiny", {"vocab_size=257", "mask_token_id=5", "eos_token_id=[1]", "num_hidden_layers=0"}),
        "num_hidden_layers is 0");
    EXPECT_THROW(model_preset("huge"), Error);
}

// The same numbers whether made at once in memory, piece by piece, or in bf16.
TEST(InitFolder, WeightsDependOnSeedAndConfigAlone) {
    const auto ops = make_cpu_ops();
    const ModelConfig config = init_config("tiny", BYTES, SMALLER);
    Arena arena("weights", host_memory());
    Parameters parameters;
    parameters.plan(arena, config, Head::Policy);
    arena.allocate();
    parameters.bind(config);
    initialize(parameters, config, 5);

    const TemporaryFolder folder;
    const auto nothing = [](uint64_t) {};
    for (const DType dtype : {DType::F32, DType::BF16}) {
        const std::string path = folder.file(name_of(dtype));
        make_folders(path);
        init_folder(path, config, 5, dtype, nothing);
        const LoadedModel loaded(path, *ops, Head::Policy, DType::F32);
        EXPECT_EQ(loaded.config().eos_ids, config.eos_ids);
        std::map<std::string, Tensor> read;
        loaded.parameters.for_each(config, [&](const std::string& name, const Tensor& t) { read[name] = t; });
        parameters.for_each(config, [&](const std::string& name, const Tensor& t) {
            for (int64_t i = 0; i < t.size(); i++) {
                const float x = t.as<float>()[i];
                ASSERT_EQ(read[name].as<float>()[i], dtype == DType::F32 ? x : to_float(to_bf16(x)))
                    << name << i;
            }
        });
    }
    const std::string other = folder.file("other");
    make_folders(other);
    init_folder(other, config, 6, DType::F32, nothing);
    EXPECT_NE(read_text(other + "/model.safetensors"), read_text(folder.file("F32") + "/model.safetensors"));
}

TEST(InitFolder, WeightsArePartedAnywhere) {
    const ModelConfig config = init_config("tiny", BYTES, SMALLER);
    const int64_t rows = 11, cols = 7;  // rows begin inside a block of four numbers
    std::vector<float> whole(size_t(rows * cols)), part(size_t(3 * cols));
    const std::string name = "model.layers.0.mlp.up_proj.weight";
    initialize_rows(name, tensor(whole.data(), rows, cols), 0, config, 9);
    initialize_rows(name, tensor(part.data(), 3, cols), 5, config, 9);
    EXPECT_EQ(memcmp(part.data(), whole.data() + 5 * cols, part.size() * 4), 0);
}

TEST(InitFolder, WeightsAreNormalWithTheRightSpread) {
    ModelConfig config = init_config("tiny", BYTES, {});
    std::vector<float> x(200 * 500);
    const auto moments = [&](const std::string& name) {
        initialize_rows(name, tensor(x.data(), 200, 500), 0, config, 1);
        double mean = 0, square = 0, fourth = 0;
        for (const float v : x) {
            mean += double(v);
            square += double(v) * double(v);
            fourth += std::pow(double(v), 4);
        }
        const double n = double(x.size());
        EXPECT_NEAR(mean / n, 0, 4 * 0.02 / std::sqrt(n));
        EXPECT_NEAR(fourth / n / std::pow(square / n, 2), 3, 0.1);  // kurtosis
        return std::sqrt(square / n);
    };
    EXPECT_NEAR(moments("model.layers.3.mlp.up_proj.weight"), 0.02, 0.0003);
    EXPECT_NEAR(moments("model.layers.3.mlp.down_proj.weight"), 0.02 / std::sqrt(8.0), 0.0001);
}
