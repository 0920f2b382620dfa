#include <gtest/gtest.h>

#include "model/config.h"
#include "tests/fault_of.h"
#include "utils/error.h"
#include "utils/files.h"
#include "utils/json.h"

// A small config of each family, as Hugging Face writes them.
static Json small(const char* family) {
    const std::string name = family;
    if (name == "llada")
        return Json{{"architectures", {"LLaDAModelLM"}},
                    {"model_type", "llada"},
                    {"d_model", 32},
                    {"n_layers", 2},
                    {"n_heads", 4},
                    {"n_kv_heads", 4},
                    {"mlp_hidden_size", 44},
                    {"vocab_size", 90},
                    {"embedding_size", 96},
                    {"rms_norm_eps", 1e-5},
                    {"rope", true},
                    {"rope_theta", 5e5},
                    {"weight_tying", false},
                    {"layer_norm_type", "rms"},
                    {"activation_type", "silu"},
                    {"block_type", "llama"},
                    {"max_sequence_length", 4096},
                    {"mask_token_id", 88},
                    {"eos_token_id", 89}};
    Json j = {{"model_type", family},    {"vocab_size", 97},         {"hidden_size", 32},
              {"num_hidden_layers", 2},  {"num_attention_heads", 4}, {"num_key_value_heads", 2},
              {"intermediate_size", 48}, {"rms_norm_eps", 1e-6},     {"rope_theta", 1e6},
              {"rope_scaling", nullptr}, {"hidden_act", "silu"},     {"tie_word_embeddings", false},
              {"mask_token_id", 93},     {"eos_token_id", {94, 95}}, {"max_position_embeddings", 4096}};
    if (name == "sdar") j.update(Json{{"head_dim", 16}, {"block_size", 8}, {"attention_bias", false}});
    return j;
}

static Json with(Json j, const char* field, Json value) {
    j[field] = std::move(value);
    return j;
}
static Json without(Json j, const char* field) {
    j.erase(field);
    return j;
}

// What is wrong with a config; "" where it parses.
static std::string fault(const Json& j) {
    return fault_of(Exit::BadFile, [&] { parse_config(j, "m/config.json"); });
}

#define EXPECT_HAS(text, part) EXPECT_NE((text).find(part), std::string::npos) << (text)

TEST(Config, Sdar) {
    const ModelConfig c = parse_config(small("sdar"), "config.json");
    EXPECT_EQ(c.family, Family::Sdar);
    EXPECT_EQ(std::vector<int>({c.V, c.C, c.L, c.NH, c.NKV, c.HD, c.F, c.B}),
              std::vector<int>({97, 32, 2, 4, 2, 16, 48, 8}));
    EXPECT_EQ(c.mask_id, 93);
    EXPECT_EQ(c.eos_ids, std::vector<int>({94, 95}));
    EXPECT_EQ(c.max_positions, 4096);
    EXPECT_TRUE(c.qk_norm);
    EXPECT_FALSE(c.qkv_bias || c.full_attention || c.shift || c.tied);
    EXPECT_TRUE(c.ignored.empty() && c.notices.empty());
}

TEST(Config, Dream) {
    const ModelConfig c = parse_config(small("Dream"), "config.json");
    EXPECT_EQ(c.family, Family::Dream);
    EXPECT_EQ(c.HD, 8);  // hidden / heads
    EXPECT_TRUE(c.qkv_bias && c.full_attention && c.shift);
    EXPECT_FALSE(c.qk_norm);
    EXPECT_EQ(parse_config(small("dream"), "config.json").family, Family::Dream);
}

TEST(Config, Llada) {
    const ModelConfig c = parse_config(small("llada"), "config.json");
    EXPECT_EQ(std::vector<int>({c.V, c.C, c.L, c.NH, c.NKV, c.HD, c.F}),
              std::vector<int>({96, 32, 2, 4, 4, 8, 44}));  // the embedding's rows count
    EXPECT_TRUE(c.full_attention);
    EXPECT_FALSE(c.qkv_bias || c.qk_norm || c.shift);
    EXPECT_FLOAT_EQ(c.rms_eps, 1e-5f);
    EXPECT_EQ(c.rope_theta, 5e5);
    EXPECT_EQ(parse_config(without(small("llada"), "mlp_hidden_size"), "config.json").F, 128);
    EXPECT_EQ(parse_config(with(small("llada"), "n_kv_heads", nullptr), "config.json").NKV, 4);
}

TEST(Config, AutoregressiveParents) {
    for (const char* family : {"qwen3", "qwen2"}) {
        const ModelConfig c = parse_config(without(small(family), "mask_token_id"), "config.json");
        EXPECT_EQ(c.mask_id, -1);
        EXPECT_EQ(c.B, 1);
        EXPECT_TRUE(c.shift);
        EXPECT_FALSE(c.full_attention);
        EXPECT_EQ(c.qk_norm, c.family == Family::Qwen3);
        EXPECT_EQ(c.qkv_bias, c.family == Family::Qwen2);
    }
}

