// config.h -- what a model folder's config.json says, for every family the engine knows.
#pragma once
#include <memory>
#include <string>
#include <vector>

#include "utils/json_forward.h"

enum class Family { Sdar, Dream, Llada, Qwen3, Qwen2 };
const char* name_of(Family family);

struct ModelConfig {
    Family family = Family::Sdar;
    int V = 0, C = 0, L = 0, NH = 0, NKV = 0, HD = 0, F = 0;
    int B = 4;  // diffusion block length; 1: autoregressive parents; full attention: a decoding block
    float rms_eps = 1e-6f;
    double rope_theta = 1e6;
    int max_positions = 32768;        // longest sequence; sizes the RoPE table
    bool tied = false;                // the LM head is the embedding
    bool qk_norm = true;              // RMSNorm over HD before RoPE (Qwen3 bodies)
    bool qkv_bias = false;            // (Qwen2 bodies)
    bool full_attention = false;      // one canvas, every token sees every token; else block-causal
    bool shift = false;               // row p-1 predicts position p (Dream, and the autoregressive parents)
    int mask_id = -1;                 // -1: none (autoregressive parents)
    std::vector<int> eos_ids;         // of config.json; generation_config.json's replace them (weights_tools)
    std::shared_ptr<const Json> raw;  // the file as read, for writing it back; none of a model made here
    std::vector<std::string> ignored;  // fields that change nothing here, for `convert check`
    std::vector<std::string> notices;  // what was assumed where the file is silent

    int q_width() const { return NH * HD; }
    int kv_width() const { return NKV * HD; }
    int64_t n_parameters() const;  // of a policy; a tied head counts once
};

// Reads and validates; throws Error(BadFile) that names `where` (the file), the field, its value and the
// remedy, all faults together. Anything that would change the result and is not supported is refused by name.
ModelConfig parse_config(const Json& json, const std::string& where);

// The config.json of a model made here, with the fields Hugging Face's class of that family expects.
Json config_to_json(const ModelConfig& config);
