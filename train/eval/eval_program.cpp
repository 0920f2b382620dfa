#include "train/eval/eval_program.h"

#include <algorithm>

#include "inference/infer_plan.h"
#include "inference/planned_model.h"
#include "kernels/device_select.h"
#include "train/eval/eval_table.h"
#include "train/eval/grade.h"
#include "train/eval/likelihood.h"
#include "train/evaluation.h"
#include "train/samples.h"
#include "utils/json.h"
#include "utils/log.h"
#include "utils/progress.h"
#include "utils/signals.h"
#include "utils/timer.h"

namespace {

// A model that is evaluated, and its files.
struct Subject {
    std::unique_ptr<EvalSubject> files;
    const std::string& name;
    const TextCodec& codec;
    PlannedModel model;

    Subject(std::unique_ptr<EvalSubject> subject, Ops& ops, const std::string& dtype)
        : files(std::move(subject)),
          name(files->name),
          codec(files->codec),
          model(files->folder, ops, dtype) {}
    const ModelConfig& config() const { return model.config(); }
    Geometry geometry() const { return geometry_of(config()); }
};

// JSON lines of single responses or answers; nothing where no file is wanted. Whole only once it is closed.
class Items {
  public:
    explicit Items(const std::string& path) {
        if (!path.empty()) file_.emplace(path);
    }
    void add(const Json& line) {
        if (file_) file_->write(dump(line) + "\n");
    }
    void close() {
        if (file_) file_->commit();
    }

  private:
    std::optional<AtomicFile> file_;
};

struct Session {
    EvalPlan& plan;
    const EvalFlags& f;
    const Common& common;
    std::unique_ptr<Ops> ops;
    Items items;

    Session(EvalPlan& plan, const Common& common)
        : plan(plan),
          f(plan.flags),
          common(common),
          ops(make_ops(common.device)),
          items(common.dry_run ? "" : f.items) {}

