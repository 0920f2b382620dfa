// parameters.h -- the weights of a transformer body, and everything of the same shape: gradients and
// optimizer moments.
#pragma once
#include <functional>
#include <string>
#include <vector>

#include "model/config.h"
#include "utils/arena.h"

enum class Head { Policy, Value };

struct LayerParameters {
    Tensor norm1;     // (1, C)     before attention
    Tensor qkv;       // ((NH + 2 NKV) * HD, C)   q rows, then k rows, then v rows
    Tensor qkv_bias;  // (1, (NH + 2 NKV) * HD)   Qwen2 bodies only
    Tensor q_norm;    // (1, HD)    Qwen3 bodies only
    Tensor k_norm;    // (1, HD)
    Tensor out;       // (C, NH * HD)
    Tensor norm2;     // (1, C)     before the MLP
    Tensor gate_up;   // (2 F, C)   gate rows, then up rows
    Tensor down;      // (C, F)
};

struct Parameters {
    Tensor embedding;  // (V, C)
    std::vector<LayerParameters> layers;
    Tensor final_norm;  // (1, C)
    Tensor lm_head;     // (V, C)     Policy: the embedding itself where tied. Absent in a value model
    Tensor value_head;  // (1, C)     Value only

    // Plans every tensor in `arena`: matrices in `dtype`; norms, biases and the value head in `vectors`,
    // which is the activations' type. `this` must not move before arena.allocate() and bind().
    void plan(Arena& arena, const ModelConfig& config, Head head, DType dtype = DType::F32,
              DType vectors = DType::F32);
    std::vector<Tensor*> matrices();       // every stored matrix, in the order of for_each; a tied head once
    void bind(const ModelConfig& config);  // after arena.allocate(): points a tied lm_head at the embedding

    // Every tensor once, as a Hugging Face folder of the Qwen family names it
    // ("model.layers.0.self_attn.q_proj.weight"): the fused projections appear as their parts. `is_vector`
    // tensors (norms, biases) are (1, n) here and (n) in files. Always in the same order. A tied head is not
    // visited.
    void for_each(const ModelConfig& config,
                  const std::function<void(const std::string& name, const Tensor& t)>& visit) const;

    // Every stored tensor once, whole (fused projections in one piece), for optimizers and norms.
    void for_each_stored(const std::function<void(const std::string& name, const Tensor& t)>& visit) const;
};
// Norm weights and biases: stored as vectors, never decayed.
bool is_vector(const std::string& name);

// Random weights for a model made from nothing: normal(0, 0.02), norms 1, biases 0, projections onto the
// residual stream scaled by 1/sqrt(2 L). A value head is zero. The numbers depend on the seed and the tensor
// alone.
void initialize(const Parameters& parameters, const ModelConfig& config, uint64_t seed);
// The same for some rows of one tensor, `rows` being those from first_row on: a model too big for memory is
// made piece by piece. BF16 gets the same numbers, rounded.
void initialize_rows(const std::string& name, const Tensor& rows, int64_t first_row,
                     const ModelConfig& config, uint64_t seed);
