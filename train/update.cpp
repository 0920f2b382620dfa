#include "train/update.h"

#include <algorithm>
#include <numeric>

namespace {

int64_t count_targets(const Sequence& s) {
    int64_t n = 0;
    for (const Copy& copy : s.copies) n += int64_t(copy.target.size());
    return n;
}

// The whole blocks of a sequence's prompt: what it can share.
std::span<const int> whole_prompt_blocks(const Sequence& s, int block) {
    return {s.token.data(), block ? size_t(s.prompt_length / block * block) : 0};
}

// Indices in an order that puts equal prompts together, otherwise as given.
std::vector<int> prompts_together(std::span<const Sequence> sequences, int block) {
    std::vector<int> order(sequences.size());
    std::iota(order.begin(), order.end(), 0);
    if (block == 0) return order;
    const auto prompt = [&](int i) { return whole_prompt_blocks(sequences[size_t(i)], block); };
    const auto before = [&](int a, int b) {
        return std::lexicographical_compare(prompt(a).begin(), prompt(a).end(), prompt(b).begin(),
                                            prompt(b).end());
    };
    std::vector<int> sorted = order;
    std::stable_sort(sorted.begin(), sorted.end(), before);
    std::vector<int> leader(sequences.size());  // the first sequence with the same prompt
    for (size_t k = 0; k < sorted.size(); k++)
        leader[size_t(sorted[k])] =
            k && !before(sorted[k - 1], sorted[k]) ? leader[size_t(sorted[k - 1])] : sorted[k];
    std::stable_sort(order.begin(), order.end(),
                     [&](int a, int b) { return leader[size_t(a)] < leader[size_t(b)]; });
    return order;
}

}  // namespace

std::vector<std::vector<int>> cut_micro_batches(std::span<const Sequence> sequences, int block,
                                                const MicroBatchLimits& limits) {
    std::vector<std::vector<int>> cut;
    int64_t tokens = 0, targets = 0;
    std::vector<Sequence> pair;  // the previous sequence and this one: equal prompts are neighbours
    for (const int i : prompts_together(sequences, block)) {
        const Sequence& s = sequences[size_t(i)];
        const int64_t alone = packed_tokens({&s, 1}, block), n = count_targets(s);
        if (alone > limits.max_tokens || n > limits.max_targets)
            fail(Exit::Usage,
                 "response %d takes %lld tokens and %lld targets in training, the budget of a micro-batch is "
                 "%d and %d: raise "
                 "--token-budget, or shorten the responses",
                 i + 1, (long long)alone, (long long)n, limits.max_tokens, limits.max_targets);
        int64_t more = alone;
        if (!pair.empty()) {
            pair.push_back(s);
            more = packed_tokens(pair, block) - packed_tokens({pair.data(), 1}, block);
        }
        if (cut.empty() || tokens + more > limits.max_tokens || targets + n > limits.max_targets) {
            cut.emplace_back();
            tokens = targets = 0;
            more = alone;
        }
        cut.back().push_back(i);
        tokens += more;
        targets += n;
        pair.assign(1, s);
    }
    return cut;
}

MicroBatchLimits needed_limits(std::span<const Sequence> sequences, int block) {
    MicroBatchLimits limits = {1, 1};
    for (const Sequence& s : sequences) {
        limits.max_tokens = std::max(limits.max_tokens, int(packed_tokens({&s, 1}, block)));
        limits.max_targets = std::max(limits.max_targets, int(count_targets(s)));
    }
    return limits;
}