    // Of the plan's model, which goes when this does: there is room for one at a time.
    std::unique_ptr<Subject> open(std::unique_ptr<EvalSubject>& subject) {
        return std::make_unique<Subject>(std::move(subject), *ops, common.dtype);
    }
    // False with --dry-run, which prints the plan instead, and where it was stopped.
    bool ready(Subject& subject, Arena& arena, const EngineLimits& limits) {
        try {
            return subject.model.ready(arena, limits, common, false);
        } catch (const Error&) {
            if (interrupted()) return false;  // what other models came to is still to be printed
            throw;
        }
    }
    void print(const Json& row) const {
        if (common.json) printf("%s\n", dump(row).c_str());
        fflush(stdout);
    }
};

// Throws Error(Runtime) where nothing was judged.
void check_judged(const EvalRow& row) {
    if (row.ungraded && row.ungraded == row.judged)
        fail(Exit::Runtime, "the task judged none of %lld responses of %s: no accuracy is known",
             (long long)row.judged, row.model.c_str());
    if (row.ungraded)
        log_warning("%s %s: %lld of %lld responses could not be judged and count as wrong", row.model.c_str(),
                    row.decoding.c_str(), (long long)row.ungraded, (long long)row.judged);
}

// ---- generated responses

// How many problems are answered before the next are begun: a stop loses no more than these.
int problems_at_once(const EvalFlags& f) { return std::max(1, 4 * f.max_active / f.samples); }

EvalRow decode(Session& session, Subject& subject, Engine& engine, const Task& task,
               const std::vector<Problem>& problems, const DecodingRule& rule) {
    const EvalFlags& f = session.f;
    const std::vector<int> pass_at =
        f.pass_at.empty() && f.samples > 1 ? std::vector<int>{1, f.samples} : f.pass_at;
    EvalRow row{.model = subject.name, .decoding = rule.name, .scores = {}};
    RolloutBatch all;
    Timer timer;
    ProgressBar progress(subject.name + " " + rule.name, int64_t(problems.size()),
                         progress_style(session.common.progress));
    const size_t n = size_t(problems_at_once(f));
    for (size_t first = 0; first < problems.size() && !row.interrupted; first += n) {
        const size_t end = std::min(first + n, problems.size());
        const std::ptrdiff_t from = std::ptrdiff_t(first), to = std::ptrdiff_t(end);
        RolloutBatch part =
            roll_out(engine, subject.codec, task, {problems.begin() + from, problems.begin() + to}, f.samples,
                     rule.options, uint32_t(first) * uint32_t(f.samples), [] { return interrupted(); });
        row.interrupted = part.interrupted;
        row.judged += part.judged;
        row.ungraded += part.ungraded;
        if (row.interrupted) break;  // half a part says less than none: long responses end last
        for (size_t i = 0; i < part.responses.size(); i++) {
            Response& r = part.responses[i];
            Json line = {{"model", subject.name}, {"decoding", rule.name}};
            r.problem += int(first);
            line["sample"] = int(i) % f.samples;
            line.update(sample_json(r, part.problems[i / size_t(f.samples)]));
            session.items.add(line);
            r.trajectory.prompt_ids = {};
            all.responses.push_back(std::move(r));
        }
        const RolloutStats so_far = all.stats();
        progress.update(int64_t(end), format("accuracy %.1f%%  %.2f tokens/forward", 100 * so_far.accuracy,
                                             so_far.tokens_per_forward));
    }
    if (!row.interrupted) progress.finish();
    check_judged(row);
    row.scores = score(all, pass_at);
    row.seconds = timer.seconds();
    return row;
}

Exit generate(Session& session) {
    const EvalFlags& f = session.f;
    const Task& task = *session.plan.task;
    const std::vector<Problem>& problems = session.plan.problems;
    std::vector<EvalRow> rows;
    for (auto& planned : session.plan.subjects) {
        if (interrupted()) break;
        const auto subject = session.open(planned);
        const GenerateOptions& options = subject->files->options;
        const std::vector<Request>& requests = subject->files->requests;
        std::vector<DecodingRule> rules = decoding_rules(options, subject->geometry());
        if (!session.plan.rule.empty()) rules = {{session.plan.rule, options}};  // the one that was asked for
        for (DecodingRule& rule : rules) {  // a score is another with an approximate cache, or guided
            if (options.approximate_cache()) rule.name += format(" %s cache", name_of(options.cache));
            if (options.cfg_scale > 0) rule.name += format(" cfg %g", double(options.cfg_scale));
        }
        const size_t available = session.ops->available(), weights = subject->model.arena.bytes();
        const EngineLimits limits = plan_limits(requests, subject->config(), f.max_active, f.max_rows, 0,
                                                available - std::min(available, weights),
                                                activation_dtype(*session.ops, subject->model.weights));
        Arena arena("engine", *session.ops);
        Engine engine(*session.ops, subject->config(), subject->model.weights, limits,
                      subject->files->text.n_ids, arena);
        engine.check(requests);
        if (!session.ready(*subject, arena, limits)) continue;
        log_info("%s: %zu problems of %s, %s each, at most %d tokens in blocks of %d", subject->name.c_str(),
                 problems.size(), task.name.c_str(),
                 f.samples == 1 ? "one response" : format("%d responses", f.samples).c_str(),
                 options.gen_length, options.block_length());
        for (const DecodingRule& rule : rules) {
            rows.push_back(decode(session, *subject, engine, task, problems, rule));
            session.print(to_json(rows.back()));
            if (rows.back().interrupted) break;
        }
    }
    session.items.close();
    if (!session.common.json && !rows.empty()) printf("%s", eval_table(rows).c_str());
    return interrupt_code();
}

// ---- likelihoods of given answers

// Scores answers of a model's, a few at a time.
class Likelihoods {
  public:
    Likelihoods(Session& session, Subject& subject) : session_(session), subject_(subject) {}
    // The states of an answer; prepared before the network is planned.
    void add(const std::string& prompt, const std::string& answer, uint32_t number) {
        std::vector<int> ids = subject_.codec.encode_response(answer);
        if (!session_.f.score_end) ids.pop_back();
        const std::vector<int> prompt_ids = subject_.codec.encode_prompt(prompt);
        Rng rng(session_.common.seed, Stream::Mask, number);
        states_.push_back(subject_.geometry() == Geometry::Autoregressive
                              ? causal_states(prompt_ids, ids)
                              : likelihood_states(prompt_ids, ids, shape(), session_.f.mask_sets, rng));
    }
    // False with --dry-run or where it was stopped.
    bool run() {
        constexpr int CHEAP_ROWS = 2048;
        int64_t largest = 1;
        for (AnswerStates& a : states_) {
            Sequence one = {a.sequence.token, a.sequence.prompt_length, {}};
            for (const Copy& copy : a.sequence.copies) {
                one.copies.assign(1, copy);
                largest = std::max(largest, packed_tokens({&one, 1}, shape().block));
            }
        }
        const int rows =
            session_.f.max_rows ? session_.f.max_rows : int(std::max<int64_t>(largest, CHEAP_ROWS));
        const int length = int(std::max_element(states_.begin(), states_.end(), [](auto& a, auto& b) {
                                   return a.sequence.token.size() < b.sequence.token.size();
                               })->sequence.token.size());
        if (length > subject_.config().max_positions)
            fail(Exit::BadFile, "%s: a prompt with its answer takes %d positions, the model has %d",
                 subject_.name.c_str(), length, subject_.config().max_positions);
        Arena arena("likelihood", *session_.ops);
        AnswerScorer scorer(*session_.ops, subject_.config(), subject_.model.weights, shape().block, rows,
                            arena);
        if (!session_.ready(subject_, arena, {.max_active = 1, .max_rows = rows, .kv_slots = rows}))
            return false;
        ProgressBar progress(subject_.name, int64_t(states_.size()),
                             progress_style(session_.common.progress));
        constexpr size_t AT_ONCE = 16;
        for (size_t i = 0; i < states_.size() && !interrupted(); i += AT_ONCE) {
            const size_t end = std::min(i + AT_ONCE, states_.size());
            for (const double x : scorer.log_likelihoods(std::span(states_).subspan(i, end - i)))
                values.push_back(x);
            progress.update(int64_t(values.size()));
        }
        if (!interrupted()) progress.finish();
        return !interrupted();
    }
    const AnswerStates& states(size_t i) const { return states_[i]; }
    std::vector<double> values;  // log-likelihoods, nats

