#include "train/tracerl_run.h"

#include <algorithm>

#include "train/evaluation.h"
#include "train/report/report.h"
#include "train/samples.h"
#include "utils/arena.h"
#include "utils/json.h"
#include "utils/log.h"
#include "utils/timer.h"

namespace {

constexpr int BAD_UPDATES_TO_STOP = 3;

// By name, for a mixture of tasks; else null.
Json parts_json(const std::vector<PartStats>& parts) {
    Json out;
    for (const PartStats& p : parts)
        out[p.name] = {{"responses", p.responses},
                       {"accuracy", p.accuracy},
                       {"reward", p.reward},
                       {"length", p.length},
                       {"truncated", p.truncated}};
    return out;
}

}  // namespace

TraceRlRun::TraceRlRun(const TraceRlRunOptions& options, Learner& policy, Learner* value, Engine& engine,
                       const TextCodec& codec, const Task& task, const Task& eval_task, RunFolder& folder,
                       std::function<void(const std::string&)> save)
    : options_(options),
      policy_(policy),
      value_(value),
      engine_(engine),
      codec_(codec),
      task_(task),
      eval_task_(eval_task),
      folder_(folder),
      save_(std::move(save)) {
    policy_.options = options_.sft_optimizer;
    if (value_) value_->options = options_.value_optimizer;
    set_training_block(options_.rl.rollout.block);
}

int TraceRlRun::rollout_block() const {
    const bool enlarged = phase_ != Phase::Sft && options_.enlarge_at && rl_step_ >= options_.enlarge_at;
    return enlarged ? options_.train_block : options_.rl.rollout.block;
}

int TraceRlRun::final_block() const {
    return options_.enlarge_at ? options_.train_block : options_.rl.rollout.block;
}

int TraceRlRun::generation_limit() const {
    int limit = options_.rl.rollout.gen_length;
    for (const TraceRlRunOptions::Limit& l : options_.length_schedule)
        if (rl_step_ >= l.step) limit = l.gen_length;
    return limit;
}

void TraceRlRun::set_training_block(int block) {
    if (policy_.config.full_attention) return;
    policy_.network->set_block(block);
    if (value_) value_->network->set_block(block);
}

// Evaluates on the held-out problems, generating in blocks of `block`; false where it was interrupted.
bool TraceRlRun::milestone(const std::string& name, int block, const std::function<bool()>& should_stop) {
    for (const Milestone& m : milestones_)
        if (m.name == name) return true;  // before a stop
    log_info("evaluating (%s)", name.c_str());
    GenerateOptions o = options_.rl.rollout;
    o.block = block;
    o.temperature = options_.eval_temperature;
    const Evaluation e = evaluate(engine_, codec_, eval_task_,
                                  problems_of(eval_task_, Split::HeldOut, 0, options_.eval_problems),
                                  options_.eval_samples, o, should_stop);
    if (e.interrupted) return false;
    milestones_.push_back({name, rl_step_, e.fixed, e.dynamic});
    log_info("%s: accuracy %.1f%% static, %.1f%% dynamic; %.2f tokens per forward pass (dynamic)",
             name.c_str(), 100 * e.fixed.accuracy, 100 * e.dynamic.accuracy, e.dynamic.tokens_per_forward);
    folder_.metrics({{"step", sft_step_ + rl_step_},
                     {"phase", "eval"},
                     {"name", name},
                     {"block", block},
                     {"static", to_json(e.fixed)},
                     {"dynamic", to_json(e.dynamic)},
                     {"seconds", e.seconds}});
    record_examples(name, block, e.examples);
    return true;
}

// What the report shows: lines of samples/ with the text of every token.
void TraceRlRun::record_examples(const std::string& milestone, int block, const RolloutBatch& examples) {
    std::string lines;
    for (const Response& r : examples.responses) {
        Json line = sample_json(r, examples.problems[size_t(r.problem)]);
        const int n = int(r.trajectory.output_ids.size()),
                  origin = policy_.config.full_attention ? 0 : int(r.trajectory.prompt_ids.size());
        line["milestone"] = milestone;
        line["pieces"] = codec_.pieces(r.trajectory.output_ids);
        line["is_special"] = line["blocks"] = Json::array();
        for (int i = 0; i < n; i++) {
            line["is_special"].push_back(
                codec_.decode(std::span(&r.trajectory.output_ids[size_t(i)], 1)).empty());
            line["blocks"].push_back((origin + i) / block);
        }
        lines += dump(line) + "\n";
    }
    folder_.sample(format("eval-%04zu.jsonl", milestones_.size()), lines);
}

