#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <set>

#include "tests/fault_of.h"
#include "tests/temporary_folder.h"
#include "utils/error.h"
#include "utils/files.h"
#include "utils/json.h"
#include "utils/philox.h"
#include "weights_tools/model_folder.h"
#include "weights_tools/names.h"

namespace {
ModelConfig small_config(Family family) {
    ModelConfig c;
    c.family = family;
    c.V = 37, c.C = 24, c.L = 2, c.NH = 4, c.NKV = family == Family::Llada ? 4 : 2, c.HD = 6, c.F = 20;
    c.qk_norm = family == Family::Sdar || family == Family::Qwen3;
    c.qkv_bias = family == Family::Dream || family == Family::Qwen2;
    c.full_attention = family == Family::Dream || family == Family::Llada;
    c.mask_id = 36;
    c.eos_ids = {34, 35};
    c.max_positions = 128;
    return c;
}

// A model in memory with all-different weights.
struct Model {
    Model(const ModelConfig& config, Head head, DType dtype = DType::F32)
        : config(config), arena("test weights", host_memory()) {
        parameters.plan(arena, config, head, dtype);
        arena.allocate();
        parameters.bind(config);
        Rng rng(7, Stream::Init);
        parameters.for_each(config, [&](const std::string&, const Tensor& t) {
            for (int64_t i = 0; i < t.size(); i++) {
                const Bf16 x = to_bf16(rng.normal());  // exact in both types: vectors stay F32 beside BF16
                if (t.dtype == DType::F32)
                    t.as<float>()[i] = to_float(x) + (dtype == DType::F32 ? 0x1p-20f : 0);
                else
                    t.as<Bf16>()[i] = x;
            }
        });
    }
    ModelConfig config;
    Arena arena;
    Parameters parameters;
};

void expect_equal(const Parameters& a, const Parameters& b, const ModelConfig& config) {
    std::map<std::string, Tensor> tensors;
    a.for_each(config, [&](const std::string& name, const Tensor& t) { tensors[name] = t; });
    size_t n = 0;
    b.for_each(config, [&](const std::string& name, const Tensor& t) {
        ASSERT_EQ(t.bytes(), tensors.at(name).bytes()) << name;
        EXPECT_EQ(memcmp(t.data, tensors[name].data, t.bytes()), 0) << name;
        n++;
    });
    EXPECT_EQ(n, tensors.size());
}

std::string fault(const std::string& path, Head head) {
    return fault_of(Exit::BadFile, [&] { open_model_folder(path, head); });
}

#define EXPECT_HAS(text, part) EXPECT_NE((text).find(part), std::string::npos) << (text)

// Writes a folder whose tensors are the model's, after `change`.
void write_changed(const std::string& path, const Model& model,
                   const std::function<void(std::vector<Save>&)>& change) {
    make_folders(path);
    std::vector<Save> saves;
    model.parameters.for_each(model.config, [&](const std::string& name, const Tensor& t) {
        saves.push_back({folder_name(model.config.family, name), t, is_vector(name), t.dtype});
    });
    change(saves);
    save_tensors(path + "/model.safetensors", saves);
    write_file_atomic(path + "/config.json", dump(config_to_json(model.config)));
}
}  // namespace

