#include "train/update.h"

#include <algorithm>
#include <numeric>

namespace {

// How many full passes' outputs stay on the device before the host fetches them: one number per target, next to nothing.
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

// What has to be in one pass: all copies of a block model's sequence, a single one under full attention.
std::vector<Part> uncut_parts(const Sequence& s, int index, int block) {
    const int n = int(s.copies.size());
    if (block) return {{index, 0, n, 0, int(count_targets(s))}};
    std::vector<Part> parts;
    int first = 0;
    for (int c = 0; c < n; c++) {
        const int targets = int(s.copies[size_t(c)].target.size());
        parts.push_back({index, c, c + 1, first, targets});
        first += targets;
    }
    return parts;
}

int64_t tokens_of(const Sequence& s, const Part& part, int block) {
    if (block) return packed_tokens({&s, 1}, block);
    int64_t n = 0;
    for (int c = part.begin; c < part.end; c++) {
        const Copy& copy = s.copies[size_t(c)];
        n += int64_t(copy.causal ? s.token.size() : copy.token.size());
    }
    return n;
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

std::vector<std::vector<Part>> cut_micro_batches(std::span<const Sequence> sequences, int block,
                                                 const MicroBatchLimits& limits) {
    std::vector<std::vector<Part>> cut;
    int64_t tokens = 0, targets = 0;
    std::vector<Sequence> pair;  // the previous sequence and this one: equal prompts are neighbours
    for (const int i : prompts_together(sequences, block)) {
        const Sequence& s = sequences[size_t(i)];
        if (block) pair.push_back(s);
        for (const Part& part : uncut_parts(s, i, block)) {
            const int64_t alone = tokens_of(s, part, block);
            if (alone > limits.max_tokens || part.n_targets > limits.max_targets)
                fail(Exit::Usage,
                     "response %d takes %lld tokens and %d targets in training, the budget of a micro-batch "
                     "is "
                     "%d and %d: raise "
                     "--token-budget, or shorten the responses",
                     i + 1, (long long)alone, part.n_targets, limits.max_tokens, limits.max_targets);
            int64_t more =
                pair.size() < 2 ? alone : packed_tokens(pair, block) - packed_tokens({pair.data(), 1}, block);
            if (cut.empty() || tokens + more > limits.max_tokens ||
                targets + part.n_targets > limits.max_targets) {
                cut.emplace_back();
                tokens = targets = 0;
                more = alone;
            }
            std::vector<Part>& micro_batch = cut.back();
            if (!micro_batch.empty() && micro_batch.back().sequence == i) {
                micro_batch.back().end = part.end;
                micro_batch.back().n_targets += part.n_targets;
            } else {
                micro_batch.push_back(part);
            }
            tokens += more;
            targets += part.n_targets;
        }
        if (pair.size() == 2) pair.erase(pair.begin());
    }
    return cut;
}

std::vector<Sequence> parts_of(std::span<const Sequence> sequences, std::span<const Part> parts) {
    std::vector<Sequence> out;
    for (const Part& part : parts) {
        const Sequence& s = sequences[size_t(part.sequence)];
        out.push_back(
            {s.token, s.prompt_length, {s.copies.begin() + part.begin, s.copies.begin() + part.end}});
    }
    return out;
}

MicroBatchLimits needed_limits(std::span<const Sequence> sequences, int block) {
    MicroBatchLimits limits = {1, 1};
    for (const Sequence& s : sequences)
        for (const Part& part : uncut_parts(s, 0, block)) {
            limits.max_tokens = std::max(limits.max_tokens, int(tokens_of(s, part, block)));
            limits.max_targets = std::max(limits.max_targets, part.n_targets);
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

bool TrainingNetwork::cuts(std::span<const Sequence> sequences) const {
    for (const std::vector<Part>& parts : cut_micro_batches(sequences, block_, limits_))
        for (const Part& part : parts)
            if (part.end - part.begin < int(sequences[size_t(part.sequence)].copies.size())) return true;
    return false;
}

// Passes are queued one after another: outputs stay on the device until the last one, or as long as there is room, so that a
// device never waits for the host between forward and backward, nor between passes.
std::vector<std::vector<double>> TrainingNetwork::run(std::span<const Sequence> sequences,
                                                      const UpdateLoss* loss) {
    std::vector<std::vector<double>> outputs(sequences.size());
    std::vector<Part> waiting;  // parts whose outputs stand in output_, one after another
    int n_waiting = 0;          // that many outputs
    const auto fetch = [&] {
        std::vector<float> flat(static_cast<size_t>(n_waiting));
        ops_.download(flat.data(), output_.col_range(0, n_waiting));
        auto at = flat.begin();
        for (const Part& part : waiting) {
            std::vector<double>& of = outputs[size_t(part.sequence)];
            of.insert(of.end(), at, at + part.n_targets);
            at += part.n_targets;
            const bool whole = part.end == int(sequences[size_t(part.sequence)].copies.size());
            if (whole && loss && loss->outputs) loss->outputs(part.sequence, of);
        }
        waiting.clear();
        n_waiting = 0;
    };
    CHECK(!loss || !loss->pairs_from_outputs || !cuts(sequences), "pairs from outputs of several passes");
    for (const std::vector<Part>& parts : cut_micro_batches(sequences, block_, limits_)) {
        const std::vector<Sequence> micro = parts_of(sequences, parts);
        const PackedBatch packed = pack(micro, block_, head_ == Head::Policy && config_.shift);
        const int n = packed.batch.n_targets();
        if (n_waiting + n > output_.cols) fetch();
        const Tensor output = output_.col_range(n_waiting, n_waiting + n);
        forward(output, packed, micro);
        tokens_forwarded_ += packed.batch.T();
        waiting.insert(waiting.end(), parts.begin(), parts.end());
        n_waiting += n;
        if (!loss) continue;
        if (loss->pairs_from_outputs) fetch();
        std::vector<LossPair> pairs;  // targets come part by part
        for (const Part& part : parts) {
            const auto first = loss->pairs[size_t(part.sequence)].begin() + part.first_target;
            pairs.insert(pairs.end(), first, first + part.n_targets);
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