// Skipped updates in a row; where they are too many, saves the state before them and throws.
void TraceRlRun::count_bad_updates(int updates, int skipped) {
    if (skipped)
        log_warning("step %lld: %d of %d updates had a gradient that is not finite and were skipped",
                    (long long)(sft_step_ + rl_step_), skipped, updates);
    bad_updates_ = updates && skipped == updates ? bad_updates_ + updates : 0;
    if (bad_updates_ < BAD_UPDATES_TO_STOP) return;
    const int bad = bad_updates_;
    bad_updates_ = 0;  // whoever resumes from here has changed something
    save_checkpoint();
    fail(Exit::Runtime,
         "%d updates in a row had gradients that are not finite; the state before them is saved in %s: try a "
         "lower learning rate",
         bad, folder_.path().c_str());
}

// The accuracy now, on problems that are neither trained on nor reported: the held-out ones after the reported ones.
RolloutStats TraceRlRun::quick_accuracy() {
    GenerateOptions o = options_.rl.rollout;
    o.temperature = 0;
    o.remasking = Remasking::LowConfidenceDynamic;
    // A small data file has none after them.
    const int64_t held_out = task_.held_out_size, n = options_.sft_eval_problems;
    const int64_t first = held_out && held_out < options_.eval_problems + n
                              ? std::max<int64_t>(held_out - n, 0)
                              : options_.eval_problems;
    return roll_out(engine_, codec_, task_, problems_of(task_, Split::HeldOut, first, n), 1, o, 0, {})
        .stats();
}

bool TraceRlRun::warm_start(const std::function<bool()>& should_stop) {
    if (options_.sft.steps == 0 || sft_done_) return true;
    if (sft_step_ == 0 && !milestone("at the start", rollout_block(), should_stop)) return false;
    ProgressBar progress("SFT", options_.sft.steps, options_.progress);
    double accuracy = 0;
    while (!sft_done_) {
        if (should_stop()) return false;
        Timer timer;
        const WarmStartStep s = warm_start_step(policy_, codec_, task_, options_.sft, sft_step_);
        const double seconds = timer.seconds();
        sft_step_++;
        Json line = {
            {"step", sft_step_}, {"phase", "sft"},     {"loss", s.loss},    {"grad_norm", s.update.grad_norm},
            {"lr", s.update.lr}, {"tokens", s.tokens}, {"seconds", seconds}};
        if (options_.sft_eval_every && sft_step_ % options_.sft_eval_every == 0) {
            accuracy = quick_accuracy().accuracy;
            line["accuracy"] = accuracy;
        }
        if (s.update.skipped) line["skipped_updates"] = 1;
        folder_.metrics(line);
        count_bad_updates(1, s.update.skipped);
        progress.update(sft_step_, format("loss %.3f  accuracy %.0f%%  %.0f tokens/s", s.loss, 100 * accuracy,
                                          double(s.tokens) / seconds));
        sft_done_ = sft_step_ == options_.sft.steps || accuracy >= options_.sft_until;
        if (options_.save_every && sft_step_ % options_.save_every == 0) save_checkpoint();
    }
    progress.finish(format("%ld steps", long(sft_step_)));
    return true;
}

// What RL starts from; if blocks will be enlarged, also in the larger ones, which is what is to be gained.
bool TraceRlRun::milestone_before_rl(const std::function<bool()>& should_stop) {
    const std::string name = options_.sft.steps ? "after SFT" : "before RL";
    const int small = options_.rl.rollout.block, large = final_block();
    if (small == large) return milestone(name, small, should_stop);
    return milestone(format("%s, B=%d", name.c_str(), small), small, should_stop) &&
           milestone(format("%s, B=%d", name.c_str(), large), large, should_stop);
}

// The optimizer of RL starts afresh: its moments belong to another loss.
void TraceRlRun::begin_rl() {
    phase_ = Phase::Rl;
    if (options_.train_block) set_training_block(options_.train_block);
    policy_.options = options_.optimizer;
    policy_.optimizer->reset();
}

// The policy's body as it is now, and a head of zeros.
void TraceRlRun::make_value_model() {
    std::vector<Tensor> body;
    policy_.master().for_each_stored([&](const std::string&, const Tensor& t) { body.push_back(t); });
    size_t i = 0;
    value_->master().for_each_stored([&](const std::string& name, const Tensor& t) {
        if (name == "value_head")
            policy_.ops.zero(t);
        else
            policy_.ops.copy(t, body[i++]);
    });
    value_->master_changed();
}