TEST(ModelFolder, RoundTripBitForBit) {
    const auto ops = make_cpu_ops();
    for (const Family family : {Family::Sdar, Family::Dream, Family::Llada, Family::Qwen3, Family::Qwen2})
        for (const DType dtype : {DType::F32, DType::BF16})
            for (const Head head : {Head::Policy, Head::Value}) {
                const Model model(small_config(family), head, dtype);
                const TemporaryFolder folder;
                save_model_folder(folder.path(), model.parameters, model.config, "", dtype, *ops);
                const LoadedModel loaded(folder.path(), *ops, head, dtype);
                expect_equal(model.parameters, loaded.parameters, model.config);
                EXPECT_EQ(loaded.folder.dtype, dtype);
                EXPECT_EQ(loaded.folder.is_value, head == Head::Value);
                EXPECT_EQ(loaded.config().eos_ids, model.config.eos_ids);
                EXPECT_EQ(loaded.config().raw->at("torch_dtype"),
                          dtype == DType::F32 ? "float32" : "bfloat16");

                // once more: the file itself is the same
                const TemporaryFolder again;
                save_model_folder(again.path(), loaded.parameters, loaded.config(), folder.path(), dtype,
                                  *ops);
                for (const char* name : {"model.safetensors", "config.json", "generation_config.json"})
                    EXPECT_EQ(read_text(folder.file(name)), read_text(again.file(name))) << name;
            }
}

// What lies in the file as it is wanted is used there: everything but norms, and the fused projections whose
// parts are apart in the order of names (k, o, q, v; not gate and up). Other types are copied.
TEST(ModelFolder, MatricesAreUsedWhereTheyLieInTheFile) {
    const auto ops = make_cpu_ops();
    for (const Family family : {Family::Sdar, Family::Llada, Family::Qwen2})
        for (const bool tied : {false, true})
            for (const DType dtype : {DType::F32, DType::BF16}) {
                ModelConfig config = small_config(family);
                config.tied = tied;
                const Model model(config, Head::Policy, dtype);
                const TemporaryFolder path;
                save_model_folder(path.path(), model.parameters, config, "", dtype, *ops);
                const ModelFolder folder = open_model_folder(path.path(), Head::Policy);
                for (const DType wanted : {DType::F32, DType::BF16}) {
                    const LoadedModel copied(path.path(), *ops, Head::Policy, wanted);
                    Model mapped(config, Head::Policy, wanted);
                    use_files(folder, mapped.parameters);
                    mapped.parameters.bind(config);
                    load_weights(folder, mapped.parameters, *ops);
                    expect_equal(copied.parameters, mapped.parameters, config);
                    const auto in_place = [&](const Tensor& t, const char* name) {
                        const FileTensor* from = folder.weights.find(folder_name(family, name));
                        return t.data == from->file->mapped(*from);
                    };
                    const LayerParameters& p = mapped.parameters.layers[1];
                    const bool same = wanted == dtype, llada = family == Family::Llada;
                    EXPECT_EQ(in_place(mapped.parameters.embedding, "model.embed_tokens.weight"), same);
                    EXPECT_EQ(in_place(p.down, "model.layers.1.mlp.down_proj.weight"), same);
                    EXPECT_EQ(in_place(p.gate_up, "model.layers.1.mlp.gate_proj.weight"), same && !llada);
                    EXPECT_FALSE(in_place(p.qkv, "model.layers.1.self_attn.q_proj.weight"));
                    EXPECT_EQ(mapped.parameters.lm_head.data == mapped.parameters.embedding.data, tied);
                }
            }
}

