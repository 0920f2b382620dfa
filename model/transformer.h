// transformer.h -- the network: one forward, one backward, over a TokenBatch. Written once, over Ops.
#pragma once
#include <memory>
#include <string>
#include <vector>

#include "model/batch.h"
#include "model/parameters.h"

// What backward() finds of each layer's forward pass, and what it computes again. The gradients are the same bits.
enum class Recompute {
    None,  // everything is kept
    Norms,  // kept: what matrix products and attention return; again: norms, q and k with RoPE, the gated activation
    Block,  // kept: the layer's input; again: all of the layer
};
const char* name_of(Recompute recompute);  // "none", "norms", "block"

// Throws Error(Runtime): numbers the network computed are not finite, and why that may be. where: which numbers.
[[noreturn]] void fail_not_finite(const std::string& where);

// What a forward pass computes of a layer. Each layer has its own buffers for what is kept for backward(); for the rest
// all layers share one set. In inference everything is shared, and keys and values live in the KV cache.
struct LayerActivations {
    Tensor resid;   // (T, C)                 input of the layer
    Tensor rstd1;   // (1, T)
    Tensor norm1;   // (T, C)
    Tensor qkv;     // (T, (NH + 2 NKV) * HD) before q/k norm and RoPE
    Tensor q;       // (T, NH * HD)           after
    Tensor q_rstd;  // (T, NH)
    Tensor k_new;   // (T, NKV * HD)          after; not in inference
    Tensor k_rstd;  // (T, NKV)
    Tensor k, v;    // (S, NKV * HD)          the cache in inference; k_new and the v part of qkv in training
    Tensor att;     // (T, NH * HD)
    Tensor lse;     // (T, NH)
    Tensor resid_mid;  // (T, C)
    Tensor rstd2;      // (1, T)
    Tensor norm2;      // (T, C)
    Tensor gate_up;    // (T, 2 F)
    Tensor act;        // (T, F)
};

// The type of activations, their gradients, keys and values: F32 on the host, that of the planned weights on a device.
DType activation_dtype(const Ops& ops, const Parameters& weights);

// Keys and values of a generation: L layers of S slots.
struct KvCache {
    std::vector<Tensor> k, v;  // (S, NKV * HD) each
    void plan(Arena& arena, const ModelConfig& config, int slots, DType dtype = DType::F32);
};

// Which of the two batches that the device has room for in inference: the one of the next pass, or the one that further
// denoising steps of the same blocks repeat (Ops::repeat_while).
enum class Place { Now, Again };

// Keys and values need every row of every layer; all else of the last layer is read at the target rows alone,
// so there the query side runs on those N rows only (in a trace layout a quarter of T).
class Transformer {
  public:
    // Plans the buffers for batches of up to max_T tokens and max_targets target rows in `arena`, which the caller
    // allocates. Training (no cache): slots are rows, and `recompute` says what backward() finds. Inference: pass the cache.
    Transformer(Ops& ops, const ModelConfig& config, const Parameters& weights, Arena& arena, int max_T,
                int max_targets, KvCache* cache, Recompute recompute = Recompute::None);

    // The final-norm hidden states of the batch's target rows, (n_targets, C), valid until the next call.
    Tensor forward(const TokenBatch& batch);
    // The same in two parts: load() puts the batch on the device, forward() computes and uploads nothing.
    void load(const TokenBatch& batch, Place place = Place::Now);
    Tensor forward(Place place = Place::Now);
    Tensor token(Place place) const { return loaded_[int(place)].token; }  // (1, T) of the batch loaded there
    // After forward() in training: gradients of every parameter += ; dhidden (n_targets, C). The LM head's
    // own gradient is the caller's (Ops::head_backward).
    void backward(const Parameters& gradients, Tensor dhidden);

    // (n_targets, C) of scratch for the gradient of forward()'s result.
    Tensor dhidden(int n_targets) const { return dhidden_.row_range(0, n_targets); }
    const ModelConfig& config() const { return config_; }
    const Parameters& weights() const { return weights_; }
    Ops& ops() const { return ops_; }
    DType dtype() const { return dtype_; }  // of activations
    int max_T() const { return max_T_; }
    int max_targets() const { return max_targets_; }

  private:
    struct DeviceBatch {
        Tensor token, position, slot, see, target_row, target_position, target_see;
    };
    // What a layer's queries are made of: every row, or (last layer) the gathered target rows.
    struct QuerySide {
        int rows;
        Tensor q_raw, position, see, resid;
    };
    QuerySide query_side(int layer, const LayerActivations& a) const;
    void plan_forward(Arena& arena);
    void plan_backward(Arena& arena);
    void plan_batch(Arena& arena, DeviceBatch& b) const;
    void compute_layer(int layer, bool products);
    void claim_memory();
    LayerActivations activations(int layer, int T) const;
    Tensor q_part(const Tensor& qkv) const;
    Tensor k_part(const Tensor& qkv) const;
    Tensor v_part(const Tensor& qkv) const;

    Ops& ops_;
    const ModelConfig& config_;
    const Parameters& weights_;
    Arena& arena_;
    KvCache* cache_;
    int max_T_, max_targets_;
    bool training_;
    Recompute recompute_;
    DType dtype_;
    std::vector<LayerActivations> layers_;  // each layer's own buffers
    LayerActivations shared_;               // those that all use in turn
    Tensor q_gathered_, resid_gathered_;    // (N, NH * HD), (N, C) of the last layer's target rows
    Tensor resid_out_;                      // (N, C) after the last layer
    Tensor final_rstd_, hidden_;            // (1, N), (N, C)
    std::vector<int> target_position_;      // of the current batch, on the host
    std::vector<AttentionSpans> target_see_;
    Tensor rope_;            // (max_positions, HD)
    int rope_rows_ = 0;      // how many of its rows are filled in
    DeviceBatch device_[2];  // by Place: buffers for the largest batch,
    DeviceBatch loaded_[2];  // and the part of them that the batch loaded there fills
    DeviceBatch now_;        // that of the pass under way
    // backward
    Tensor dhidden_, dresid_gathered_, dq_gathered_, dresid_, dnorm_, dqkv_, dq_, dk_, dv_, datt_, dscratch_,
        dgate_up_, dact_;
};
