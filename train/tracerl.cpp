#include "train/tracerl.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "train/warm_start.h"
#include "utils/error.h"
#include "utils/log.h"
#include "utils/timer.h"

// Rollout log-probs are the old policy's where training sees exactly the states the sampler saw.
static bool rollout_logprobs_hold(const TraceRlOptions& o, const Learner& policy) {
    return o.rl.kind == RlObjective::TraceRl && o.rl.shrink == 1 && !o.rollout.approximate_cache() &&
           (policy.config.full_attention || policy.network->block() == o.rollout.block);
}

// The kept responses, group by group.
static std::vector<std::vector<int>> kept_groups(const TrainingBatch& batch,
                                                 std::span<const Record> records) {
    std::vector<std::vector<int>> groups;
    for (int i = 0; i < batch.size(); i++) {
        const int64_t group = records[size_t(batch.record[size_t(i)])].group;
        if (groups.empty() || records[size_t(batch.record[size_t(groups.back()[0])])].group != group)
            groups.emplace_back();
        groups.back().push_back(i);
    }
    return groups;
}

// Responses in the order they are trained in: whole groups stay together, so that a micro-batch shares their prompt.
static std::vector<int> shuffled(std::vector<std::vector<int>> groups, Rng& rng) {
    for (size_t i = groups.size(); i > 1; i--) std::swap(groups[i - 1], groups[rng.below(uint32_t(i))]);
    std::vector<int> order;
    for (const auto& group : groups) order.insert(order.end(), group.begin(), group.end());
    return order;
}

static double largest_difference(const UpdateReport& report, const TrainingBatch& batch,
                                 std::span<const int> responses) {
    double largest = 0;
    for (size_t i = 0; i < responses.size(); i++) {
        const std::vector<double>& old = batch.old_logprob[size_t(responses[i])];
        for (size_t j = 0; j < old.size(); j++)
            largest = std::max(largest, std::abs(report.logprobs[i][j] - old[j]));
    }
    return largest;
}

static void add(TraceRlStep& out, const UpdateReport& report) {
    out.loss += report.loss;
    out.policy_loss += report.policy_loss;
    out.kl += report.kl;
    out.value_loss += report.value_loss;
    out.clip_fraction += report.clip_fraction;
    out.explained_variance += report.explained_variance;
    out.max_ratio = std::max(out.max_ratio, report.max_ratio);
    out.trained_tokens += report.n_pairs;
    out.updates++;
}

static void average_over_updates(TraceRlStep& out) {
    for (double* x : {&out.loss, &out.policy_loss, &out.kl, &out.value_loss, &out.clip_fraction,
                      &out.explained_variance, &out.grad_norm, &out.value_grad_norm})
        *x /= std::max(out.updates, 1);
}

static void update(TraceRlStep& out, TrainingBatch& batch, std::span<const Record> records, Learner& policy,
                   Learner* value, const TraceRlOptions& o, Rng& rng) {
    TrainingNetwork* critic = value ? value->network.get() : nullptr;
    out.on_policy = rollout_logprobs_hold(o, policy);
    if (!out.on_policy)
        for (auto& old : batch.old_logprob) old.clear();
    // With one update the old policy is the current one.
    if (o.epochs * o.mini_batches > 1) evaluate_old(batch, *policy.network, critic);
    for (int epoch = 0; epoch < o.epochs; epoch++) {
        const std::vector<int> order = shuffled(kept_groups(batch, records), rng);
        for (int m = 0; m < o.mini_batches; m++) {
            const size_t begin = order.size() * size_t(m) / size_t(o.mini_batches),
                         end = order.size() * size_t(m + 1) / size_t(o.mini_batches);
            if (begin == end) continue;
            const std::span<const int> responses(order.data() + begin, end - begin);
            const UpdateReport report = accumulate(batch, responses, *policy.network, critic, o.rl);
            if (out.on_policy && out.updates == 0)
                out.logprob_mismatch = largest_difference(report, batch, responses);
            add(out, report);
            const Learner::Step step = policy.step();
            out.lr = step.lr;
            out.grad_norm += step.grad_norm;
            bool skipped = step.skipped;
            if (value) {
                const Learner::Step value_step = value->step();
                out.value_grad_norm += value_step.grad_norm;
                skipped |= value_step.skipped;
            }
            out.skipped_updates += skipped;
        }
    }
    average_over_updates(out);
}