TEST(Config, FamilyFromArchitecturesWhereModelTypeIsMissing) {
    const Json j = with(without(small("sdar"), "model_type"), "architectures", {"SDARForCausalLM"});
    EXPECT_EQ(parse_config(j, "config.json").family, Family::Sdar);
    EXPECT_HAS(fault(without(small("sdar"), "model_type")), "model_type is missing");
}

TEST(Config, FamilyDefaultsComeWithANotice) {
    const Json j = with(without(without(small("sdar"), "mask_token_id"), "block_size"), "vocab_size", 151936);
    const ModelConfig c = parse_config(j, "config.json");
    EXPECT_EQ(c.mask_id, 151669);
    EXPECT_EQ(c.B, 4);
    EXPECT_EQ(c.notices.size(), 2u);
    // ... unless the default cannot be right
    EXPECT_HAS(fault(without(small("sdar"), "mask_token_id")), "past the vocabulary of 97");
}

TEST(Config, IgnoredFieldsAreListed) {
    const Json j = with(with(small("sdar"), "use_cache", true), "fuse_cross_entropy", true);
    EXPECT_EQ(parse_config(j, "config.json").ignored,
              std::vector<std::string>({"use_cache", "fuse_cross_entropy"}));
}

TEST(Config, WhatWouldChangeTheResultIsRefusedByName) {
    struct Case {
        const char *family, *field;
        Json value;
    };
    const std::vector<Case> cases = {
        {"sdar", "rope_scaling", {{"type", "yarn"}, {"factor", 4.0}}},
        {"sdar", "rope_scaling", "linear"},
        {"sdar", "rope_parameters", {{"rope_type", "llama3"}, {"rope_theta", 1e6}}},
        {"sdar", "use_sliding_window", true},
        {"sdar", "hidden_act", "gelu"},
        {"sdar", "attention_bias", true},
        {"qwen3", "attention_bias", true},
        {"qwen2", "layer_types", {"full_attention", "sliding_attention"}},
        {"Dream", "use_mrope", true},
        {"sdar", "num_experts", 128},
        {"sdar", "quantization_config", {{"bits", 4}}},
        {"llada", "block_type", "sequential"},
        {"llada", "layer_norm_type", "default"},
        {"llada", "activation_type", "swiglu"},
        {"llada", "rope", false},
        {"llada", "rope_full_precision", false},
        {"llada", "multi_query_attention", true},
        {"llada", "include_bias", true},
        {"llada", "include_qkv_bias", true},
        {"llada", "scale_logits", true},
        {"llada", "alibi", true},
        {"llada", "block_group_size", 2},
        {"llada", "attention_layer_norm", true},
        {"llada", "rope_scaling", {{"type", "linear"}}},
    };
    for (const Case& c : cases)
        EXPECT_HAS(fault(with(small(c.family), c.field, c.value)), std::string("m/config.json: ") + c.field);
}

TEST(Config, PlainRopeParametersOfNewerFiles) {
    const Json j = with(without(small("sdar"), "rope_theta"), "rope_parameters",
                        {{"rope_type", "default"}, {"rope_theta", 12345.0}});
    EXPECT_EQ(parse_config(j, "config.json").rope_theta, 12345.0);
    EXPECT_EQ(fault(with(small("sdar"), "rope_scaling", {{"rope_type", "default"}})), "");
    // The class of every Qwen body assumes 10000.
    const ModelConfig c = parse_config(without(small("sdar"), "rope_theta"), "config.json");
    EXPECT_EQ(c.rope_theta, 1e4);
    EXPECT_EQ(c.notices, std::vector<std::string>({"rope_theta is missing, 10000 is assumed"}));
}

TEST(Config, MixtureOfExpertsIsRecognised) {
    for (const char* type : {"sdar_moe", "qwen3_moe", "llada2_moe"})
        EXPECT_HAS(fault(with(small("sdar"), "model_type", type)), "mixture of experts");
    EXPECT_HAS(fault(with(small("sdar"), "model_type", "gpt2")), "\"gpt2\", which is not supported");
}

