// random_model.h -- a small self-made model for tests that need no files: weights large enough that its
// distributions are far from flat and near ties are rare.
#pragma once
#include <cmath>
#include <memory>

#include "kernels/ops.h"
#include "model/parameters.h"
#include "utils/philox.h"

inline ModelConfig random_model_config(int block = 4) {
    ModelConfig c;
    c.V = 40, c.C = 16, c.L = 2, c.NH = 4, c.NKV = 2, c.HD = 6, c.F = 24, c.B = block;
    c.max_positions = 256;
    c.mask_id = 38;  // 39 has no text
    return c;
}

struct RandomModel {
    ModelConfig config;
    std::unique_ptr<Ops> ops = make_cpu_ops();
    Arena arena{"weights", host_memory()};
    Parameters weights;

    explicit RandomModel(const ModelConfig& c, uint64_t seed = 1, float head_scale = 4,
                         Head head = Head::Policy)
        : config(c) {
        weights.plan(arena, config, head);
        arena.allocate();
        weights.bind(config);
        Rng rng(seed, Stream::Noise);
        weights.for_each(config, [&](const std::string& name, const Tensor& t) {
            const bool norm = name.ends_with("norm.weight"), lm_head = name == "lm_head.weight";
            const float scale = norm                      ? 0.2f
                                : name.ends_with(".bias") ? 0.3f
                                : name.starts_with("model.embed")
                                    ? 1.0f
                                    : (lm_head ? head_scale : 1.2f) / std::sqrt(float(t.cols));
            for (int64_t r = 0; r < t.rows; r++)
                for (int64_t i = 0; i < t.cols; i++)
                    t.row<float>(r)[i] = (norm ? 1 : 0) + scale * rng.normal();
        });
    }
};
