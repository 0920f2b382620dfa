#include "model/transformer.h"

#include <algorithm>
#include <cmath>

DType activation_dtype(const Ops& ops, const Parameters& weights) {
    return ops.on_host() ? DType::F32 : weights.embedding.dtype;
}

const char* name_of(Recompute recompute) {
    return recompute == Recompute::None ? "none" : recompute == Recompute::Norms ? "norms" : "block";
}

void fail_not_finite(const std::string& where) {
    fail(Exit::Runtime,
         "the network's output is not finite (%s): weights are not finite (`convert check` names them), or "
         "activations grow beyond their type",
         where.c_str());
}

void KvCache::plan(Arena& arena, const ModelConfig& config, int slots, DType dtype) {
    k.resize(size_t(config.L));
    v.resize(size_t(config.L));
    for (int l = 0; l < config.L; l++) {
        arena.add(&k[size_t(l)], format("layer %d keys", l), slots, config.kv_width(), dtype);
        arena.add(&v[size_t(l)], format("layer %d values", l), slots, config.kv_width(), dtype);
    }
}

Transformer::Transformer(Ops& ops, const ModelConfig& config, const Parameters& weights, Arena& arena,
                         int max_T, int max_targets, KvCache* cache, Recompute recompute)
    : ops_(ops),
      config_(config),
      weights_(weights),
      arena_(arena),
      cache_(cache),
      max_T_(max_T),
      max_targets_(max_targets),
      training_(!cache),
      recompute_(recompute),
      dtype_(activation_dtype(ops, weights)),
      layers_(size_t(config.L)) {
    CHECK(max_targets <= max_T, "%d targets among %d tokens", max_targets, max_T);
    plan_forward(arena);
    if (training_) plan_backward(arena);
}

namespace {

// Which tensors of a layer: its input, what matrix products and attention return, what is cheap to
// compute from those, and of that the keys, which inference writes into its cache.
struct Parts {
    bool input, products, cheap, keys;
};

void plan_layer(Arena& arena, LayerActivations& a, const std::string& at, const Parts& parts,
                const ModelConfig& c, int64_t T, DType dtype) {
    const int64_t q = c.q_width(), kv = c.kv_width();
    const auto add = [&](bool wanted, Tensor* t, const char* name, int64_t rows, int64_t cols, DType type) {
        if (wanted) arena.add(t, at + name, rows, cols, type);
    };
    add(parts.input, &a.resid, "input", T, c.C, dtype);
    add(parts.cheap, &a.rstd1, "rstd1", 1, T, DType::F32);
    add(parts.cheap, &a.norm1, "norm1", T, c.C, dtype);
    add(parts.products, &a.qkv, "qkv", T, q + 2 * kv, dtype);
    add(parts.cheap, &a.q, "q", T, q, dtype);
    add(parts.cheap && c.qk_norm, &a.q_rstd, "q rstd", T, c.NH, DType::F32);
    add(parts.keys, &a.k_new, "k", T, kv, dtype);
    add(parts.cheap && c.qk_norm, &a.k_rstd, "k rstd", T, c.NKV, DType::F32);
    add(parts.products, &a.att, "attention", T, q, dtype);
    add(parts.products, &a.lse, "lse", T, c.NH, DType::F32);
    add(parts.products, &a.resid_mid, "middle", T, c.C, dtype);
    add(parts.cheap, &a.rstd2, "rstd2", 1, T, DType::F32);
    add(parts.cheap, &a.norm2, "norm2", T, c.C, dtype);
    add(parts.products, &a.gate_up, "gate up", T, 2 * c.F, dtype);
    add(parts.cheap, &a.act, "activation", T, c.F, dtype);
}

}  // namespace

