// sft_run.h -- a run of supervised fine-tuning: epochs of shuffled batches, evaluations, checkpoints.
//
// Which examples a step trains and how they are masked is a function of the seed and the step alone, so a run
// goes on after a stop as if there had been none.
#pragma once
#include <functional>
#include <string>
#include <vector>

#include "train/learner.h"
#include "train/masks.h"
#include "train/run_folder.h"
#include "utils/progress.h"

struct SftRunOptions {
    SftMaskOptions masks;
    int batch = 16;  // examples per update
    double epochs = 1;
    int64_t max_steps = 0;   // 0: as many as the epochs have
    int64_t eval_every = 0;  // updates; 0: once per epoch
    int64_t save_every = 0;  // updates; 0: at the end only
    int keep = 2;            // checkpoints that are kept; 0: all
    uint64_t seed = 0;
    ProgressStyle progress = ProgressStyle::Auto;
};

int64_t steps_of(const SftRunOptions& options, size_t n_examples);

// Indices of the examples of update `step`: every epoch goes through all of them once, in an order of its own.
std::vector<size_t> batch_indices(size_t n_examples, int batch, uint64_t seed, int64_t step);

// The largest number of tokens that one example can take in a pass, whatever its masks.
MicroBatchLimits largest_example(std::span<const SftExample> examples, const MaskShape& shape,
                                 const SftMaskOptions& masks);

class SftRun {
  public:
    // save(folder) writes the model folder of the current weights.
    SftRun(const SftRunOptions& options, Learner& learner, std::vector<SftExample> train,
           std::vector<SftExample> held_out, RunFolder& folder,
           std::function<void(const std::string& folder)> save);
    // Takes over optimizer state and progress from a checkpoint (its weights are loaded already).
    void resume(const std::string& checkpoint);
    // Runs to the end. When should_stop turns true the state is saved and false is returned. Throws
    // Error(Runtime), after saving, where three updates in a row are not finite.
    bool run(const std::function<bool()>& should_stop);

  private:
    struct Step {
        double loss = 0;     // the objective: sum of weight * -log p over all response tokens
        double nll = 0;      // mean -log p of the trained tokens
        int64_t tokens = 0;  // forwarded
        Learner::Step update;
    };
    Step train_step();
    double evaluate();  // mean -log p on the held-out examples, under masks that are always the same
    void save_checkpoint();

    const SftRunOptions& options_;
    Learner& learner_;
    std::vector<SftExample> train_, held_out_;
    RunFolder& folder_;
    std::function<void(const std::string&)> save_;
    int64_t step_ = 0, n_steps_;
    int bad_updates_ = 0;  // in a row
};
