#include "model/parameters.h"

#include <array>
#include <cmath>

#include "kernels/parallel.h"
#include "utils/philox.h"

void Parameters::plan(Arena& arena, const ModelConfig& c, Head head, DType dtype, DType vectors) {
    const int64_t qkv = c.q_width() + 2 * c.kv_width();
    arena.add(&embedding, "embedding", c.V, c.C, dtype);
    layers.resize(size_t(c.L));
    for (int l = 0; l < c.L; l++) {
        LayerParameters& p = layers[size_t(l)];
        const std::string at = format("layer %d ", l);
        arena.add(&p.norm1, at + "norm1", 1, c.C, vectors);
        arena.add(&p.qkv, at + "qkv", qkv, c.C, dtype);
        if (c.qkv_bias) arena.add(&p.qkv_bias, at + "qkv bias", 1, qkv, vectors);
        if (c.qk_norm) {
            arena.add(&p.q_norm, at + "q norm", 1, c.HD, vectors);
            arena.add(&p.k_norm, at + "k norm", 1, c.HD, vectors);
        }
        arena.add(&p.out, at + "out", c.C, c.q_width(), dtype);
        arena.add(&p.norm2, at + "norm2", 1, c.C, vectors);
        arena.add(&p.gate_up, at + "gate up", 2 * c.F, c.C, dtype);
        arena.add(&p.down, at + "down", c.C, c.F, dtype);
    }
    arena.add(&final_norm, "final norm", 1, c.C, vectors);
    if (head == Head::Value)
        arena.add(&value_head, "value head", 1, c.C, vectors);
    else if (!c.tied)
        arena.add(&lm_head, "lm head", c.V, c.C, dtype);
}

std::vector<Tensor*> Parameters::matrices() {
    std::vector<Tensor*> out = {&embedding};
    for (LayerParameters& p : layers) out.insert(out.end(), {&p.qkv, &p.out, &p.gate_up, &p.down});
    if (lm_head.cols) out.push_back(&lm_head);
    return out;
}

void Parameters::bind(const ModelConfig& config) {
    if (config.tied && !value_head.data) lm_head = embedding;
}

void Parameters::for_each(const ModelConfig& c,
                          const std::function<void(const std::string&, const Tensor&)>& visit) const {
    const int64_t q = c.q_width(), kv = c.kv_width();
    visit("model.embed_tokens.weight", embedding);
    for (size_t l = 0; l < layers.size(); l++) {
        const LayerParameters& p = layers[l];
        const std::string at = format("model.layers.%zu.", l);
        visit(at + "input_layernorm.weight", p.norm1);
        visit(at + "self_attn.q_proj.weight", p.qkv.row_range(0, q));
        visit(at + "self_attn.k_proj.weight", p.qkv.row_range(q, q + kv));
        visit(at + "self_attn.v_proj.weight", p.qkv.row_range(q + kv, q + 2 * kv));
        if (c.qkv_bias) {
            visit(at + "self_attn.q_proj.bias", p.qkv_bias.col_range(0, q));
            visit(at + "self_attn.k_proj.bias", p.qkv_bias.col_range(q, q + kv));
            visit(at + "self_attn.v_proj.bias", p.qkv_bias.col_range(q + kv, q + 2 * kv));
        }
        if (c.qk_norm) {
            visit(at + "self_attn.q_norm.weight", p.q_norm);
            visit(at + "self_attn.k_norm.weight", p.k_norm);
        }
        visit(at + "self_attn.o_proj.weight", p.out);
        visit(at + "post_attention_layernorm.weight", p.norm2);
        visit(at + "mlp.gate_proj.weight", p.gate_up.row_range(0, c.F));
        visit(at + "mlp.up_proj.weight", p.gate_up.row_range(c.F, 2 * c.F));
        visit(at + "mlp.down_proj.weight", p.down);
    }
    visit("model.norm.weight", final_norm);
    if (value_head.cols) visit("value_head.weight", value_head);
    if (lm_head.cols && !c.tied) visit("lm_head.weight", lm_head);
}

