#include <gtest/gtest.h>

#include "tests/temporary_folder.h"
#include "tokenizer/byte_tokenizer.h"
#include "tokenizer/tokenizer.h"
#include "utils/error.h"
#include "utils/files.h"
#include "utils/json.h"
#include "weights_tools/init_folder.h"
#include "weights_tools/rewrite_folder.h"

static const Vocabulary BYTES = {BYTE_VOCABULARY, BYTE_MASK, {BYTE_IM_END, BYTE_END_OF_TEXT}};
static void nothing(uint64_t) {}

// A small folder with random weights, a tokenizer and a modelling file.
static std::string make_small(const TemporaryFolder& folder, const std::vector<std::string>& set = {}) {
    const std::string path = folder.file("small");
    make_folders(path);
    std::vector<std::string> fields = {"num_hidden_layers=1",   "hidden_size=16", "num_attention_heads=2",
                                       "num_key_value_heads=1", "head_dim=6",     "intermediate_size=10"};
    fields.insert(fields.end(), set.begin(), set.end());
    save_byte_tokenizer(path);
    write_file_atomic(path + "/modeling_sdar.py", "class SDARForCausalLM: ...\n");
    init_folder(path, init_config("tiny", BYTES, fields), 1, DType::F32, nothing);
    return path;
}

static std::string bytes_of(const FileTensor& t) {
    std::string data(t.bytes, '\0');
    t.file->read(t, 0, data.data(), data.size());
    return data;
}

static std::string rewrite(const TemporaryFolder& folder, const std::string& name, const std::string& from,
                           const Rewrite& how) {
    const std::string path = folder.file(name);
    make_folders(path);
    const ModelFolder source = open_model_folder(from);
    rewrite_folder(path, source, how, nothing);
    EXPECT_EQ(open_model_folder(path).weights.bytes(), rewritten_bytes(source, how));
    return path;
}

TEST(RewriteFolder, CastRoundsEveryNumberAndKeepsTheRest) {
    const TemporaryFolder folder;
    const std::string source = make_small(folder);
    const std::string narrow = rewrite(folder, "narrow", source, {DType::BF16, false, ""});
    const ModelFolder a = open_model_folder(source), b = open_model_folder(narrow);
    EXPECT_EQ(b.dtype, DType::BF16);
    EXPECT_EQ(b.config.raw->at("torch_dtype"), "bfloat16");
    EXPECT_EQ(b.config.eos_ids, a.config.eos_ids);
    for (const FileTensor* t : a.weights.tensors()) {
        const std::string x = bytes_of(*t), y = bytes_of(*b.weights.find(t->name));
        ASSERT_EQ(y.size() * 2, x.size());
        std::string expected(y.size(), '\0');
        from_floats(expected.data(), DType::BF16, reinterpret_cast<const float*>(x.data()), x.size() / 4);
        EXPECT_EQ(y, expected) << t->name;
    }
    for (const char* file :
         {"tokenizer.json", "tokenizer_config.json", "modeling_sdar.py", "generation_config.json"})
        EXPECT_EQ(read_text(narrow + "/" + file), read_text(source + "/" + file)) << file;
    // bf16 -> fp32 -> bf16 loses nothing
    const std::string wide = rewrite(folder, "wide", narrow, {DType::F32, false, ""});
    const std::string again = rewrite(folder, "again", wide, {DType::BF16, false, ""});
    EXPECT_EQ(read_text(again + "/model.safetensors"), read_text(narrow + "/model.safetensors"));
}

TEST(RewriteFolder, ExportLeavesTheTrainersStateBehind) {
    const TemporaryFolder folder;
    const std::string source = make_small(folder), base = folder.file("base");
    write_file_atomic(source + "/state.json", "{}");
    write_file_atomic(source + "/optimizer.safetensors", "...");
    const std::string out = rewrite(folder, "out", source, {std::nullopt, false, ""});
    EXPECT_EQ(read_text(out + "/model.safetensors"), read_text(source + "/model.safetensors"));
    EXPECT_TRUE(file_exists(out + "/modeling_sdar.py"));
    EXPECT_FALSE(file_exists(out + "/state.json") || file_exists(out + "/optimizer.safetensors"));

    make_folders(base);
    write_file_atomic(base + "/README.md", "of the base");
    const std::string other = rewrite(folder, "other", source, {std::nullopt, false, base});
    EXPECT_TRUE(file_exists(other + "/README.md"));
    EXPECT_FALSE(file_exists(other + "/modeling_sdar.py"));
}

TEST(RewriteFolder, ValueModelHasTheBodyAndAHeadOfZeros) {
    for (const char* tied : {"tie_word_embeddings=true", "tie_word_embeddings=false"}) {
        const TemporaryFolder folder;
        const std::string source = make_small(folder, {tied});
        const std::string out = rewrite(folder, "value", source, {std::nullopt, true, ""});
        const ModelFolder policy = open_model_folder(source), value = open_model_folder(out, Head::Value);
        EXPECT_EQ(value.weights.find("lm_head.weight"), nullptr);
        const FileTensor* head = value.weights.find("value_head.weight");
        EXPECT_EQ(head->shape, std::vector<int64_t>({1, 16}));
        EXPECT_EQ(bytes_of(*head), std::string(64, '\0'));
        for (const FileTensor* t : value.weights.tensors()) {
            if (t == head) continue;
            EXPECT_EQ(bytes_of(*t), bytes_of(*policy.weights.find(t->name)));
        }
    }
}

TEST(RewriteFolder, RunFoldersStandForTheirLatestCheckpoint) {
    const TemporaryFolder folder;
    make_folders(folder.file("run/ckpt/step-10"));
    write_file_atomic(folder.file("run/latest"), "ckpt/step-10\n");
    EXPECT_EQ(resolve_model_path(folder.file("run")), folder.file("run") + "/ckpt/step-10");
    EXPECT_EQ(resolve_model_path(folder.file("elsewhere")), folder.file("elsewhere"));
}

// The files of the built-in tokenizer make the built-in tokenizer.
TEST(RewriteFolder, ByteTokenizerFiles) {
    const TemporaryFolder folder;
    save_byte_tokenizer(folder.path());
    const auto built_in = load_tokenizer("bytes"), read = load_tokenizer(folder.path());
    std::string every_byte;
    for (int b = 0; b < 256; b++) every_byte += char(b);
    for (const std::string& text :
         {every_byte, std::string("<|im_start|>user\nH\xc3\xa9  llo 12 it's<|im_end|>\n<|MASK|>")})
        for (const bool special : {false, true}) {
            EXPECT_EQ(read->encode(text, special), built_in->encode(text, special));
            EXPECT_EQ(read->decode(read->encode(text, special)),
                      built_in->decode(built_in->encode(text, special)));
        }
    EXPECT_EQ(read->vocabulary_size(), BYTE_TOKENS);
    EXPECT_EQ(read->mask(), BYTE_MASK);
    EXPECT_EQ(read->eos(), BYTE_END_OF_TEXT);
    EXPECT_TRUE(read->is_special(BYTE_IM_END));
}