void TraceRlRun::record_step(const TraceRlStep& s, int gen_length, double seconds) {
    folder_.metrics({{"step", sft_step_ + rl_step_},
                     {"phase", "rl"},
                     {"block", s.block},
                     {"train_block", policy_.network->block()},
                     {"rollout", to_json(s.rollout)},
                     {"tasks", parts_json(s.batch.part_stats(task_))},
                     {"ungraded", s.batch.ungraded},
                     {"gen_length", gen_length},
                     {"resamples", s.resamples},
                     {"groups", s.n_groups},
                     {"kept_groups", s.n_kept_groups},
                     {"responses", s.n_responses},
                     {"loss", s.loss},
                     {"policy_loss", s.policy_loss},
                     {"kl", s.kl},
                     {"value_loss", s.value_loss},
                     {"explained_variance", s.explained_variance},
                     {"clip_fraction", s.clip_fraction},
                     {"max_ratio", s.max_ratio},
                     {"logprob_mismatch", s.on_policy && s.updates ? Json(s.logprob_mismatch) : Json()},
                     {"grad_norm", s.grad_norm},
                     {"value_grad_norm", s.value_grad_norm},
                     {"lr", s.lr},
                     {"updates", s.updates},
                     {"skipped_updates", s.skipped_updates},
                     {"trained_tokens", s.trained_tokens},
                     {"forwarded_tokens", s.forwarded_tokens},
                     {"generated_tokens", s.rollout.tokens},
                     {"rollout_rows", s.rollout_rows},
                     {"memory_mib", double(peak_host_memory()) / (1 << 20)},
                     {"rollout_s", s.rollout_s},
                     {"reward_s", s.reward_s},
                     {"update_s", s.update_s},
                     {"seconds", seconds}});
    if (!options_.samples_every || rl_step_ % options_.samples_every) return;
    std::string lines;
    for (const Response& r : s.batch.responses)
        lines += dump(sample_json(r, s.batch.problems[size_t(r.problem)])) + "\n";
    folder_.sample(format("step-%06ld.jsonl", long(rl_step_)), lines, options_.keep_samples);
}

bool TraceRlRun::reinforce(const std::function<bool()>& should_stop) {
    ProgressBar progress("TraceRL", options_.steps, options_.progress);
    Timer since_line;  // saving counts, evaluations have lines of their own
    while (rl_step_ < options_.steps) {
        if (should_stop()) return false;
        // Before the next step, not after the last one, so that an evaluation that is cut off is done after a resume.
        const bool due = options_.eval_every && rl_step_ > 0 && rl_step_ % options_.eval_every == 0;
        const Timer evaluation;
        if (due && !milestone(format("RL step %lld", (long long)rl_step_), final_block(), should_stop))
            return false;
        const double evaluation_s = evaluation.seconds();
        if (options_.reset_optimizer_each_step) {
            policy_.optimizer->reset();
            if (value_) value_->optimizer->reset();
        }
        TraceRlOptions rl = options_.rl;
        rl.rollout.block = rollout_block();
        rl.rollout.gen_length = generation_limit();
        const TraceRlStep s = tracerl_step(policy_, value_, engine_, codec_, task_, rl, draws_, should_stop);
        if (s.interrupted) return false;
        if (s.batch.ungraded && s.batch.ungraded == s.batch.judged) {
            save_checkpoint();
            fail(Exit::Runtime, "the task's command judged none of %d responses; the state is saved in %s",
                 s.batch.ungraded, folder_.path().c_str());
        }
        if (s.unused_token_rewards && !warned_of_token_rewards_) {
            warned_of_token_rewards_ = true;
            log_warning(
                "the task rewards single tokens, which takes a value model (--value-model init); without "
                "one only the reward of the whole response counts");
        }
        rl_step_++;
        draws_ += 1 + s.resamples;
        record_step(s, rl.rollout.gen_length, since_line.seconds() - evaluation_s);
        since_line.restart();
        count_bad_updates(s.updates, s.skipped_updates);
        progress.update(rl_step_,
                        format("reward %.3f  accuracy %.1f%%  %.2f tokens/step  kept %d/%d  mismatch %.0e",
                               s.rollout.reward, 100 * s.rollout.accuracy, s.rollout.tokens_per_forward,
                               s.n_kept_groups, s.n_groups, s.logprob_mismatch));
        if (options_.save_every && rl_step_ % options_.save_every == 0) save_checkpoint();
    }
    progress.finish();
    return true;
}

