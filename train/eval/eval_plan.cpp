#include "train/eval/eval_plan.h"

#include "kernels/device_select.h"
#include "train/tasks/prompt_template.h"
#include "utils/files.h"

EvalSubject::EvalSubject(const std::string& given, const EvalFlags& f)
    : name(given.empty() ? "default model" : given),
      folder(open_model_folder(given.empty() ? default_model_folder() : resolve_model_path(given),
                               Head::Policy)),
      text(load_text_model(f.text.tokenizer, f.text.chat_template, folder.path, folder.config)),
      codec(make_codec(text, prompt_template(f.prompt_template), f.text.thinking)) {}

namespace {

bool generates(const EvalFlags& f) { return !f.likelihood && f.choices.empty() && f.grade_only.empty(); }

void read_questions(EvalPlan& plan) {
    plan.questions = read_choices(plan.flags.choices);
    const size_t wanted = size_t(plan.flags.problems);
    if (wanted && wanted < plan.questions.size()) plan.questions.resize(wanted);
}

void make_problems(EvalPlan& plan, uint64_t seed) {
    const EvalFlags& f = plan.flags;
    plan.task = make_tasks(f.task, seed);
    if (!f.grade_only.empty()) return;
    plan.problems = evaluation_problems(f, *plan.task);
    if (!f.likelihood) return;
    std::erase_if(plan.problems, [](const Problem& p) { return p.solution.empty(); });
    if (plan.problems.empty())
        fail(Exit::Usage, "--likelihood: task %s has no solutions to its problems", plan.task->name.c_str());
}

void check_requests(EvalSubject& subject, const std::vector<Problem>& problems) {
    for (const Problem& p : problems) {
        subject.requests.push_back({subject.codec.encode_prompt(p.prompt), 0, subject.options});
        try {
            check_request(subject.requests.back(), subject.config());
        } catch (const Error& e) {
            fail(e.code, "%s: request %zu: %s", subject.name.c_str(), subject.requests.size() - 1, e.what());
        }
    }
}

}  // namespace

EvalPlan plan_eval(const EvalFlags& flags, const Common& common, const Options& options, Faults& faults) {
    EvalPlan plan;
    plan.flags = flags;
    EvalFlags& f = plan.flags;
    if (!f.items.empty()) faults.attempt([&] { check_writable(f.items); });
    if (!f.grade_only.empty()) {
        faults.attempt([&] { check_readable(f.grade_only); });
        if (!faults.attempt([&] { make_problems(plan, common.seed); })) return plan;
        if (!plan.task->judge)
            options.refuse_typed(faults, {"--tokenizer"},
                                 "shows the tokens to a task that a command judges; leave it out");
        else if (!f.text.tokenizer.empty())
            faults.attempt([&] { plan.tokenizer = load_tokenizer(f.text.tokenizer); });
        return plan;
    }
    faults.attempt([&] { check_device(common.device); });
    faults.attempt([&] { adopt_run_options(f, options); });
    const bool has_problems =
        faults.attempt([&] { f.choices.empty() ? make_problems(plan, common.seed) : read_questions(plan); });
    if (options.given("--remasking") || !f.decoding.preset.empty()) {
        const std::string rule = name_of(f.decoding.options.remasking);
        plan.rule = f.decoding.preset.empty()      ? rule
                    : options.typed("--remasking") ? f.decoding.preset + " " + rule
                                                   : f.decoding.preset;
    }
    for (const std::string& model : f.models.empty() ? std::vector<std::string>{""} : f.models) {
        std::unique_ptr<EvalSubject> subject;
        if (!faults.attempt([&] { subject = std::make_unique<EvalSubject>(model, f); })) continue;
        const bool has_options = faults.attempt([&] {
            subject->options = f.decoding.resolve(subject->config(), subject->text.eos_ids, common.seed);
        });
        if (has_problems && has_options && generates(f))
            faults.attempt([&] { check_requests(*subject, plan.problems); });
        plan.subjects.push_back(std::move(subject));
    }
    return plan;
}
