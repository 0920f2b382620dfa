// learner.h -- a network in training with everything that belongs to it: weights, gradients, activations, moments.
//
// On a device the passes read weights in BF16. What is trained, loaded and saved is their master in F32, of which the
// weights become a copy after every update. Elsewhere the weights are F32 and their own master.
#pragma once
#include <memory>
#include <string>
#include <vector>

#include "train/optimizer.h"
#include "train/update.h"
#include "weights_tools/model_folder.h"

// Types are those of matrices; vectors (norms, biases, a value head) are F32.
struct LearnerMemory {
    DType weights = DType::F32;  // in the passes; F32 on the host
    DType moments = DType::F32;
    Memory* activations = nullptr;  // where they lie; null: in memory of their own
};

class Learner {
  public:
    // Plans everything; nothing is allocated yet. `block`: the block length of training (0: full attention).
    Learner(Ops& ops, const ModelConfig& config, Head head, int block, const MicroBatchLimits& limits,
            const OptimizerOptions& options, const LearnerMemory& memory = {});
    Learner(const Learner&) = delete;

    void set_recompute(Recompute recompute);   // plans the activations anew
    std::vector<const Arena*> arenas() const;  // all but the activations'
    void allocate();                           // weights and moments zero, a tied head bound

    void initialize(uint64_t seed);  // random weights
    void load(const ModelFolder& folder);
    const Parameters& master() const { return has_master_ ? master_ : weights; }
    void master_changed();  // call it after writing to the master: the weights become its copy

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
    Parameters weights;  // what the passes read
    std::unique_ptr<TrainingNetwork> network;
    std::unique_ptr<Optimizer> optimizer;

  private:
    const LearnerMemory memory_;
    const bool has_master_;
    Arena weight_arena_, master_arena_;
    Parameters master_;
};