static void roll_out_step(TraceRlStep& out, Engine& engine, const TextCodec& codec, const Task& task,
                          const TraceRlOptions& o, int64_t draw, const std::function<bool()>& should_stop) {
    std::vector<Problem> problems;
    for (const int64_t index : problem_indices(task, o.seed, draw * o.tasks, o.tasks))
        problems.push_back(task.problem(Split::Train, index));
    const int64_t rows_before = engine.forwarded_rows();
    // Sequence numbers run over the whole run, in the lower half of what there are.
    out.batch = roll_out(engine, codec, task, std::move(problems), o.responses, o.rollout,
                         uint32_t(draw * o.tasks * o.responses) & ~EVALUATION_SEQUENCES, should_stop,
                         o.overlong == Overlong::Keep);
    out.rollout_rows += engine.forwarded_rows() - rows_before;
    out.rollout = out.batch.stats();
    out.rollout_s += out.batch.generate_s;
    out.reward_s += out.batch.reward_s;
    out.interrupted = out.batch.interrupted;
}

static std::vector<Record> records_of(TraceRlStep& out, const TraceRlOptions& o, bool has_value_model) {
    std::vector<Record> records;
    for (Response& r : out.batch.responses) {
        if (!has_value_model && !r.token_rewards.empty()) {
            out.unused_token_rewards = true;
            r.token_rewards.clear();
        }
        if (o.overlong == Overlong::Mask && r.truncated()) continue;
        records.push_back(to_record(r.trajectory, r.reward, r.problem));
        records.back().token_rewards = r.token_rewards;
    }
    return records;
}

static std::string why_none_is_kept(const RolloutStats& s, const TraceRlOptions& o) {
    if (s.truncated == 1)
        return format(
            "every response met the limit of %d tokens; a higher --gen-length helps, or a warm start that "
            "teaches to end",
            o.rollout.gen_length);
    if (s.accuracy == 1) return "every response is right: the problems are too easy";
    if (s.accuracy == 0) return "no response is right: the problems are too hard";
    return "the responses of each are equally good, or too many of them are right or wrong (--keep-accuracy)";
}

TraceRlStep tracerl_step(Learner& policy, Learner* value, Engine& engine, const TextCodec& codec,
                         const Task& task, const TraceRlOptions& o, int64_t draw,
                         const std::function<bool()>& should_stop) {
    TraceRlStep out;
    out.block = o.rollout.block;
    out.n_groups = o.tasks;
    std::vector<Record> records;
    TrainingBatch kept;
    Timer timer;
    for (;; draw++, out.resamples++) {
        roll_out_step(out, engine, codec, task, o, draw, should_stop);
        if (out.interrupted) return out;
        timer.restart();
        records = records_of(out, o, value != nullptr);
        Rng masks(o.seed, Stream::Mask,
                  uint32_t(draw) | 1u << 31);  // the other half of the stream is the warm start's
        kept =
            prepare(records, {policy.network->block(), policy.config.mask_id}, o.rl, value != nullptr, masks);
        const bool none_judged = out.batch.ungraded && out.batch.ungraded == out.batch.judged;
        const bool last = out.resamples == o.max_resample;
        if (!kept.size() && !none_judged)
            log_info("no group is kept: %s%s", why_none_is_kept(out.rollout, o).c_str(),
                     last ? "" : "; other problems are drawn");
        if (kept.size() || none_judged || last) {
            out.n_responses = kept.size();
            out.n_kept_groups = int(kept_groups(kept, records).size());
            const int64_t before = policy.network->tokens_forwarded();
            if (kept.size()) update(out, kept, records, policy, value, o, masks);
            out.forwarded_tokens = policy.network->tokens_forwarded() - before;
            out.update_s = timer.seconds();
            return out;
        }
    }
}
