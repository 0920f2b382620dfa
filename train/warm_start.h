// warm_start.h -- a short SFT on a task's own solutions, so that RL begins with a model that is sometimes right.
#pragma once
#include "train/learner.h"
#include "train/masks.h"
#include "train/rollout.h"

struct WarmStartOptions {
    int64_t steps = 0;
    int batch = 64;      // solutions per step
    int pad_tokens = 0;  // end tokens trained after the response: the model learns that nothing follows
    int canvas = 0;      // full attention: tokens a response stands in, the generation limit
    SftMaskOptions masks;
    uint64_t seed = 0;
};

// Examples number step * batch ... of the training problems, in an order that is shuffled anew for every pass
// over a data file.
std::vector<int64_t> problem_indices(const Task& task, uint64_t seed, int64_t first, int n);

struct WarmStartStep {
    double loss = 0;  // nats per trained token
    Learner::Step update;
    int64_t tokens = 0;
};
// SFT step number `step`: what it trains on is a function of options.seed and step alone.
WarmStartStep warm_start_step(Learner& policy, const TextCodec& codec, const Task& task,
                              const WarmStartOptions& options, int64_t step);
