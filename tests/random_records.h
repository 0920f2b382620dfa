// random_records.h -- responses as some sampler might have left them, for tests of training.
#pragma once
#include <algorithm>

#include "tests/random_model.h"
#include "train/record.h"

// A body of every family. block: of block models; full attention otherwise.
inline ModelConfig random_family_config(Family family, int block, bool tied = false) {
    ModelConfig c = random_model_config(block);
    c.family = family;
    c.tied = tied;
    c.qk_norm = family == Family::Sdar;
    c.qkv_bias = c.shift = family == Family::Dream;
    c.full_attention = family != Family::Sdar;
    if (family == Family::Llada) c.NKV = c.NH;
    return c;
}

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