void Transformer::plan_forward(Arena& arena) {
    const ModelConfig& c = config_;
    const int64_t T = max_T_, N = max_targets_;
    plan_batch(arena, device_[0]);
    if (!training_) plan_batch(arena, device_[1]);
    arena.add(&rope_, "rope", c.max_positions, c.HD);
    // What is shared is read for the last time before the next layer writes it.
    const Parts kept = {.input = training_,
                        .products = training_ && recompute_ != Recompute::Block,
                        .cheap = training_ && recompute_ == Recompute::None,
                        .keys = training_ && recompute_ == Recompute::None};
    const Parts shared = {!kept.input, !kept.products, !kept.cheap, training_ && !kept.keys};
    plan_layer(arena, shared_, "every layer ", shared, c, T, dtype_);
    for (size_t l = 0; l < layers_.size(); l++)
        plan_layer(arena, layers_[l], format("layer %zu ", l), kept, c, T, dtype_);
    arena.add(&q_gathered_, "target q", N, c.q_width(), dtype_);
    arena.add(&resid_gathered_, "target input", N, c.C, dtype_);
    arena.add(&resid_out_, "output", N, c.C, dtype_);
    arena.add(&final_rstd_, "target rstd", 1, N);
    arena.add(&hidden_, "hidden", N, c.C, dtype_);
}

void Transformer::plan_batch(Arena& arena, DeviceBatch& b) const {
    const int64_t T = max_T_, N = max_targets_;
    arena.add(&b.token, "token", 1, T, DType::I32);
    arena.add(&b.position, "position", 1, T, DType::I32);
    arena.add(&b.slot, "slot", 1, T, DType::I32);
    arena.add(&b.see, "see", T, SPAN_INTS, DType::I32);
    arena.add(&b.target_row, "target row", 1, N, DType::I32);
    arena.add(&b.target_position, "target position", 1, N, DType::I32);
    arena.add(&b.target_see, "target see", N, SPAN_INTS, DType::I32);
}

void Transformer::plan_backward(Arena& arena) {
    const ModelConfig& c = config_;
    const DType dtype = dtype_;
    const int64_t T = max_T_, q = c.q_width(), kv = c.kv_width();
    arena.add(&dhidden_, "d hidden", max_targets_, c.C, dtype);
    arena.add(&dresid_gathered_, "d target residual", max_targets_, c.C, dtype);
    arena.add(&dq_gathered_, "d target q", max_targets_, q, dtype);
    arena.add(&dresid_, "d residual", T, c.C, dtype);
    arena.add(&dnorm_, "d norm", T, c.C, dtype);
    arena.add(&dqkv_, "d qkv", T, q + 2 * kv, dtype);
    arena.add(&dq_, "d q", T, q, dtype);
    arena.add(&dk_, "d k", T, kv, dtype);
    arena.add(&dv_, "d v", T, kv, dtype);
    arena.add(&datt_, "d attention", T, q, dtype);
    arena.add(&dscratch_, "attention row sums", T, c.NH);
    arena.add(&dgate_up_, "d gate up", T, 2 * c.F, dtype);
    arena.add(&dact_, "d activation", T, c.F, dtype);
}

// Row p: cos then sin of p * theta^(-2i / HD), i < HD / 2; rows [begin, end). Frequency and angle are rounded to
// fp32 as in Hugging Face's implementation, under which the weights were trained: at position 10,000 the
// rounding of the angle is 1e-3.
static std::vector<float> rope_rows(const ModelConfig& c, int begin, int end) {
    const int half = c.HD / 2;
    std::vector<float> table(size_t(end - begin) * size_t(c.HD));
    for (int i = 0; i < half; i++) {
        const float frequency = 1.0f / float(std::pow(c.rope_theta, 2.0 * i / c.HD));
        for (int p = begin; p < end; p++) {
            const double angle = double(float(p) * frequency);
            float* row = &table[size_t(p - begin) * size_t(c.HD)];
            row[i] = float(std::cos(angle));
            row[half + i] = float(std::sin(angle));
        }
    }
    return table;
}