TEST(Config, UnsoundValues) {
    const std::vector<std::pair<const char*, Json>> cases = {
        {"hidden_size", -1},
        {"hidden_size", 0},
        {"hidden_size", 32.5},
        {"hidden_size", "32"},
        {"hidden_size", 1ull << 63},
        {"hidden_size", UINT64_MAX},
        {"hidden_size", INT64_MIN},
        {"vocab_size", 1e9},
        {"vocab_size", 2147483647},
        {"num_hidden_layers", Json::array()},
        {"num_hidden_layers", 1000000},
        {"num_attention_heads", 0},
        {"intermediate_size", true},
        {"rms_norm_eps", 0},
        {"rms_norm_eps", -1e-6},
        {"rms_norm_eps", 1e-62},
        {"rms_norm_eps", "1e-6"},
        {"rope_theta", 0},
        {"rope_theta", Json::object()},
        {"tie_word_embeddings", "false"},
        {"tie_word_embeddings", 1},
        {"mask_token_id", 97},
        {"mask_token_id", -1},
        {"eos_token_id", 97},
        {"eos_token_id", Json::array({94, "95"})},
        {"eos_token_id", Json::object()},
        {"block_size", 0},
        {"block_size", 1 << 20},
        {"max_position_embeddings", 0},
        {"head_dim", 2048},
        {"layer_types", "full_attention "},
    };
    for (const auto& [field, value] : cases)
        EXPECT_HAS(fault(with(small("sdar"), field, value)), field) << value;
    EXPECT_HAS(fault(with(small("sdar"), "num_key_value_heads", 3)),
               "not a multiple of num_key_value_heads 3");
    EXPECT_HAS(fault(with(small("sdar"), "head_dim", 15)), "head size 15 is odd");
    EXPECT_HAS(fault(with(small("Dream"), "hidden_size", 34)), "not a multiple of num_attention_heads");
    EXPECT_HAS(fault(with(small("llada"), "embedding_size", 80)), "embedding_size 80 is smaller");
    EXPECT_HAS(fault(Json::array()), "must be a JSON object");
    EXPECT_HAS(fault(nullptr), "must be a JSON object");
    EXPECT_HAS(fault(with(small("sdar"), "model_type", 7)), "model_type is 7");
    EXPECT_LT(fault(with(small("sdar"), "hidden_act", std::string(1 << 20, 'x'))).size(), 300u);
}

TEST(Config, MissingSizesAreNamed) {
    for (const char* field :
         {"vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size"})
        EXPECT_EQ(fault(without(without(small("sdar"), "head_dim"), field)).find("m/config.json"), 0u)
            << field;
    EXPECT_HAS(fault(without(small("sdar"), "vocab_size")), "vocab_size is missing");
    EXPECT_HAS(fault(without(small("llada"), "weight_tying")), "weight_tying is missing");
}

TEST(Config, AllFaultsTogether) {
    Json j =
        with(with(without(small("sdar"), "intermediate_size"), "hidden_act", "relu"), "eos_token_id", 1000);
    const std::string text = fault(j);
    EXPECT_HAS(text, "3 faults");
    EXPECT_HAS(text, "intermediate_size is missing");
    EXPECT_HAS(text, "hidden_act is \"relu\"");
    EXPECT_HAS(text, "eos_token_id is 1000");
}

TEST(Config, WrittenAndReadBack) {
    for (const char* family : {"sdar", "Dream", "llada", "qwen3", "qwen2"}) {
        ModelConfig c = parse_config(small(family), "config.json");
        const ModelConfig d = parse_config(config_to_json(c), "config.json");
        EXPECT_EQ(config_to_json(c), config_to_json(d));
        EXPECT_EQ(std::vector<int>({c.V, c.C, c.L, c.NH, c.NKV, c.HD, c.F, c.mask_id, c.max_positions}),
                  std::vector<int>({d.V, d.C, d.L, d.NH, d.NKV, d.HD, d.F, d.mask_id, d.max_positions}));
        EXPECT_EQ(c.B, d.B);
        EXPECT_EQ(c.family, d.family);
        EXPECT_EQ(c.rms_eps, d.rms_eps);
        EXPECT_EQ(c.rope_theta, d.rope_theta);
        EXPECT_EQ(d.eos_ids, std::vector<int>({c.eos_ids.back()}));
        EXPECT_TRUE(d.notices.empty()) << d.notices[0];
    }
}

// The published files, with the parameter counts of their indices (total_size / 2).
TEST(Config, PublishedModels) {
    const std::string root = "../shared/data/configs/";
    if (!folder_exists(root)) GTEST_SKIP() << "no " << root;
    struct Published {
        const char* name;
        int64_t parameters;
        int HD, mask_id, B;
    };
    for (const Published& p : {Published{"SDAR-1dot7B-Chat", 2031739904, 128, 151669, 4},
                               {"SDAR-4B-Chat", 4411424256, 128, 151669, 4},
                               {"SDAR-8B-Chat", 8190735360, 128, 151669, 4},
                               {"Dream-v0-Instruct-7B", 7615616512, 128, 151666, 32},
                               {"LLaDA-8B-Instruct", 8015581184, 128, 126336, 32}}) {
        const std::string path = root + p.name + "/config.json";
        const ModelConfig c = parse_config(read_json(path), path);
        EXPECT_EQ(c.n_parameters(), p.parameters) << p.name;
        EXPECT_EQ(c.HD, p.HD);
        EXPECT_EQ(c.mask_id, p.mask_id);
        EXPECT_EQ(c.B, p.B);
        EXPECT_TRUE(c.notices.empty()) << c.notices[0];
    }
}
