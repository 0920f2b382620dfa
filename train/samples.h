// samples.h -- one response for people and for files: which token was revealed when.
#pragma once
#include <string>

#include "train/rollout.h"
#include "utils/json_forward.h"

// A line that --replay takes: the trajectory, its group and reward, and the texts.
Json sample_json(const Response& response, const Problem& problem);

// The response over its reveal steps: a line of text, and under each token the step (1, 2, ...) it appeared in.
std::string reveal_order(const Response& response, const Problem& problem, const TextCodec& codec);