// Where other arenas use the memory in turn (SharedMemory), what it held of this one is lost.
void Transformer::claim_memory() {
    if (!arena_.claim()) return;
    rope_rows_ = 0;
    if (!cache_) return;
    // Attention multiplies the values of slots in a tile that a row does not see by 0: they must not be NaN.
    for (const Tensor& v : cache_->v) ops_.zero(v);
}

void Transformer::load(const TokenBatch& batch, Place place) {
    const DeviceBatch& to = device_[int(place)];
    const int T = batch.T(), N = batch.n_targets();
    CHECK(T > 0 && T <= max_T_, "a batch of %d tokens, planned for %d", T, max_T_);
    CHECK(N <= max_targets_, "a batch of %d targets, planned for %d", N, max_targets_);
    const int longest = *std::max_element(batch.position.begin(), batch.position.end());
    CHECK(longest < config_.max_positions, "position %d, the model has %d", longest, config_.max_positions);
    claim_memory();
    // Only as many angles as are needed: those of all 32,768 positions take longer than a short answer.
    if (longest >= rope_rows_) {
        const int end = std::min(config_.max_positions, std::max({longest + 1, 2 * rope_rows_, 1024}));
        ops_.upload(rope_.row_range(rope_rows_, end), rope_rows(config_, rope_rows_, end).data());
        rope_rows_ = end;
    }
    target_position_.clear();
    target_see_.clear();
    for (const int row : batch.target_row) {
        target_position_.push_back(batch.position[size_t(row)]);
        target_see_.push_back(batch.see[size_t(row)]);
    }
    DeviceBatch& now = loaded_[int(place)];
    now = {to.token.col_range(0, T),     to.position.col_range(0, T),   to.slot.col_range(0, T),
           to.see.row_range(0, T),       to.target_row.col_range(0, N), to.target_position.col_range(0, N),
           to.target_see.row_range(0, N)};
    static_assert(sizeof(AttentionSpans) == SPAN_INTS * sizeof(int));
    ops_.upload(now.token, batch.token.data());
    ops_.upload(now.position, batch.position.data());
    ops_.upload(now.slot, batch.slot.data());
    ops_.upload(now.see, batch.see.data());
    if (N == 0) return;
    ops_.upload(now.target_row, batch.target_row.data());
    ops_.upload(now.target_position, target_position_.data());
    ops_.upload(now.target_see, target_see_.data());
}

// The first T rows of every buffer of layer l; keys and values from the cache in inference.
LayerActivations Transformer::activations(int l, int T) const {
    const LayerActivations& own = layers_[size_t(l)];
    const auto rows = [&](Tensor LayerActivations::*t) {
        const Tensor& all = own.*t ? own.*t : shared_.*t;
        return all ? all.row_range(0, T) : all;
    };
    const auto cols = [&](Tensor LayerActivations::*t) {
        return (own.*t ? own.*t : shared_.*t).col_range(0, T);
    };
    using A = LayerActivations;
    LayerActivations now = {.resid = rows(&A::resid),
                            .rstd1 = cols(&A::rstd1),
                            .norm1 = rows(&A::norm1),
                            .qkv = rows(&A::qkv),
                            .q = rows(&A::q),
                            .q_rstd = rows(&A::q_rstd),
                            .k_new = rows(&A::k_new),
                            .k_rstd = rows(&A::k_rstd),
                            .k = {},
                            .v = {},
                            .att = rows(&A::att),
                            .lse = rows(&A::lse),
                            .resid_mid = rows(&A::resid_mid),
                            .rstd2 = cols(&A::rstd2),
                            .norm2 = rows(&A::norm2),
                            .gate_up = rows(&A::gate_up),
                            .act = rows(&A::act)};
    // In training a token's slot is its row, so keys and values are read where they were computed.
    now.k = training_ ? now.k_new : cache_->k[size_t(l)];
    now.v = training_ ? v_part(now.qkv) : cache_->v[size_t(l)];
    return now;
}

