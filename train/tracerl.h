// tracerl.h -- one step of reinforcement learning on reveal traces: roll out, reward, update.
//
// Rollouts come from the engine of `infer` on the very weights that are trained: nothing is copied between
// them. Which problems a rollout draws, and every random number in it, is a function of the seed and the rollout's
// number, so a run goes on after a stop as if there had been none.
#pragma once
#include <optional>

#include "train/learner.h"
#include "train/rl_update.h"
#include "train/rollout.h"

// What becomes of a response that met the length limit: it is wrong, judged like any other, or left out of the update
// before the responses of its group are compared.
enum class Overlong { Zero, Keep, Mask };

struct TraceRlOptions {
    int tasks = 32, responses = 16;  // problems per step, responses to each
    int epochs = 1, mini_batches = 1;
    Overlong overlong = Overlong::Zero;
    int max_resample = 0;  // how often a step draws other problems if no group is kept
    GenerateOptions rollout;
    RlOptions rl;
    uint64_t seed = 0;
};

struct TraceRlStep {
    RolloutStats rollout;
    int n_groups = 0, n_kept_groups = 0, n_responses = 0;
    int resamples = 0;                  // rollouts before this one that were of no use
    bool interrupted = false;           // in the rollout: nothing was trained
    bool unused_token_rewards = false;  // the task gave some, but there is no value model
    bool on_policy = false;             // rollout log-probs served as the old policy's
    double logprob_mismatch = 0;  // largest |training - rollout| log-prob of the first update; on_policy only
    double loss = 0, policy_loss = 0, kl = 0, value_loss = 0, clip_fraction = 0, max_ratio = 1,
           explained_variance = 0;
    double grad_norm = 0, value_grad_norm = 0, lr = 0;
    int skipped_updates = 0, updates = 0;
    int64_t trained_tokens = 0, forwarded_tokens = 0;
    int64_t rollout_rows = 0;  // forwarded in the rollout
    double rollout_s = 0, reward_s = 0, update_s = 0;
    int block = 0;       // of the rollout
    RolloutBatch batch;  // every response
};

// One step, which is the run's rollout number `draw`, or one of those after it (TraceRlStep::resamples). `value`: the
// value model's learner, or null.
TraceRlStep tracerl_step(Learner& policy, Learner* value, Engine& engine, const TextCodec& codec,
                         const Task& task, const TraceRlOptions& options, int64_t draw,
                         const std::function<bool()>& should_stop);
