// evaluation.h -- how accurate a model is, decoded statically (slowly) and dynamically (fast).
#pragma once
#include <span>
#include <string>
#include <vector>

#include "inference/generation.h"
#include "train/rollout.h"

// Problems number first, first + 1, ... of a split: n of them, or as many as the task has.
std::vector<Problem> problems_of(const Task& task, Split split, int64_t first, int64_t n);

struct DecodingRule {
    std::string name;
    GenerateOptions options;
};
// The two rules that are compared, "static" (a fixed number of tokens per step) and "dynamic" (every token above the
// threshold); an autoregressive model has one, "next token".
std::vector<DecodingRule> decoding_rules(const GenerateOptions& options, Geometry geometry);

// What is reported before, during and after training, by both rules: means over all samples of all problems.
struct Evaluation {
    RolloutStats fixed, dynamic;
    RolloutBatch examples;  // the first few dynamic responses
    double seconds = 0;
    bool interrupted = false;
};
// `samples` responses to every problem, of the same random numbers in every evaluation.
Evaluation evaluate(Engine& engine, const TextCodec& codec, const Task& task,
                    std::span<const Problem> problems, int samples, const GenerateOptions& options,
                    const std::function<bool()>& should_stop);