Tensor Transformer::q_part(const Tensor& qkv) const { return qkv.col_range(0, config_.q_width()); }
Tensor Transformer::k_part(const Tensor& qkv) const {
    return qkv.col_range(config_.q_width(), config_.q_width() + config_.kv_width());
}
Tensor Transformer::v_part(const Tensor& qkv) const {
    return qkv.col_range(config_.q_width() + config_.kv_width(), qkv.cols);
}

Transformer::QuerySide Transformer::query_side(int l, const LayerActivations& a) const {
    const Tensor q_raw = q_part(a.qkv);
    if (l + 1 < config_.L) return {int(q_raw.rows), q_raw, now_.position, now_.see, a.resid};
    const int N = int(now_.target_row.cols);
    return {N, q_gathered_.row_range(0, N), now_.target_position, now_.target_see,
            resid_gathered_.row_range(0, N)};
}

// Layer l from its input up to the MLP's activation. Without `products` the results of matrix products and attention
// are those of the forward pass, and only what is cheap is computed, from them.
void Transformer::compute_layer(int l, bool products) {
    const ModelConfig& c = config_;
    const int T = int(now_.token.cols), N = int(now_.target_row.cols);
    const LayerActivations all = activations(l, T);
    const LayerParameters& w = weights_.layers[size_t(l)];
    ops_.rmsnorm_forward(all.norm1, all.rstd1, all.resid, w.norm1, c.rms_eps);
    if (products) ops_.linear_forward(all.qkv, all.norm1, w.qkv, w.qkv_bias);
    // keys and values of every row; queries too, but in the last layer of the target rows
    const bool last = l + 1 == c.L;
    ops_.qkv_forward({.q = last ? Tensor{} : all.q,
                      .q_rstd = all.q_rstd,
                      .k = all.k,
                      .k_rstd = all.k_rstd,
                      .v = training_ ? Tensor{} : all.v,
                      .slot = training_ ? Tensor{} : now_.slot,
                      .qkv = all.qkv,
                      .q_norm = w.q_norm,
                      .k_norm = w.k_norm,
                      .position = now_.position,
                      .rope = rope_,
                      .heads = c.NH,
                      .kv_heads = c.NKV,
                      .eps = c.rms_eps});
    if (last && N == 0) return;
    const QuerySide in = query_side(l, all);
    const LayerActivations a = activations(l, in.rows);
    if (last) {
        ops_.gather_rows(in.q_raw, q_part(all.qkv), now_.target_row);
        ops_.gather_rows(in.resid, all.resid, now_.target_row);
        ops_.head_norm_rope_forward(a.q, a.q_rstd, in.q_raw, w.q_norm, in.position, rope_, c.NH, c.rms_eps);
    }
    if (products) {
        ops_.attention_forward(a.att, a.lse, a.q, all.k, all.v, in.see, c.NH, c.NKV);
        ops_.linear_forward(a.resid_mid, a.att, w.out, {}, in.resid);
    }
    // MLP
    ops_.rmsnorm_forward(a.norm2, a.rstd2, a.resid_mid, w.norm2, c.rms_eps);
    if (products) ops_.linear_forward(a.gate_up, a.norm2, w.gate_up);
    ops_.swiglu_forward(a.act, a.gate_up);
}

Tensor Transformer::forward(const TokenBatch& batch) {
    load(batch);
    return forward(Place::Now);
}

Tensor Transformer::forward(Place place) {
    now_ = loaded_[int(place)];
    const ModelConfig& c = config_;
    const int T = int(now_.token.cols), N = int(now_.target_row.cols);
    ops_.embedding_forward(activations(0, T).resid, now_.token, weights_.embedding);
    for (int l = 0; l < c.L; l++) {
        compute_layer(l, true);
        const bool last = l + 1 == c.L;
        if (last && N == 0) return {};
        const LayerActivations a = activations(l, last ? N : T);
        ops_.linear_forward(last ? resid_out_.row_range(0, N) : activations(l + 1, T).resid, a.act,
                            weights_.layers[size_t(l)].down, {}, a.resid_mid);
    }
    const Tensor hidden = hidden_.row_range(0, N);
    ops_.rmsnorm_forward(hidden, final_rstd_.col_range(0, N), resid_out_.row_range(0, N), weights_.final_norm,
                         c.rms_eps);
    return hidden;
}

