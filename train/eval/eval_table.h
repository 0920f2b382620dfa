// eval_table.h -- what `eval` found, for people and as JSON.
#pragma once
#include <string>
#include <vector>

#include "train/eval/scores.h"
#include "utils/json_forward.h"

struct EvalRow {
    std::string model, decoding;
    Scores scores;
    double seconds = 0;
    int64_t judged = 0, ungraded = 0;  // responses put to the task; of them those it could not judge: wrong
    bool interrupted = false;          // not all problems were reached
};

// model, decoding, problems, samples, accuracy (avg@samples), accuracy_low, accuracy_high, pass_at: {k: ...},
// the rollout's means, seconds, ungraded.
Json to_json(const EvalRow& row);
// One line per row under a heading, aligned.
std::string eval_table(const std::vector<EvalRow>& rows);

// Cells in columns: the first left-aligned, the others right-aligned.
std::string aligned(const std::vector<std::vector<std::string>>& rows);
