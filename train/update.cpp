#include "train/update.h"

#include <algorithm>
#include <numeric>

namespace {

// Outputs of so many passes stay on the device until the host asks for them. One number per target: next to nothing.
constexpr int OUTPUT_PASSES = 16;

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
    activation_arena_.add(&output_, "target outputs", 1, int64_t(OUTPUT_PASSES) * limits.max_targets);
    activation_arena_.add(&lse_, "target lse", 1, limits.max_targets);
    activation_arena_.add(&doutput_, "d target outputs", 1, limits.max_targets);
    const Tensor pairs = records<LossPair>(nullptr, limits.max_targets);
    activation_arena_.add(&pairs_, "loss pairs", pairs.rows, pairs.cols, pairs.dtype);
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
                                                             const UpdateLoss& loss) {
    return run(sequences, &loss);
}

// Passes are queued one after another: outputs stay on the device until the last one, or as long as there is room, so that a
// device never waits for the host between forward and backward, nor between passes.
std::vector<std::vector<double>> TrainingNetwork::run(std::span<const Sequence> sequences,
                                                      const UpdateLoss* loss) {
    std::vector<std::vector<double>> outputs(sequences.size());
    std::vector<int> waiting;  // sequences whose outputs stand in output_, one after another
    int n_waiting = 0;         // that many outputs
    const auto fetch = [&] {
        std::vector<float> flat(static_cast<size_t>(n_waiting));
        ops_.download(flat.data(), output_.col_range(0, n_waiting));
        auto at = flat.begin();
        for (const int i : waiting) {
            const auto end = at + count_targets(sequences[size_t(i)]);
            outputs[size_t(i)].assign(at, end);
            at = end;
            if (loss && loss->outputs) loss->outputs(i, outputs[size_t(i)]);
        }
        waiting.clear();
        n_waiting = 0;
    };
    for (const std::vector<int>& members : cut_micro_batches(sequences, block_, limits_)) {
        std::vector<Sequence> micro;
        for (const int i : members) micro.push_back(sequences[size_t(i)]);
        const PackedBatch packed = pack(micro, block_, head_ == Head::Policy && config_.shift);
        const int n = packed.batch.n_targets();
        if (n_waiting + n > output_.cols) fetch();
        const Tensor output = output_.col_range(n_waiting, n_waiting + n);
        forward(output, packed, micro);
        tokens_forwarded_ += packed.batch.T();
        waiting.insert(waiting.end(), members.begin(), members.end());
        n_waiting += n;
        if (!loss) continue;
        if (loss->pairs_from_outputs) fetch();
        std::vector<LossPair> pairs;  // targets come sequence by sequence
        for (const int i : members) {
            const std::vector<LossPair>& of = loss->pairs[size_t(i)];
            pairs.insert(pairs.end(), of.begin(), of.end());
        }
        backward(output, pairs, loss->options);
    }
    fetch();
    return outputs;
}

void TrainingNetwork::forward(Tensor output, const PackedBatch& packed, std::span<const Sequence> sequences) {
    const int n = int(output.cols);
    hidden_ = transformer_->forward(packed.batch);
    if (n == 0) return;
    if (head_ == Head::Value) {
        ops_.value_head_forward(output, hidden_, weights_.value_head);
    } else {
        std::vector<int> id;
        for (const Target& t : packed.target)
            id.push_back(sequences[size_t(t.sequence)].token[size_t(t.position)]);
        ops_.upload(target_.col_range(0, n), id.data());
        ops_.head_logprob(output, lse_.col_range(0, n), {}, hidden_, weights_.lm_head,
                          target_.col_range(0, n));
    }
}

void TrainingNetwork::backward(Tensor output, std::span<const LossPair> pairs, const ObjectiveOptions& o) {
    const int n = int(output.cols);
    CHECK(int(pairs.size()) == n, "%zu pairs for %d targets", pairs.size(), n);
    if (n == 0) return;
    const Tensor on_device = pairs_.row_range(0, n), doutput = doutput_.col_range(0, n);
    ops_.upload(on_device, pairs.data());
    const Tensor dhidden = transformer_->dhidden(n);
    if (head_ == Head::Value) {
        ops_.value_loss_backward(doutput, output, on_device, o.value_clip);
        ops_.value_head_backward(dhidden, gradients_.value_head, doutput, hidden_, weights_.value_head);
    } else {
        ops_.policy_loss_backward(doutput, output, on_device, o.clip_low, o.clip_high, o.kl_beta);
        ops_.head_backward(dhidden, gradients_.lm_head, doutput, lse_.col_range(0, n), hidden_,
                           weights_.lm_head, target_.col_range(0, n));
    }
    transformer_->backward(gradients_, dhidden);
}
