// trace_page.h -- one self-contained HTML page that plays back how responses came to be: every token with its
// reveal step, block and log-probability, a slider over the steps.
#pragma once
#include <span>
#include <string>

#include "inference/infer_output.h"
#include "utils/json_forward.h"

// The data of one response: prompt, pieces, step_map, is_special (the shape of other viewers of such traces),
// logprobs, ids, blocks (index of the block of each token), finish_reason, n_output (tokens from there on are
// the rest of the last block).
Json trace_json(const Trajectory& trajectory, const Asked& asked, const TextModel& text, int block,
                bool full_attention);

// The page. `traces` is an array of trace_json(); `model` its name for the heading.
std::string trace_page(const Json& traces, const std::string& model);

// The player alone, to stand in another page: an element with its script, once per page. A trace may have a
// `label` for the list it is chosen from.
std::string trace_player(const Json& traces);
std::string trace_player_style();
