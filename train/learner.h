// learner.h -- a network in training with everything that belongs to it: weights, gradients, activations,
// optimizer moments.
#pragma once
#include <cstdio>
#include <memory>
#include <string>

#include "train/optimizer.h"
#include "train/update.h"

// Throws Error(NoMemory) where a plan is larger than the host's free memory: before anything of it is allocated, for
// every arena alone may fit. A device's memory is counted when it is allocated.
void check_fits(const Ops& ops, size_t planned_bytes);

class Learner {
  public:
    // Plans everything; nothing is allocated yet. `block`: the block length that is trained at (0: full
    // attention).
    Learner(Ops& ops, const ModelConfig& config, Head head, int block, const MicroBatchLimits& limits,
            const OptimizerOptions& options);
    Learner(const Learner&) = delete;

    void allocate();  // weights and moments zero, a tied head bound
    size_t planned_bytes() const;
    void print_plan(FILE* out) const;

    // One optimizer step from the gradients accumulated since the last one, which are zero afterwards. Where
    // their norm is not finite nothing else is changed, and the report says so.
    struct Step {
        double grad_norm = 0, lr = 0;
        bool skipped = false;
    };
    Step step();

    Ops& ops;
    const ModelConfig config;
    const Head head;
    OptimizerOptions options;
    Parameters weights;
    std::unique_ptr<TrainingNetwork> network;
    std::unique_ptr<Optimizer> optimizer;

  private:
    Arena weight_arena_;
};
