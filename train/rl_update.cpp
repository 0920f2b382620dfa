#include "train/rl_update.h"

#include <algorithm>
#include <numeric>

#include "utils/error.h"

// From one number per response token to one per (copy, token) pair of its sequence.
static std::vector<double> per_pair(const Sequence& s, std::span<const double> per_token) {
    std::vector<double> out;
    for (const Copy& copy : s.copies)
        for (const int i : copy.target) out.push_back(per_token[size_t(i - s.prompt_length)]);
    return out;
}

std::vector<double> per_token(const Sequence& s, std::span<const double> per_pair, int n_tokens) {
    std::vector<double> out(size_t(n_tokens), 0.0);
    size_t k = 0;
    for (const Copy& copy : s.copies)
        for (const int i : copy.target) out[size_t(i - s.prompt_length)] = per_pair[k++];
    return out;
}

static Sequence states_of(const Record& record, const MaskShape& shape, const RlOptions& o, Rng& rng) {
    if (o.kind == RlObjective::TraceRl) return trace_sequence(record, shape, o.shrink);
    RandomMaskOptions masks = o.masks;
    masks.coupled = o.kind == RlObjective::Coupled;
    return random_mask_sequence(record, shape, masks, rng);
}

TrainingBatch prepare(std::span<const Record> records, const MaskShape& shape, const RlOptions& o,
                      bool has_value_model, Rng& rng) {
    CHECK(!has_value_model || o.kind == RlObjective::TraceRl, "a value model goes with TraceRL only");
    TrainingBatch out;
    if (records.empty()) return out;
    const bool given_advantages = !has_value_model && !records[0].advantage.empty();
    // In a mixture of tasks some records have token rewards and others have not.
    const auto given_rewards = [&](const Record& r) { return has_value_model && !r.token_rewards.empty(); };
    std::vector<std::optional<double>> z(records.size(), 0.0);
    if (!given_advantages && !std::all_of(records.begin(), records.end(), given_rewards))
        z = group_advantages(records, o.keep);
    for (size_t i = 0; i < records.size(); i++) {
        const Record& r = records[i];
        if (!z[i] && !given_rewards(r)) {
            out.n_dropped++;
            continue;
        }
        Sequence s = states_of(r, shape, o, rng);
        const size_t n = size_t(r.length());
        if (given_rewards(r))
            out.reward.push_back(per_pair(s, r.token_rewards));
        else if (has_value_model)
            out.reward.push_back(reward_at_end(s, o.value_target == ValueTarget::Raw ? *r.reward : *z[i]));
        else if (given_advantages)
            out.advantage.push_back(
                per_pair(s, r.advantage.size() == n ? r.advantage : std::vector<double>(n, r.advantage[0])));
        else
            out.advantage.push_back(per_pair(s, std::vector<double>(n, *z[i])));
        const bool same_states = o.kind == RlObjective::TraceRl;  // as when the record was made
        out.old_logprob.push_back(same_states && !r.old_logprobs.empty() ? per_pair(s, r.old_logprobs)
                                                                         : std::vector<double>());
        out.old_value.push_back(r.old_values.empty() ? std::vector<double>() : per_pair(s, r.old_values));
        out.record.push_back(int(i));
        out.sequences.push_back(std::move(s));
    }
    return out;
}

std::vector<int> all_responses(const TrainingBatch& batch) {
    std::vector<int> out(batch.sequences.size());
    std::iota(out.begin(), out.end(), 0);
    return out;
}

// Outputs of the sequences whose entry in `outputs` is empty.
static void evaluate_missing(std::vector<std::vector<double>>& outputs, std::span<const Sequence> sequences,
                             TrainingNetwork& network) {
    std::vector<Sequence> missing;
    std::vector<size_t> index;
    for (size_t i = 0; i < sequences.size(); i++)
        if (outputs[i].empty()) missing.push_back(sequences[i]), index.push_back(i);
    std::vector<std::vector<double>> found = network.evaluate(missing);
    for (size_t k = 0; k < index.size(); k++) outputs[index[k]] = std::move(found[k]);
}

void evaluate_old(TrainingBatch& batch, TrainingNetwork& policy, TrainingNetwork* value) {
    evaluate_missing(batch.old_logprob, batch.sequences, policy);
    if (value) evaluate_missing(batch.old_value, batch.sequences, *value);
}

