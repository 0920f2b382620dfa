#include "train/warm_start.h"

#include "train/objective.h"

std::vector<int64_t> problem_indices(const Task& task, uint64_t seed, int64_t first, int n) {
    std::vector<int64_t> indices;
    for (int64_t i = first; i < first + n; i++) indices.push_back(drawn_index(task, seed, i));
    return indices;
}

WarmStartStep warm_start_step(Learner& policy, const TextCodec& codec, const Task& task,
                              const WarmStartOptions& options, int64_t step) {
    const MaskShape shape{policy.network->block(), policy.config.mask_id};
    Rng rng(options.seed, Stream::Mask, uint32_t(step));
    std::vector<Sequence> sequences;
    std::vector<std::vector<double>> weights;
    int64_t n_tokens = 0;
    for (const int64_t index : problem_indices(task, options.seed, step * options.batch, options.batch)) {
        const Problem problem = task.problem(Split::Train, index);
        SftExample example;
        example.prompt_ids = codec.encode_prompt(problem.prompt);
        example.response_ids = codec.encode_response(problem.solution);
        example.response_ids.insert(example.response_ids.end(), size_t(options.pad_tokens),
                                    example.response_ids.back());
        if (shape.block == 0) example.canvas = std::max(0, options.canvas - int(example.response_ids.size()));
        example.copies = sft_copies(example, shape, options.masks, rng);
        sequences.push_back(sft_sequence(example, shape));
        weights.push_back(sft_weights(example));
        for (const double w : weights.back()) n_tokens += w > 0;
    }
    WarmStartStep out;
    const int64_t before = policy.network->tokens_forwarded();
    const std::vector<std::vector<LossPair>> pairs = cross_entropy_pairs(weights, double(n_tokens));
    policy.network->accumulate(sequences,
                               {.pairs = pairs, .outputs = [&](int i, std::span<const double> logprob) {
                                    out.loss += cross_entropy(logprob, pairs[size_t(i)]);
                                }});
    out.update = policy.step();
    out.tokens = policy.network->tokens_forwarded() - before;
    return out;
}
