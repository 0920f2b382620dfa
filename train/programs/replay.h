// replay.h -- loss and gradients for given trajectories or given noisy copies, without an optimizer step: how
// training is checked against another implementation.
#pragma once
#include <string>

#include "train/rl_update.h"
#include "utils/json_forward.h"

struct ReplayRequest {
    std::string model, value_model;  // folders; no value model: ""
    std::string file;                // JSONL: records (train/record.h) or SFT examples (train/sft_example.h)
    std::string dump_grads, dump_value_grads;  // "": not written
    int block = 0;                             // 0: the model's own; full-attention models have none
    int token_budget = 0;                      // budget of one pass; 0: what suits
    bool dry_run = false;                      // print the memory plan and compute nothing
    RlOptions rl;
    DType weights = DType::F32;  // F32 on the host
    Recompute recompute = Recompute::None;
};

// The JSON that `train_tracerl --replay` prints; an empty object after a dry run.
Json replay_tracerl(Ops& ops, const ReplayRequest& request);
// ... and `train_sft --replay`: loss = sum of weight * -log p over all response tokens.
Json replay_sft(Ops& ops, const ReplayRequest& request);
