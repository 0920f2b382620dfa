// step_plan.h -- what a step of reinforcement learning costs at least and at most: how fast a model will decode
// and how long its answers will be nobody knows before the run.
#pragma once
#include <cstdio>

#include "model/config.h"
#include "train/tracerl.h"
#include "utils/json_forward.h"

struct StepCost {
    double generated = 0;                        // tokens of the responses, all at the limit
    double rollout_least = 0, rollout_most = 0;  // tokens forwarded: a block per pass; a token per pass
    double update_least = 0, update_most = 0;    // likewise, in one pass over the responses
    double flop_least = 0, flop_most = 0;        // of the whole step
};

// `prompt`: tokens of a prompt. `train_block`: 0 under full attention. Responses as long as the limit allows.
// Arithmetic: 2 FLOP per weight and token forwarded, 6 in the update, the LM head on the rows that are read;
// attention is not counted.
StepCost step_cost(const ModelConfig& config, const TraceRlOptions& options, int prompt, int train_block,
                   bool has_value_model);

// FLOP per second of a matrix product of the size that this model is made of, measured now, in a fraction of a second.
double measured_flop_rate(Ops& ops, const ModelConfig& config);

// flop_rate: 0 where nobody knows it.
void print_step_plan(FILE* out, const StepCost& cost, const TraceRlOptions& options, int prompt,
                     double flop_rate);
Json step_plan_json(const StepCost& cost, double flop_rate);
