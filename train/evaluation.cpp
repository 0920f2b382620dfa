#include "train/evaluation.h"

#include <algorithm>

#include "utils/timer.h"

std::vector<Problem> problems_of(const Task& task, Split split, int64_t first, int64_t n) {
    const int64_t size = split == Split::Train ? task.train_size : task.held_out_size;
    const bool generated = task.train_size == 0 && task.held_out_size == 0;
    const int64_t end = generated ? first + n : std::min(first + n, size);
    std::vector<Problem> problems;
    for (int64_t i = first; i < end; i++) problems.push_back(task.problem(split, i));
    return problems;
}

std::vector<DecodingRule> decoding_rules(const GenerateOptions& options, Geometry geometry) {
    if (geometry == Geometry::Autoregressive) return {{"next token", options}};
    std::vector<DecodingRule> out = {{"static", options}, {"dynamic", options}};
    out[0].options.remasking = Remasking::LowConfidenceStatic;
    out[1].options.remasking = Remasking::LowConfidenceDynamic;
    for (DecodingRule& rule : out) rule.options.order_temperature = 0;
    return out;
}

Evaluation evaluate(Engine& engine, const TextCodec& codec, const Task& task,
                    std::span<const Problem> problems, int samples, const GenerateOptions& options,
                    const std::function<bool()>& should_stop) {
    Evaluation out;
    Timer timer;
    for (const DecodingRule& rule : decoding_rules(options, Geometry::Blocks)) {
        RolloutBatch batch = roll_out(engine, codec, task, {problems.begin(), problems.end()}, samples,
                                      rule.options, EVALUATION_SEQUENCES, should_stop);
        out.interrupted |= batch.interrupted;
        (rule.name == "dynamic" ? out.dynamic : out.fixed) = batch.stats();
        if (rule.name == "dynamic") out.examples = std::move(batch);
    }
    constexpr size_t EXAMPLES = 4;
    out.examples.responses.resize(std::min(out.examples.responses.size(), EXAMPLES));
    out.seconds = timer.seconds();
    return out;
}