    // What the values are.
    const char* kind() const {
        if (subject_.geometry() == Geometry::Autoregressive) return "exact";
        for (const AnswerStates& a : states_)
            if (a.drawn) return "bound, estimated";
        return "bound";
    }

  private:
    MaskShape shape() const {
        const ModelConfig& c = subject_.config();
        const int block = session_.f.decoding.options.block;
        return {c.full_attention ? 0 : block ? block : c.B, c.mask_id};
    }
    Session& session_;
    Subject& subject_;
    std::vector<AnswerStates> states_;
};

Exit likelihood(Session& session) {
    const std::vector<Problem>& problems = session.plan.problems;
    std::vector<std::vector<std::string>> table = {
        {"model", "what it is", "answers", "tokens", "nats/answer", "nats/token", "perplexity"}};
    for (auto& planned : session.plan.subjects) {
        if (interrupted()) break;
        const auto subject = session.open(planned);
        Likelihoods answers(session, *subject);
        for (size_t i = 0; i < problems.size(); i++)
            answers.add(problems[i].prompt, problems[i].solution, uint32_t(i));
        if (!answers.run()) continue;
        double sum = 0;
        int64_t tokens = 0;
        for (size_t i = 0; i < problems.size(); i++) {
            sum += answers.values[i];
            tokens += answers.states(i).tokens;
            session.items.add({{"model", subject->name},
                               {"prompt", problems[i].prompt},
                               {"answer", problems[i].solution},
                               {"tokens", answers.states(i).tokens},
                               {"log_likelihood", answers.values[i]}});
        }
        const double n = double(problems.size()), per_token = sum / double(std::max<int64_t>(tokens, 1));
        session.print({{"model", subject->name},
                       {"kind", answers.kind()},
                       {"answers", problems.size()},
                       {"tokens", tokens},
                       {"log_likelihood", sum / n},
                       {"log_likelihood_per_token", per_token},
                       {"perplexity", std::exp(-per_token)}});
        table.push_back({subject->name, answers.kind(), format("%zu", problems.size()),
                         format("%lld", (long long)tokens), format("%.3f", -sum / n),
                         format("%.4f", -per_token), format("%.3f", std::exp(-per_token))});
    }
    session.items.close();
    if (!session.common.json && table.size() > 1) printf("%s", aligned(table).c_str());
    return interrupt_code();
}

Exit multiple_choice(Session& session) {
    const std::vector<ChoiceQuestion>& questions = session.plan.questions;
    std::vector<std::vector<std::string>> table = {
        {"model", "what it is", "questions", "accuracy", "95% of it", "per byte"}};
    for (auto& planned : session.plan.subjects) {
        if (interrupted()) break;
        const auto subject = session.open(planned);
        Likelihoods answers(session, *subject);
        uint32_t number = 0;
        for (const ChoiceQuestion& q : questions)
            for (const std::string& choice : q.choices) answers.add(q.question, choice, number++);
        if (!answers.run()) continue;
        int64_t right = 0, right_per_byte = 0;
        size_t at = 0;
        for (const ChoiceQuestion& q : questions) {
            std::vector<double> nats(answers.values.begin() + std::ptrdiff_t(at),
                                     answers.values.begin() + std::ptrdiff_t(at + q.choices.size()));
            at += q.choices.size();
            std::vector<double> per_byte;
            for (size_t i = 0; i < nats.size(); i++)
                per_byte.push_back(nats[i] / double(q.choices[i].size()));
            const auto best = [](const std::vector<double>& x) {
                return int(std::max_element(x.begin(), x.end()) - x.begin());
            };
            right += best(nats) == q.answer;
            right_per_byte += best(per_byte) == q.answer;
            session.items.add({{"model", subject->name},
                               {"question", q.question},
                               {"choices", q.choices},
                               {"log_likelihoods", nats},
                               {"chosen", best(nats)},
                               {"chosen_per_byte", best(per_byte)},
                               {"answer", q.answer}});
        }
        const int64_t n = int64_t(questions.size());
        const double accuracy = double(right) / double(n), per_byte = double(right_per_byte) / double(n);
        const Interval interval = wilson_interval(accuracy, n);
        session.print({{"model", subject->name},
                       {"kind", answers.kind()},
                       {"questions", n},
                       {"accuracy", accuracy},
                       {"accuracy_low", interval.low},
                       {"accuracy_high", interval.high},
                       {"accuracy_per_byte", per_byte}});
        table.push_back({subject->name, answers.kind(), format("%lld", (long long)n),
                         format("%.1f%%", 100 * accuracy),
                         format("%.1f-%.1f%%", 100 * interval.low, 100 * interval.high),
                         format("%.1f%%", 100 * per_byte)});
    }
    session.items.close();
    if (!session.common.json && table.size() > 1) printf("%s", aligned(table).c_str());
    return interrupt_code();
}

// ---- saved responses

Exit grade(const EvalPlan& plan, const Common& common) {
    const EvalFlags& f = plan.flags;
    const Task& task = *plan.task;
    const int64_t generated = f.problems ? f.problems : 100000;
    std::vector<EvalRow> rows;
    for (const SavedResponses& saved :
         grade_file(f.grade_only, task, f.split, generated, plan.tokenizer.get())) {
        if (saved.batch.interrupted) break;
        EvalRow& row = rows.emplace_back(EvalRow{.model = saved.name,
                                                 .decoding = "saved",
                                                 .scores = score(saved.batch, f.pass_at),
                                                 .judged = saved.batch.judged,
                                                 .ungraded = saved.batch.ungraded});
        check_judged(row);
        if (saved.with_reward)
            log_info("%s: %d of %d rewards changed, mean %.4f in the file, %.4f now", saved.name.c_str(),
                     saved.changed, saved.with_reward, saved.rewards_in_file / saved.with_reward,
                     row.scores.stats.reward);
        if (common.json) {
            Json line = to_json(row);
            line["changed_rewards"] = saved.changed;
            printf("%s\n", dump(line).c_str());
        }
    }
    if (!common.json && !rows.empty()) printf("%s", eval_table(rows).c_str());
    return interrupt_code();
}

}  // namespace

Exit run_eval(EvalPlan& plan, const Common& common) {
    if (!plan.flags.grade_only.empty()) return grade(plan, common);
    Session session(plan, common);
    if (!plan.flags.choices.empty()) return multiple_choice(session);
    return plan.flags.likelihood ? likelihood(session) : generate(session);
}