TEST(ModelFolder, AFileCutShortBeforeItsPagesAreFetched) {
    const auto ops = make_cpu_ops();
    ModelConfig config = small_config(Family::Sdar);
    config.V = 4096;
    Model model(config, Head::Policy);
    const TemporaryFolder path;
    save_model_folder(path.path(), model.parameters, config, "", DType::F32, *ops);
    const ModelFolder folder = open_model_folder(path.path(), Head::Policy);
    ASSERT_EQ(truncate(path.file("model.safetensors").c_str(), 20'000), 0);
    use_files(folder, model.parameters);
    try {
        load_weights(folder, model.parameters, *ops);
        FAIL() << "no error";
    } catch (const Error& e) {
        EXPECT_EQ(e.code, Exit::BadFile);
        EXPECT_HAS(std::string(e.what()), "model.safetensors: ended early: it was cut short");
    }
}

TEST(ModelFolder, TypesAreConverted) {
    const auto ops = make_cpu_ops();
    const Model model(small_config(Family::Sdar), Head::Policy);
    const TemporaryFolder folder;
    save_model_folder(folder.path(), model.parameters, model.config, "", DType::BF16, *ops);
    const LoadedModel wide(folder.path(), *ops, Head::Policy, DType::F32);
    const LoadedModel narrow(folder.path(), *ops, Head::Policy, DType::BF16);
    for (int64_t i = 0; i < model.parameters.embedding.size(); i++) {
        const Bf16 rounded = to_bf16(model.parameters.embedding.as<float>()[i]);
        ASSERT_EQ(wide.parameters.embedding.as<float>()[i], to_float(rounded));
        ASSERT_EQ(narrow.parameters.embedding.as<Bf16>()[i].bits, rounded.bits);
    }
}

TEST(ModelFolder, TiedHeadIsWrittenOnceAndMayLieInTheFolder) {
    const auto ops = make_cpu_ops();
    ModelConfig config = small_config(Family::Sdar);
    config.tied = true;
    const Model model(config, Head::Policy);
    const TemporaryFolder folder;
    save_model_folder(folder.path(), model.parameters, config, "", DType::F32, *ops);
    const LoadedModel loaded(folder.path(), *ops, Head::Policy, DType::F32);
    EXPECT_EQ(loaded.folder.weights.find("lm_head.weight"), nullptr);
    EXPECT_EQ(loaded.parameters.lm_head.data, loaded.parameters.embedding.data);

    write_changed(folder.file("with_head"), model, [&](std::vector<Save>& saves) {
        saves.push_back({"lm_head.weight", model.parameters.embedding, false, DType::F32});
    });
    const ModelFolder with_head = open_model_folder(folder.file("with_head"), Head::Policy);
    ASSERT_EQ(with_head.notices.size(), 1u);
    EXPECT_HAS(with_head.notices[0], "lm_head.weight is ignored");
}

TEST(ModelFolder, AllFaultsOfTheTensorsTogether) {
    const Model model(small_config(Family::Sdar), Head::Policy);
    const TemporaryFolder folder;
    write_changed(folder.file("m"), model, [&](std::vector<Save>& saves) {
        for (Save& save : saves) {
            if (save.name == "model.norm.weight") save.vector = false;
            if (save.name == "model.layers.1.mlp.up_proj.weight") save.name = "model.layers.1.mlp.upp.weight";
            if (save.name == "lm_head.weight") std::swap(save.from.rows, save.from.cols);
            save.from.stride = save.from.cols;
        }
    });
    const std::string text = fault(folder.file("m"), Head::Policy);
    EXPECT_HAS(text, "4 tensors are not what config.json says");
    EXPECT_HAS(text, "model.safetensors: tensor 'lm_head.weight' is (24, 37), config.json says (37, 24)");
    EXPECT_HAS(text, "tensor 'model.norm.weight' is (1, 24), config.json says (24)");
    EXPECT_HAS(text, "tensor 'model.layers.1.mlp.up_proj.weight' (20, 24) is missing");
    EXPECT_HAS(text, "tensor 'model.layers.1.mlp.upp.weight' (20, 24) is in no model");
}

TEST(ModelFolder, ValueModelsAndPoliciesAreNotConfused) {
    const TemporaryFolder folder;
    const Model value(small_config(Family::Sdar), Head::Value);
    write_changed(folder.file("value"), value, [](std::vector<Save>&) {});
    EXPECT_HAS(fault(folder.file("value"), Head::Policy), "it is a value model");
    EXPECT_TRUE(open_model_folder(folder.file("value")).is_value);
    // The reference code leaves the LM head in.
    write_changed(folder.file("value_with_head"), value, [&](std::vector<Save>& saves) {
        saves.push_back({"lm_head.weight", value.parameters.embedding, false, DType::F32});
    });
    EXPECT_EQ(fault(folder.file("value_with_head"), Head::Value), "");

    const Model policy(small_config(Family::Sdar), Head::Policy);
    write_changed(folder.file("policy"), policy, [](std::vector<Save>&) {});
    EXPECT_HAS(fault(folder.file("policy"), Head::Value), "convert value-init");
}

TEST(ModelFolder, StopIdsOfGenerationConfigReplaceConfigs) {
    const TemporaryFolder folder;
    write_file_atomic(folder.file("config.json"), dump(config_to_json(small_config(Family::Sdar))));
    EXPECT_EQ(read_model_config(folder.path()).eos_ids, std::vector<int>({35}));
    write_file_atomic(folder.file("generation_config.json"),
                      R"({"eos_token_id": [3, 5], "temperature": 0.6})");
    EXPECT_EQ(read_model_config(folder.path()).eos_ids, std::vector<int>({3, 5}));
    write_file_atomic(folder.file("generation_config.json"), R"({"eos_token_id": 9})");
    EXPECT_EQ(read_model_config(folder.path()).eos_ids, std::vector<int>({9}));
    write_file_atomic(folder.file("generation_config.json"), R"({"eos_token_id": null})");
    EXPECT_EQ(read_model_config(folder.path()).eos_ids, std::vector<int>({35}));
    for (const char* bad :
         {R"({"eos_token_id": 37})", R"({"eos_token_id": [1, "2"]})", R"({"eos_token_id": -1})"}) {
        write_file_atomic(folder.file("generation_config.json"), bad);
        EXPECT_HAS(fault(folder.path(), Head::Policy), "generation_config.json");
    }
}

TEST(ModelFolder, OtherFilesTravelAlong) {
    const auto ops = make_cpu_ops();
    const Model model(small_config(Family::Sdar), Head::Policy);
    const TemporaryFolder folder;
    const std::string source = folder.file("source"), copy = folder.file("copy");
    make_folders(source + "/subfolder");
    make_folders(copy);
    for (const char* name : {"tokenizer.json", "modeling_sdar.py", "merges.txt", "LICENSE",
                             "generation_config.json", "state.json", "optimizer.safetensors",
                             "pytorch_model.bin", "config.json", "model.safetensors.index.json"})
        write_file_atomic(source + "/" + name, std::string("source of ") + name);
    save_model_folder(copy, model.parameters, model.config, source, DType::F32, *ops);
    std::set<std::string> names;
    for (const auto& entry : std::filesystem::directory_iterator(copy)) names.insert(entry.path().filename());
    EXPECT_EQ(names, std::set<std::string>({"tokenizer.json", "modeling_sdar.py", "merges.txt", "LICENSE",
                                            "generation_config.json", "config.json", "model.safetensors"}));
    EXPECT_EQ(read_text(copy + "/modeling_sdar.py"), "source of modeling_sdar.py");
    EXPECT_EQ(read_text(copy + "/generation_config.json"), "source of generation_config.json");
}

TEST(ModelFolder, ConfigIsWrittenBackAsItWasReadWithTheTypeAndBlockOfNow) {
    const TemporaryFolder folder;
    ModelConfig config = small_config(Family::Sdar);
    Json raw = config_to_json(config);
    raw["fuse_cross_entropy"] = true;
    config.raw = std::make_shared<const Json>(raw);
    config.B = 8;
    save_configs(folder.path(), config, "", DType::BF16);
    const ModelConfig again = read_model_config(folder.path());
    EXPECT_EQ(again.B, 8);
    EXPECT_EQ(again.raw->at("fuse_cross_entropy"), true);
    EXPECT_EQ(again.raw->at("torch_dtype"), "bfloat16");
}

TEST(ModelFolder, Shards) {
    const auto ops = make_cpu_ops();
    const Model model(small_config(Family::Llada), Head::Policy);
    const TemporaryFolder folder;
    std::map<std::string, Tensor> tensors;
    std::vector<NewTensor> order;
    uint64_t total = 0;
    model.parameters.for_each(model.config, [&](const std::string& name, const Tensor& t) {
        const std::string there = folder_name(Family::Llada, name);
        tensors[there] = t;
        order.push_back(described({there, t, is_vector(name), DType::F32}));
        total += t.bytes();
    });
    write_weight_files(folder.path(), order, 3000, [&](const NewTensor& t, SafetensorsWriter& writer) {
        writer.write(tensors.at(t.name).data, tensors.at(t.name).bytes());
    });
    save_configs(folder.path(), model.config, "", DType::F32);
    const LoadedModel loaded(folder.path(), *ops, Head::Policy, DType::F32);
    expect_equal(model.parameters, loaded.parameters, model.config);
    EXPECT_GT(loaded.folder.weights.n_files(), 3u);
    EXPECT_TRUE(loaded.folder.notices.empty()) << loaded.folder.notices[0];
    const Json index = read_json(folder.file("model.safetensors.index.json"));
    EXPECT_EQ(index["metadata"]["total_size"], total);
    EXPECT_EQ(index["weight_map"].size(), tensors.size());
    EXPECT_FALSE(file_exists(folder.file("model.safetensors")));
}

// The golden folders, made by Hugging Face's own writer: every tensor once, nothing left over.
TEST(ModelFolder, GoldenFolders) {
    const std::string root = "../shared/fixtures/";
    if (!folder_exists(root)) GTEST_SKIP() << "no " << root;
    const auto ops = make_cpu_ops();
    for (const char* name :
         {"sdar_b4/model", "sdar_b4/model_bf16_sharded", "sdar_b8_tied/model", "dream/model", "llada/model",
          "sdar_b4/value_model", "dream/value_model", "llada/value_model"}) {
        const ModelFolder folder = open_model_folder(root + name);
        EXPECT_EQ(folder.is_value, std::string(name).find("value") != std::string::npos) << name;
        const Head head = folder.is_value ? Head::Value : Head::Policy;
        const LoadedModel model(root + name, *ops, head, folder.dtype);
        const TemporaryFolder copy;
        save_model_folder(copy.path(), model.parameters, model.config(), folder.path, folder.dtype, *ops);
        const ModelFolder saved = open_model_folder(copy.path(), head);
        for (const FileTensor* t : folder.weights.tensors()) {
            const FileTensor* u = saved.weights.find(t->name);
            ASSERT_TRUE(u && u->dtype == t->dtype && u->shape == t->shape) << t->name;
            std::string a(t->bytes, '\0'), b(t->bytes, '\0');
            t->file->read(*t, 0, a.data(), a.size());
            u->file->read(*u, 0, b.data(), b.size());
            EXPECT_EQ(a, b) << t->name;
        }
    }
    EXPECT_EQ(open_model_folder(root + "sdar_b4/model_bf16_sharded").dtype, DType::BF16);
}

// The tensors and shapes of the published indices.
TEST(ModelFolder, PublishedIndices) {
    const std::string root = "../shared/data/configs/";
    if (!folder_exists(root)) GTEST_SKIP() << "no " << root;
    for (const char* name : {"SDAR-4B-Chat", "SDAR-8B-Chat", "Dream-v0-Instruct-7B", "LLaDA-8B-Instruct"}) {
        const ModelConfig config = read_model_config(root + name);
        const Json index = read_json(root + name + "/model.safetensors.index.json");
        std::set<std::string> published, ours;
        for (const auto& [tensor, file] : index["weight_map"].items()) published.insert(tensor);
        int64_t elements = 0;
        for (const TensorSpec& spec : tensor_specs(config, Head::Policy)) {
            ours.insert(spec.name);
            elements += spec.rows * spec.cols;
        }
        EXPECT_EQ(ours, published) << name;
        EXPECT_EQ(index["metadata"]["total_size"], 2 * elements) << name;
        EXPECT_EQ(elements, config.n_parameters());
    }
}
