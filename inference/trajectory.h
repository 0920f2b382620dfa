// trajectory.h -- what a generation leaves behind, and what TraceRL trains on: ids, the step that revealed each, its
// log-probability.
#pragma once
#include <string>
#include <vector>

#include "utils/json_forward.h"

constexpr int NEVER = -1;  // step or id of a position that was still masked when the generation ended

struct Trajectory {
    std::vector<int> prompt_ids;
    std::vector<int> output_ids;  // the stop token included
    std::vector<int> step_map;    // (n) 1, 2, ...: the reveal step over the whole response
    std::vector<float> logprobs;  // (n) log softmax(logits)[id] at the reveal, before temperature and filters
    std::vector<int> tail_ids;    // the rest of the last block (or canvas): context of its neighbours
    std::vector<int> tail_steps;  // NEVER where still masked
    std::string finish_reason;    // "stop", "length", "interrupted"
    // Where an approximate cache ("prefix", "dual") or guidance was used, logprobs are not those of training.
    std::string cache;
    float cfg_scale = 0;
    int denoise_steps = 0;   // reveal steps
    int forward_passes = 0;  // every forward pass this sequence took part in
    double entropy = 0;  // mean over generated tokens of the distribution their confidence is read from, nats
    double prefill_s = 0;   // from its start to the end of its first reveal step
    double generate_s = 0;  // from there to its end
};

// Output tokens that were generated: all, except where gaps of a given text were filled in (step 0: given).
int64_t generated_tokens(const Trajectory& trajectory);
// The same per forward pass; 0 where there was none.
double tokens_per_forward(const Trajectory& trajectory);

// prompt_ids, output_ids, step_map, logprobs, tail_ids, tail_steps, finish_reason, denoise_steps,
// forward_passes, tokens_per_forward, entropy, cache unless "" and cfg_scale unless 0: a line of `infer --json` without
// text and timings.
Json to_json(const Trajectory& trajectory);
