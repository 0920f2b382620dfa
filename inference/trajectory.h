// trajectory.h -- what a generation leaves behind, and what TraceRL trains on: ids, the step each was revealed in, its log-probability.
#pragma once
#include <string>
#include <vector>

#include "utils/json.h"

constexpr int NEVER = -1;  // step or id of a position that was still masked when the generation ended

struct Trajectory {
    std::vector<int> prompt_ids;
    std::vector<int> output_ids;   // the stop token included
    std::vector<int> step_map;     // (n) 1, 2, ...: the reveal step over the whole response
    std::vector<float> logprobs;   // (n) log softmax(logits)[id] at the reveal, before temperature and filters
    std::vector<int> tail_ids, tail_steps;  // the rest of the last block (or canvas): context of its neighbours; NEVER where masked
    std::string finish_reason;     // "stop", "length", "interrupted"
    int denoise_steps = 0;         // reveal steps
    int forward_passes = 0;        // every forward pass this sequence took part in
};
