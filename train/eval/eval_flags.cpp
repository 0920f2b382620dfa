#include "train/eval/eval_flags.h"

#include "train/evaluation.h"
#include "train/tasks/prompt_template.h"
#include "utils/files.h"
#include "utils/log.h"
#include "utils/toml.h"
#include "utils/words.h"

static const char* EXAMPLES = R"(Examples:
  ./eval
      the small model that comes along on 256 sums, decoded statically and dynamically
  ./eval --model runs/tracerl-20260101-120000
      the newest checkpoint of a run, on its task with its block length
  ./eval --model A --model B --task questions.jsonl:held_out=1 --gen-length 512
      a table of two models on all questions of a file
  ./eval --model DIR --task questions.jsonl --num-samples 8 --temperature 1 --pass-at 1,4,8 --items out.jsonl
      avg@8 and pass@k; every response to out.jsonl
  ./eval --grade-only out.jsonl --task questions.jsonl
      the same responses rewarded again, without a model
  ./eval --model DIR --choices questions.jsonl
      multiple choice: lines of question, choices, answer; the likeliest choice is the model's

Exit codes: 0 ok, 1 runtime failure, 2 usage, 3 bad file, 4 not enough memory, 130 interrupted.)";

void EvalFlags::declare(Options& f) {
    f.section("Models");
    f.add("--model,-m DIR", &models,
          "a Hugging Face folder, or a run's folder (its newest checkpoint); several make a table (default: "
          "the small model that comes along)");
    text.declare(f);
    f.add("--prompt-template NAME", &prompt_template, "the words around a problem")
        .choices(prompt_template_names());
    f.section("What is measured");
    f.add(
        "--task SPEC[@WEIGHT]", &task,
        "a task with options as NAME:key=value,..., or a data file; several, each with a weight, are mixed");
    f.add_choice("--split NAME", &split, {{"held-out", Split::HeldOut}, {"train", Split::Train}},
                 "which of its problems");
    f.add("--problems N", &problems, "so many of them; 0: all of a data file, 256 generated ones")
        .range(0, 1e9);
    f.add("--num-samples K", &samples, "responses to each problem: accuracy is avg@K then").range(1, 1e6);
    f.add("--pass-at K,...", &pass_at, "pass@k for these k (default: 1 and K, where K is above 1)")
        .range(1, 1e6);
    f.add("--likelihood", &likelihood,
          "instead of generating: how probable the task's own solutions are to the model");
    f.add("--choices FILE", &choices,
          "instead of generating: multiple choice by likelihood; JSON lines of question, choices, answer");
    f.add("--mask-sets N", &mask_sets,
          "sets of masked tokens per block (per answer under full attention) that a likelihood is made of; "
          "all of them where there are no more")
        .range(1, 1 << 20);
    f.add("--score-end", &score_end, "the end of the answer counts in its likelihood too");
    f.add("--grade-only FILE", &grade_only,
          "no model: reward the responses of --items, of a run's samples/ or of infer --json again; with "
          "--tokenizer a command that judges single tokens is shown them");
    decoding.declare(f);
    f.section("Limits");
    f.add("--max-active,--max-batch N", &max_active, "sequences in flight at once").range(1, 1 << 16);
    f.add("--max-rows N", &max_rows, "tokens of one forward pass (0: planned)").range(0, 1 << 24);
    f.section("Output");
    f.add("--items FILE", &items, "every response, or answer, as a JSON line");
    f.epilog(EXAMPLES);
    f.check([this, &f](Faults& faults) {
        if (likelihood + !choices.empty() + !grade_only.empty() > 1)
            faults.add("--likelihood, --choices and --grade-only exclude each other");
        if (!grade_only.empty() && !models.empty()) faults.add("--grade-only needs no --model");
        if (!grade_only.empty() && !items.empty()) faults.add("--grade-only and --items exclude each other");
        for (size_t i = 0; i < models.size(); i++)
            for (size_t j = 0; j < i; j++)
                if (same_place(models[i], models[j])) {
                    faults.add("--model %s: is given twice; name every model once", models[i].c_str());
                    break;
                }
        if (samples > 1 && decoding.is_greedy(f))
            faults.add("--num-samples %d: at --temperature 0 or --top-k 1 they would all be the same",
                       samples);
        for (const int k : pass_at)
            if (k > samples && grade_only.empty())
                faults.add("--pass-at %d: needs as many --num-samples, there are %d", k, samples);
        if (!choices.empty() && f.typed("--task"))
            faults.add("--choices and --task exclude each other: the file holds the questions");
        refuse_idle(f, faults);
    });
}

