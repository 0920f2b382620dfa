// small_engine.h -- an engine over a random model, requests for it, and what is expected of two answers that are the same.
#pragma once
#include <gtest/gtest.h>

#include "tests/naive_generation.h"
#include "tests/random_model.h"
#include "tests/same_trajectory.h"

using Ids = std::vector<int>;

struct TestEngine {
    const RandomModel& model;
    Arena arena{"engine", host_memory()};
    Engine engine;
    TestEngine(const RandomModel& m, const EngineLimits& limits)
        : model(m), engine(*m.ops, m.config, m.weights, limits, m.config.V - 1, arena) {
        arena.allocate();
    }
};

constexpr EngineLimits LIMITS = {.max_active = 8, .max_rows = 256, .kv_slots = 512};

inline ModelConfig canvas_config(bool shift) {
    ModelConfig c = random_model_config();
    c.full_attention = true;
    c.shift = shift;
    c.qk_norm = false;
    c.qkv_bias = shift;
    return c;
}
inline Request request_of(int prompt_length, int block, int gen_length, uint32_t sequence = 0,
                          uint64_t seed = 7) {
    Request r;
    Rng rng(seed, Stream::Task, sequence);
    for (int i = 0; i < prompt_length; i++) r.prompt_ids.push_back(int(rng.below(38)));
    r.sequence = sequence;
    r.options.block = block;
    r.options.gen_length = gen_length;
    r.options.threshold = 0.5;
    r.options.seed = seed;
    return r;
}

inline void expect_same(const Trajectory& a, const Trajectory& b, const std::string& what, bool bits = true) {
    expect_same_tokens(a, b, what);
    if (bits) {
        EXPECT_EQ(a.logprobs, b.logprobs) << what;
        EXPECT_EQ(a.entropy, b.entropy) << what;
    }
}