// Share of the returns' variance that the values explain.
static double explained_variance(const std::vector<std::vector<double>>& returns,
                                 const std::vector<std::vector<double>>& values) {
    double n = 0, r_sum = 0, r_squares = 0, e_sum = 0, e_squares = 0;
    for (size_t i = 0; i < returns.size(); i++)
        for (size_t k = 0; k < returns[i].size(); k++) {
            const double r = returns[i][k], e = r - values[i][k];
            n++, r_sum += r, r_squares += r * r, e_sum += e, e_squares += e * e;
        }
    if (n == 0) return 0;
    const double r_variance = r_squares / n - (r_sum / n) * (r_sum / n),
                 e_variance = e_squares / n - (e_sum / n) * (e_sum / n);
    return r_variance > 1e-12 ? 1 - e_variance / r_variance : 0;
}

// The value model's half of an update: its gradients, and in `report` values, returns and advantages of the responses.
static void accumulate_value(UpdateReport& report, const TrainingBatch& batch, std::span<const int> responses,
                             std::span<const Sequence> sequences,
                             const std::vector<std::vector<double>>& weight, TrainingNetwork& value,
                             const ObjectiveOptions& o) {
    std::vector<std::vector<LossPair>> pairs(sequences.size());
    std::vector<std::vector<double>> old_values(sequences.size());
    const auto fill_in = [&](size_t at, std::span<const double> old) {
        old_values[at].assign(old.begin(), old.end());
        report.returns[at].resize(old.size());
        report.advantages[at].resize(old.size());
        step_returns(report.returns[at], report.advantages[at], batch.reward[size_t(responses[at])],
                     old_values[at], sequences[at], o.gamma, o.lambda);
        pairs[at] = loss_pairs(old_values[at], report.returns[at], weight[at]);
    };
    std::vector<std::vector<double>> old;
    for (const int i : responses) old.push_back(batch.old_value[size_t(i)]);
    if (value.cuts(sequences)) evaluate_missing(old, sequences, value);
    bool known = true;  // all old values, before the pass
    for (size_t at = 0; at < sequences.size(); at++) {
        if (!old[at].empty()) fill_in(at, old[at]);
        known &= !old[at].empty();
    }
    const auto outputs = [&](int i, std::span<const double> V) {
        if (pairs[size_t(i)].empty()) fill_in(size_t(i), V);
        report.value_loss += value_loss(V, pairs[size_t(i)], o.value_clip);
    };
    // Returns are made of old values. Where these are the values of this very pass, it has to wait for the host.
    report.values = value.accumulate(
        sequences, {.pairs = pairs, .options = o, .outputs = outputs, .pairs_from_outputs = !known});
    report.explained_variance = explained_variance(report.returns, old_values);
}

UpdateReport accumulate(const TrainingBatch& batch, std::span<const int> responses, TrainingNetwork& policy,
                        TrainingNetwork* value, const RlOptions& o) {
    UpdateReport report;
    std::vector<Sequence> sequences;
    for (const int i : responses) sequences.push_back(batch.sequences[size_t(i)]);
    const std::vector<std::vector<double>> weight =
        loss_weights(sequences, o.loss.loss_norm, o.loss.norm_length);
    for (const std::vector<double>& w : weight) report.n_pairs += int64_t(w.size());

    report.advantages.resize(sequences.size());
    if (value) {
        report.returns.resize(sequences.size());
        accumulate_value(report, batch, responses, sequences, weight, *value, o.loss);
    } else {
        for (size_t i = 0; i < sequences.size(); i++)
            report.advantages[i] = batch.advantage[size_t(responses[i])];
    }

    std::vector<std::vector<LossPair>> pairs(sequences.size());
    for (size_t at = 0; at < sequences.size(); at++)
        pairs[at] = loss_pairs(batch.old_logprob[size_t(responses[at])], report.advantages[at], weight[at]);
    int64_t clipped = 0;
    const auto outputs = [&](int i, std::span<const double> logprob) {
        const PolicyLoss loss = policy_loss(logprob, pairs[size_t(i)], o.loss);
        report.policy_loss += loss.policy;
        report.kl += loss.kl;
        report.max_ratio = std::max(report.max_ratio, loss.max_ratio);
        clipped += loss.clipped;
    };
    report.logprobs = policy.accumulate(sequences, {.pairs = pairs, .options = o.loss, .outputs = outputs});
    report.loss = report.policy_loss + o.loss.kl_beta * report.kl;
    report.clip_fraction = report.n_pairs ? double(clipped) / double(report.n_pairs) : 0;
    return report;
}
