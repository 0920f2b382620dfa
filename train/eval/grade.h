// grade.h -- saved responses, rewarded again: no model needed.
#pragma once
#include <map>
#include <string>
#include <vector>

#include "tokenizer/tokenizer.h"
#include "train/rollout.h"

// Responses that belong together, in the order of the file: one way of decoding of one model.
struct SavedResponses {
    std::string name;    // "model, decoding" where the lines say so; else the file's
    RolloutBatch batch;  // judged; interrupted: only some of it
    int changed = 0;     // rewards that are not what the file says
    double rewards_in_file = 0;
    int with_reward = 0;
};

// Reads lines of `eval --items`, of a run's samples/ or of `infer --json`, and rewards their texts by `task`.
// Which problem a line belongs to: its `prompt` with its `answer`; without an answer the task's problem of
// that prompt among the first `problems` of `split` and the other split; without a prompt its `id`, the
// problem's number in `split`. With a tokenizer the task is shown the tokens, too, of which every line must have the
// `output_ids`. Throws Error(BadFile) "path:line: ...".
std::vector<SavedResponses> grade_file(const std::string& path, const Task& task, Split split,
                                       int64_t problems, const Tokenizer* tokenizer);