TrainingNetwork::TrainingNetwork(Ops& ops, const ModelConfig& config, const Parameters& weights, Head head,
                                 int block, const MicroBatchLimits& limits, Recompute recompute,
                                 Memory* activations)
    : ops_(ops),
      config_(config),
      weights_(weights),
      head_(head),
      block_(block),
      limits_(limits),
      gradient_arena_("gradients", ops),
      activation_arena_("training activations", activations ? *activations : ops) {
    gradients_.plan(gradient_arena_, config, head);
    transformer_ = std::make_unique<Transformer>(ops, config, weights, activation_arena_, limits.max_tokens,
                                                 limits.max_targets, nullptr, recompute);
    activation_arena_.add(&target_, "target ids", 1, limits.max_targets, DType::I32);
    activation_arena_.add(&output_, "target outputs", 1, limits.max_targets);
    activation_arena_.add(&lse_, "target lse", 1, limits.max_targets);
    activation_arena_.add(&doutput_, "d target outputs", 1, limits.max_targets);
}

void TrainingNetwork::allocate() {
    gradient_arena_.allocate();
    gradients_.bind(config_);
    activation_arena_.allocate();
}

void TrainingNetwork::zero_gradients() {
    gradients_.for_each_stored([&](const std::string&, const Tensor& t) { ops_.zero(t); });
}

std::vector<std::vector<double>> TrainingNetwork::evaluate(std::span<const Sequence> sequences) {
    return run(sequences, nullptr);
}

std::vector<std::vector<double>> TrainingNetwork::accumulate(std::span<const Sequence> sequences,
                                                             const SequenceLoss& loss) {
    return run(sequences, &loss);
}

std::vector<std::vector<double>> TrainingNetwork::run(std::span<const Sequence> sequences,
                                                      const SequenceLoss* loss) {
    std::vector<std::vector<double>> outputs(sequences.size());
    for (const std::vector<int>& members : cut_micro_batches(sequences, block_, limits_)) {
        std::vector<Sequence> micro;
        for (const int i : members) micro.push_back(sequences[size_t(i)]);
        const PackedBatch packed = pack(micro, block_, head_ == Head::Policy && config_.shift);
        const std::vector<float> flat = forward(packed, micro);
        tokens_forwarded_ += packed.batch.T();
        for (size_t k = 0; k < packed.target.size(); k++)
            outputs[size_t(members[size_t(packed.target[k].sequence)])].push_back(double(flat[k]));
        if (!loss) continue;
        // Targets come sequence by sequence, so a sequence's gradients are a contiguous run.
        std::vector<float> dflat;
        for (const int i : members) {
            std::vector<double> doutput(outputs[size_t(i)].size(), 0.0);
            (*loss)(i, outputs[size_t(i)], doutput);
            dflat.insert(dflat.end(), doutput.begin(), doutput.end());
        }
        backward(dflat);
    }
    return outputs;
}

std::vector<float> TrainingNetwork::forward(const PackedBatch& packed, std::span<const Sequence> sequences) {
    const int n = packed.batch.n_targets();
    std::vector<float> out(static_cast<size_t>(n));
    hidden_ = transformer_->forward(packed.batch);
    if (n == 0) return out;
    if (head_ == Head::Value) {
        ops_.value_head_forward(output_.col_range(0, n), hidden_, weights_.value_head);
    } else {
        std::vector<int> id;
        for (const Target& t : packed.target)
            id.push_back(sequences[size_t(t.sequence)].token[size_t(t.position)]);
        ops_.upload(target_.col_range(0, n), id.data());
        ops_.head_logprob(output_.col_range(0, n), lse_.col_range(0, n), {}, hidden_, weights_.lm_head,
                          target_.col_range(0, n));
    }
    ops_.download(out.data(), output_.col_range(0, n));
    return out;
}

void TrainingNetwork::backward(std::span<const float> doutput) {
    const int n = int(doutput.size());
    if (n == 0) return;
    ops_.upload(doutput_.col_range(0, n), doutput.data());
    const Tensor dhidden = transformer_->dhidden(n);
    if (head_ == Head::Value)
        ops_.value_head_backward(dhidden, gradients_.value_head, doutput_.col_range(0, n), hidden_,
                                 weights_.value_head);
    else
        ops_.head_backward(dhidden, gradients_.lm_head, doutput_.col_range(0, n), lse_.col_range(0, n),
                           hidden_, weights_.lm_head, target_.col_range(0, n));
    transformer_->backward(gradients_, dhidden);
}