void Parameters::for_each_stored(const std::function<void(const std::string&, const Tensor&)>& visit) const {
    visit("embedding", embedding);
    for (size_t l = 0; l < layers.size(); l++) {
        const LayerParameters& p = layers[l];
        const std::string at = format("layers.%zu.", l);
        visit(at + "norm1", p.norm1);
        visit(at + "qkv.weight", p.qkv);
        if (p.qkv_bias.cols) visit(at + "qkv.bias", p.qkv_bias);
        if (p.q_norm.cols) visit(at + "q_norm", p.q_norm);
        if (p.k_norm.cols) visit(at + "k_norm", p.k_norm);
        visit(at + "out.weight", p.out);
        visit(at + "norm2", p.norm2);
        visit(at + "gate_up.weight", p.gate_up);
        visit(at + "down.weight", p.down);
    }
    visit("final_norm", final_norm);
    if (value_head.cols) visit("value_head", value_head);
    if (lm_head.cols && lm_head.data != embedding.data) visit("lm_head", lm_head);
}

bool is_vector(const std::string& name) {
    const auto ends = [&](const char* suffix) { return name.ends_with(suffix); };
    return ends("norm.weight") || ends("layernorm.weight") || ends(".bias") || ends("norm1") ||
           ends("norm2") || ends("_norm");
}

// The stream of a tensor's initial numbers: FNV-1a of its name, so that they do not depend on the order of
// tensors.
static uint32_t name_stream(const std::string& name) {
    uint32_t hash = 2166136261u;
    for (const char c : name) hash = (hash ^ uint8_t(c)) * 16777619u;
    return hash;
}

// Four normal numbers from one block of random bits (Box-Muller, both of each pair): number i of a tensor can
// be had without those before it.
static std::array<float, 4> normals(uint64_t seed, uint32_t stream, uint64_t block) {
    const auto bits = philox(seed, {uint32_t(block), uint32_t(block >> 32), uint32_t(Stream::Init), stream});
    std::array<float, 4> out;
    for (size_t i = 0; i < 4; i += 2) {
        const float radius = std::sqrt(-2.0f * std::log(1.0f - uniform(bits[i])));  // of (0, 1]: finite
        const float angle = 6.28318530718f * uniform(bits[i + 1]);
        out[i] = radius * std::cos(angle);
        out[i + 1] = radius * std::sin(angle);
    }
    return out;
}

static void store(const Tensor& t, int64_t r, int64_t c, float x) {
    if (t.dtype == DType::BF16)
        t.row<Bf16>(r)[c] = to_bf16(x);
    else
        t.row<float>(r)[c] = x;
}

void initialize_rows(const std::string& name, const Tensor& rows, int64_t first_row,
                     const ModelConfig& config, uint64_t seed) {
    const bool norm = name.find("norm.weight") != std::string::npos;
    const bool zero = name.ends_with(".bias") || name.starts_with("value_head");
    const bool to_residual = name.ends_with("o_proj.weight") || name.ends_with("down_proj.weight");
    const float scale = to_residual ? 0.02f / std::sqrt(2.0f * float(config.L)) : 0.02f;
    const uint32_t stream = name_stream(name);
    parallel_for(rows.rows, 32 * rows.cols, [&](int64_t r) {
        std::array<float, 4> four{};
        for (int64_t c = 0; c < rows.cols; c++) {
            const uint64_t i = uint64_t(first_row + r) * uint64_t(rows.cols) + uint64_t(c);
            if (!norm && !zero && (c == 0 || i % 4 == 0)) four = normals(seed, stream, i / 4);
            store(rows, r, c, norm ? 1.0f : zero ? 0.0f : scale * four[i % 4]);
        }
    });
}

void initialize(const Parameters& parameters, const ModelConfig& config, uint64_t seed) {
    parameters.for_each(
        config, [&](const std::string& name, const Tensor& t) { initialize_rows(name, t, 0, config, seed); });
}