void Transformer::backward(const Parameters& grads, Tensor dhidden) {
    CHECK(training_, "backward on an inference network");
    const ModelConfig& c = config_;
    const int T = int(now_.token.cols), N = int(now_.target_row.cols);
    const Tensor dresid_all = dresid_.row_range(0, T), dqkv = dqkv_.row_range(0, T), dk = dk_.row_range(0, T),
                 dv = dv_.row_range(0, T);
    const Tensor dnorm_all = dnorm_.row_range(0, T);
    // Gradient of the residual stream: N rows above the last layer's attention, T below.
    Tensor dresid = dresid_gathered_.row_range(0, N);
    ops_.zero(dresid);
    ops_.rmsnorm_backward(dresid, grads.final_norm, dhidden, final_rstd_.col_range(0, N),
                          resid_out_.row_range(0, N), weights_.final_norm);
    for (int l = c.L - 1; l >= 0; l--) {
        const bool last = l + 1 == c.L;
        // After forward() the buffers that all layers share still hold the last layer's.
        if (recompute_ != Recompute::None && !last) compute_layer(l, recompute_ == Recompute::Block);
        const LayerActivations all = activations(l, T);
        const QuerySide in = query_side(l, all);
        const LayerActivations a = activations(l, in.rows);
        const LayerParameters& w = weights_.layers[size_t(l)];
        const LayerParameters& g = grads.layers[size_t(l)];
        const auto rows = [&](const Tensor& t) { return t.row_range(0, in.rows); };
        // MLP: dresid is the gradient of the layer's output and, through the residual, of its middle
        ops_.linear_backward(rows(dact_), g.down, {}, dresid, a.act, w.down);
        ops_.swiglu_backward(rows(dgate_up_), rows(dact_), a.gate_up);
        ops_.linear_backward(rows(dnorm_), g.gate_up, {}, rows(dgate_up_), a.norm2, w.gate_up);
        ops_.rmsnorm_backward(dresid, g.norm2, rows(dnorm_), a.rstd2, a.resid_mid, w.norm2);
        // attention
        ops_.linear_backward(rows(datt_), g.out, {}, dresid, a.att, w.out);
        ops_.attention_backward(rows(dq_), dk, dv, rows(dscratch_), rows(datt_), a.att, a.lse, a.q, all.k,
                                all.v, in.see, c.NH, c.NKV);
        const Tensor dq_raw = last ? dq_gathered_.row_range(0, N) : q_part(dqkv);
        ops_.head_norm_rope_backward(dq_raw, g.q_norm, rows(dq_), a.q_rstd, in.q_raw, w.q_norm, in.position,
                                     rope_, c.NH);
        if (last) {
            ops_.gather_rows_backward(q_part(dqkv), dq_raw, now_.target_row);
            ops_.gather_rows_backward(dresid_all, dresid, now_.target_row);
            dresid = dresid_all;
        }
        ops_.head_norm_rope_backward(k_part(dqkv), g.k_norm, dk, all.k_rstd, k_part(all.qkv), w.k_norm,
                                     now_.position, rope_, c.NKV);
        ops_.copy(v_part(dqkv), dv);
        ops_.linear_backward(dnorm_all, g.qkv, g.qkv_bias, dqkv, all.norm1, w.qkv);
        ops_.rmsnorm_backward(dresid, g.norm1, dnorm_all, all.rstd1, all.resid, w.norm1);
    }
    ops_.embedding_backward(grads.embedding, dresid, now_.token);
}