bool TraceRlRun::run(const std::function<bool()>& should_stop) {
    bool finished = true;
    if (phase_ == Phase::Done)
        log_info("all %lld steps were made before; more with --total-steps", (long long)rl_step_);
    if (phase_ == Phase::Sft) {
        finished = warm_start(should_stop) && milestone_before_rl(should_stop);
        if (finished && value_ && options_.value_from_policy) make_value_model();
        if (finished) begin_rl();
    }
    if (finished && phase_ == Phase::Rl) {
        finished = reinforce(should_stop) && milestone("after RL", final_block(), should_stop);
        if (finished) phase_ = Phase::Done;
    }
    save_checkpoint();
    return finished;
}

std::vector<Json> TraceRlRun::evaluations() const {
    std::vector<Json> out;
    for (const Milestone& m : milestones_)
        out.push_back({{"name", m.name},
                       {"step", m.step},
                       {"static", to_json(m.fixed)},
                       {"dynamic", to_json(m.dynamic)}});
    return out;
}

void TraceRlRun::save_checkpoint() {
    folder_.checkpoint(sft_step_ + rl_step_, options_.keep, [&](const std::string& path) {
        save_(path);
        policy_.optimizer->save(path + "/optimizer.safetensors");
        if (value_) value_->optimizer->save(path + "/value_optimizer.safetensors");
        Json state = {{"phase", phase_ == Phase::Sft  ? "sft"
                                : phase_ == Phase::Rl ? "rl"
                                                      : "done"},
                      {"sft_step", sft_step_},
                      {"sft_done", sft_done_},
                      {"rl_step", rl_step_},
                      {"draws", draws_},
                      {"bad_updates", bad_updates_},
                      {"metrics_lines", folder_.metrics_lines()},
                      {"milestones", evaluations()}};
        write_file_atomic(path + "/state.json", state.dump(1) + "\n");
    });
    write_report(folder_.path());
}

void TraceRlRun::resume(const std::string& checkpoint) {
    const std::string where = checkpoint + "/state.json";
    const Json state = read_json(where);
    const std::string phase = get_string(state, "phase", where);
    sft_step_ = get_int(state, "sft_step", where, 0, INT64_MAX);
    sft_done_ = get_bool(state, "sft_done", where);
    rl_step_ = get_int(state, "rl_step", where, 0, INT64_MAX);
    draws_ = get_int(state, "draws", where, 0, INT64_MAX);
    bad_updates_ = int(get_int(state, "bad_updates", where, 0, BAD_UPDATES_TO_STOP));
    for (const Json& m : state.at("milestones"))
        milestones_.push_back(
            {m.at("name"), m.at("step"), rollout_stats(m.at("static")), rollout_stats(m.at("dynamic"))});
    if (phase != "sft") begin_rl();
    if (phase == "done" &&
        rl_step_ < options_.steps)  // more steps than it was finished with: its end lies further on
        std::erase_if(milestones_, [](const Milestone& m) { return m.name.starts_with("after RL"); });
    else if (phase == "done")
        phase_ = Phase::Done;
    policy_.optimizer->load(checkpoint + "/optimizer.safetensors");
    if (value_) value_->optimizer->load(checkpoint + "/value_optimizer.safetensors");
    folder_.truncate_metrics(get_int(state, "metrics_lines", where, 0, INT64_MAX));
}

std::string TraceRlRun::summary() {
    std::string out =
        "                     accuracy            tokens per forward pass\n                     static    "
        "dynamic   static    dynamic\n";
    for (const Milestone& m : milestones_)
        out += format("  %-18s %6.1f%%   %6.1f%%   %6.2f    %6.2f\n", m.name.c_str(), 100 * m.fixed.accuracy,
                      100 * m.dynamic.accuracy, m.fixed.tokens_per_forward, m.dynamic.tokens_per_forward);
    GenerateOptions o = options_.rl.rollout;
    o.temperature = 0;
    o.block = final_block();
    const RolloutBatch samples =
        roll_out(engine_, codec_, eval_task_, problems_of(eval_task_, Split::HeldOut, 0, 3), 1, o, 0, {});
    for (const Response& r : samples.responses)
        out += "\n" + reveal_order(r, samples.problems[size_t(r.problem)], codec_);
    return out;
}
