// random_models.h -- tiny random models of every family, and random records, for tests of training.
#pragma once
#include <memory>
#include <string>
#include <vector>

#include "model/parameters.h"
#include "train/record.h"
#include "utils/philox.h"

inline ModelConfig tiny_config(Family family, int block, bool tied = false) {
    ModelConfig c;
    c.family = family;
    c.V = 29, c.C = 12, c.L = 2, c.NH = 4, c.NKV = 2, c.HD = 6, c.F = 10, c.B = block;
    c.max_positions = 128;
    c.tied = tied;
    c.mask_id = 28;
    c.qk_norm = family == Family::Sdar;
    c.qkv_bias = c.shift = family == Family::Dream;
    c.full_attention = family != Family::Sdar;
    if (family == Family::Llada) c.NKV = c.NH;
    return c;
}

// Weights large enough that attention and gates are far from linear.
inline void randomize(const Parameters& p, const ModelConfig& c, uint64_t seed, float scale = 0.4f) {
    Rng rng(seed, Stream::Noise);
    p.for_each(c, [&](const std::string& name, const Tensor& t) {
        const bool norm = name.find("norm.weight") != std::string::npos;
        for (int64_t r = 0; r < t.rows; r++)
            for (int64_t i = 0; i < t.cols; i++) t.row<float>(r)[i] = (norm ? 1 : 0) + scale * rng.normal();
    });
}

struct TinyModel {
    ModelConfig config;
    Arena arena{"weights", host_memory()};
    Parameters weights;
    TinyModel(const ModelConfig& c, Head head, uint64_t seed) : config(c) {
        weights.plan(arena, config, head);
        arena.allocate();
        weights.bind(config);
        randomize(weights, config, seed);
    }
};

// A response of n tokens as some sampler might have left it: every block's steps after those of the blocks
// before, gaps, and a tail that is partly revealed.
inline Record random_record(Rng& rng, const ModelConfig& c, int block, int prompt_length, int n) {
    Record r;
    const auto id = [&] { return int(rng.below(uint32_t(c.V - 1))); };
    for (int i = 0; i < prompt_length; i++) r.prompt_ids.push_back(id());
    const int P = prompt_length,
              end = block ? (P + n + block - 1) / block * block : P + n + int(rng.below(4));
    int latest = 0, base = 0;
    for (int i = P; i < end; i++) {
        if (block && i % block == 0) base = latest;
        const int span = block ? block : end - P;
        const int step = base + 1 + int(rng.below(uint32_t(span)));
        const bool masked = i >= P + n && rng.below(3) == 0;
        (i < P + n ? r.response_ids : r.tail_ids).push_back(masked ? NEVER : id());
        (i < P + n ? r.step_map : r.tail_steps).push_back(masked ? NEVER : step);
        if (!masked) latest = std::max(latest, step);
    }
    for (int i = 0; i < n; i++) r.old_logprobs.push_back(-3 + double(rng.normal()));
    r.reward = double(rng.below(3)) / 2;
    return r;
}
