// sft_example.h -- one example of supervised fine-tuning: a response to a prompt, and the states it is trained from.
#pragma once
#include <string>
#include <vector>

#include "train/record.h"
#include "utils/json_forward.h"

// One noisy state of the response.
struct SftCopy {
    std::vector<int> masked,
        target;           // indices in the response (and its tail), ascending; targets are trained
    double weight = 1;    // of every target of this copy
    bool causal = false;  // nothing masked, causal attention, the row before a target predicts it
};

struct SftExample {
    std::vector<int> prompt_ids, response_ids;
    // Of trace SFT, empty otherwise: when each token was revealed, and the rest of the last block (or canvas), as in a Record.
    std::vector<int> step_map, tail_ids, tail_steps;
    int canvas = 0;  // full attention: so many untrained masks follow the response
    std::vector<SftCopy> copies;
};

// Lines of `prompt_ids, response_ids, canvas, copies: [{masked, targets (default: masked), weight (default
// 1), causal}]`; a copy of a block model lies inside one block. Throws Error(BadFile) "path:line: ...".
std::vector<SftExample> read_sft_examples(const std::string& path, const RecordLimits& limits);