// What has no effect beside the rest.
void EvalFlags::refuse_idle(const Options& f, Faults& faults) const {
    const bool scored = likelihood || !choices.empty();
    if (!scored) f.refuse_typed(faults, {"--mask-sets", "--score-end"}, "is for --likelihood and --choices");
    if (!choices.empty()) f.refuse_typed(faults, {"--split"}, "--choices takes every question; leave it out");
    if (scored || !grade_only.empty()) {
        const std::string why = std::string(!grade_only.empty() ? "--grade-only"
                                            : likelihood        ? "--likelihood"
                                                                : "--choices") +
                                " generates nothing; leave it out";
        DecodingFlags::refuse_all(f, why, faults);
        f.refuse_typed(faults, {"--num-samples", "--max-active"}, why);
    } else {
        decoding.refuse_idle(f, !f.given("--remasking") && decoding.preset.empty(), faults);
    }
    if (scored) f.refuse_typed(faults, {"--pass-at"}, "counts generated responses; leave it out");
    if (!grade_only.empty())
        f.refuse_typed(faults, {"--block", "--chat-template", "--prompt-template", "--max-rows", "--dry-run"},
                       "--grade-only takes no model; leave it out");
}

void adopt_run_options(EvalFlags& f, const Options& given) {
    if (f.models.empty()) return;
    const std::string path = f.models[0] + "/config.toml";
    if (!file_exists(path) || !file_exists(f.models[0] + "/latest")) return;
    std::vector<std::string> faults;
    std::string adopted;
    for (const TomlItem& item : parse_toml(read_text(path), path, faults)) {
        const std::string name = hyphens(item.key);
        const auto text = [&](const char* key, std::string& to) {
            if (name != key || given.given(std::string("--") + key)) return;
            to = item.value.text;
            if (!to.empty()) adopted += format(" --%s %s", key, to.c_str());
        };
        const auto number = [&](const char* key, int& to) {
            std::string value;
            text(key, value);
            if (!value.empty()) to = atoi(value.c_str());
        };
        if (name == "task" && !given.given("--task")) {
            f.task.clear();
            for (const TomlValue& v : item.value.items) f.task.push_back(v.text);
            if (f.task.empty()) f.task = {item.value.text};
            for (const std::string& spec : f.task) adopted += " --task " + spec;
        }
        text("prompt-template", f.prompt_template);
        text("chat-template", f.text.chat_template);
        text("tokenizer", f.text.tokenizer);
        number("gen-length", f.decoding.options.gen_length);
        if (f.decoding.options.block == 0) number("block", f.decoding.options.block);  // none of a preset's
        if (name == "thinking" && !given.given("--thinking")) f.text.thinking = item.value.text == "on";
    }
    if (!faults.empty()) fail(Exit::BadFile, "%s", faults[0].c_str());
    if (!adopted.empty()) log_info("as the run:%s", adopted.c_str());
}

std::vector<Problem> evaluation_problems(const EvalFlags& f, const Task& task) {
    const bool generated = task.train_size == 0 && task.held_out_size == 0;
    const int64_t size = f.split == Split::Train ? task.train_size : task.held_out_size,
                  n = f.problems  ? f.problems
                      : generated ? 256
                                  : size;
    std::vector<Problem> problems = problems_of(task, f.split, 0, n);
    if (problems.empty())
        fail(Exit::Usage, "--task %s: has no %s problems; %s", task.name.c_str(),
             f.split == Split::Train ? "training" : "held-out",
             f.split == Split::Train ? "see --split" : "with :held_out=1 all are");
    return problems;
}
