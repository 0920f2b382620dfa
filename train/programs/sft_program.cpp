#include "train/programs/sft_program.h"

#include <algorithm>

#include "utils/arena.h"
#include "utils/json.h"
#include "utils/log.h"
#include "utils/signals.h"
#include "utils/words.h"

static const char* EXAMPLES = R"(Examples:
  ./train_sft --model DIR --data data.jsonl --out runs/sft
      lines of prompt and response, or of messages
  ./train_sft --model DIR --data gsm8k_train.jsonl --prompt-field question --response-field answer --eval-split 0.05
      other names, a twentieth held out
  ./train_sft --model DIR --data responses.jsonl --method trace
      lines of infer --json: every response in the order in which it was revealed
  ./train_sft --resume runs/sft
      goes on where it was stopped, bit for bit

Exit codes: 0 ok, 1 runtime failure, 2 usage, 3 bad file, 4 not enough memory, 130 and 143 interrupted, after saving.)";

void SftFlags::declare(Options& f) {
    f.section("Model and data");
    f.add("--model DIR", &model, "a Hugging Face folder");
    text.declare(f);
    f.add("--data FILE", &data, "JSONL of prompt and response, messages, or prompt_ids and response_ids");
    f.add("--prompt-field NAME", &reading.prompt_field, "what the prompt is called");
    f.add("--response-field NAME", &reading.response_field, "what the response is called");
    f.add("--eval-data FILE", &eval_data, "held-out examples");
    f.add("--eval-split X", &eval_split, "or this share of --data, taken from its end").range(0, 0.9);
    f.add("--max-length N", &reading.max_length,
          "longer examples are left out; 0: as the model's positions allow")
        .range(0, 1 << 24);
    f.add("--pad-tokens N", &reading.pad_tokens, "end tokens trained after the response").range(0, 1 << 16);
    f.add("--canvas N", &reading.canvas,
          "full attention: a response is followed by untrained masks up to N tokens, as it is in "
          "generation with --gen-length N")
        .range(0, 1 << 16);
    declare_sft_masks(f, run.masks);
    f.add("--block B", &block, "diffusion block length; 0: the model's own").range(0, 1 << 12);
    declare_optimizer(f, optimizer, "");
    memory.declare(f);
    f.section("Run");
    f.add("--batch-size N", &run.batch, "examples per update").range(1, 1 << 20);
    f.add("--epochs X", &run.epochs, "passes over the data").range(0, 1e9);
    f.add("--max-steps N", &run.max_steps, "updates at most; 0: as many as the epochs have").range(0, 1e12);
    f.add("--token-budget N", &token_budget, "tokens of one forward pass; 0: what suits").range(0, 1 << 24);
    f.add("--eval-every N", &run.eval_every, "updates between evaluations; 0: an epoch").range(0, 1e12);
    f.add("--save-every N", &run.save_every, "updates between checkpoints; 0: at the end only")
        .range(0, 1e12);
    f.add("--keep N", &run.keep, "checkpoints that are kept; 0: all").range(0, 1 << 20);
    f.add("--name NAME", &name, "of the run's folder, runs/NAME-DATE");
    f.add("--out RUN", &out, "the run's folder").not_in_config();
    f.add("--resume RUN", &resume, "goes on with a run that was stopped, with its options").not_in_config();
    replay.declare(f, false);
    f.epilog(EXAMPLES);
    f.check([this, &f](Faults& faults) {
        const bool replayed = !replay.file.empty(), resumed = !resume.empty();
        const bool dumped = f.given("--dump-config");  // what is missing may come later
        if (model.empty() && !resumed && !dumped)
            faults.add("--model: name a model folder (`convert init` makes one)");
        if (data.empty() && !replayed && !resumed && !dumped)
            faults.add("--data: name a file of examples, or --replay one of noisy copies");
        if (run.epochs == 0) faults.add("--epochs 0: nothing would be trained; 0.5 is half of the data");
        if (!eval_data.empty() && eval_split > 0)
            faults.add("--eval-data and --eval-split: give one of them");
        if (eval_data.empty() && eval_split == 0)
            f.refuse_typed(faults, {"--eval-every"}, "nothing is held out; add --eval-data or --eval-split",
                           "--eval-split");
        if (!out.empty() && resumed) faults.add("--out and --resume: a resumed run stays in its folder");
        if (!out.empty()) f.refuse_typed(faults, {"--name"}, "--out names the run's folder; leave one out");
        if (resumed && !replayed) {
            f.refuse_typed(faults, {"--model"},
                           "--resume goes on with the run's newest checkpoint; leave it out");
            f.refuse_typed(faults, {"--name"}, "a resumed run stays in its folder; leave it out");
        }
        if (replayed)
            f.refuse_typed(faults,
                           {"--data", "--eval-data", "--eval-split", "--epochs", "--max-steps",
                            "--batch-size", "--save-every"},
                           "nothing is trained with --replay; leave it out");
    });
}

namespace {

void check_method(const SftMaskOptions& masks, const ModelConfig& config, const std::string& model) {
    if (masks.method != SftMethod::Ar && config.mask_id < 0)
        fail(Exit::Usage,
             "--method: %s is an autoregressive model without a mask id; it can be trained with --method ar "
             "only",
             model.c_str());
}

// Into plan.train and plan.held_out.
void read_data(SftPlan& plan, const TextModel& text, const RecordLimits& limits) {
    const SftFlags& f = plan.flags;
    SftData all = read_sft_data(f.data, text, f.reading, limits), held_out;
    if (all.too_long) log_warning("%s: %d examples are too long and left out", f.data.c_str(), all.too_long);
    if (!f.eval_data.empty()) {
        held_out = read_sft_data(f.eval_data, text, f.reading, limits);
    } else if (f.eval_split > 0) {
        const size_t n = size_t(f.eval_split * double(all.examples.size()));
        if (n == 0)
            fail(Exit::Usage, "--eval-split %g: that is none of the %zu examples of %s; raise it",
                 f.eval_split, all.examples.size(), f.data.c_str());
        const auto first = all.examples.end() - std::ptrdiff_t(n);
        held_out.examples.assign(first, all.examples.end());
        all.examples.erase(first, all.examples.end());
    }
    plan.train = std::move(all.examples);
    plan.held_out = std::move(held_out.examples);
}

MicroBatchLimits micro_batch_limits(const SftFlags& f, const MicroBatchLimits& need) {
    constexpr int CHEAP_TOKENS = 4096;
    if (f.token_budget && f.token_budget < need.max_tokens)
        fail(Exit::Usage,
             "--token-budget %d: the longest example takes %d tokens in training; raise it, or leave out "
             "long examples with --max-length",
             f.token_budget, need.max_tokens);
    const int tokens = f.token_budget ? f.token_budget : std::max(need.max_tokens, CHEAP_TOKENS);
    return {tokens, std::max(tokens, need.max_targets)};
}

// What has no effect on a model of this kind.
void refuse_of_kind(const ModelConfig& config, const Options& options, Faults& faults) {
    if (config.full_attention)
        options.refuse_typed(faults, {"--block"}, "a full-attention model has no blocks; leave it out");
    else
        options.refuse_typed(faults, {"--canvas", "--sft-block"},
                             "is for full-attention models, this one has blocks; leave it out");
}

}  // namespace

SftPlan plan_sft(const SftFlags& flags, const Common& common, const Options& options, Faults& faults) {
    SftPlan plan;
    plan.flags = flags;
    SftFlags& f = plan.flags;
    f.run.seed = common.seed;
    f.run.progress = progress_style(common.progress);
    f.reading.thinking = f.text.thinking;
    f.reading.needs_step_map = f.run.masks.method == SftMethod::Trace;
    faults.attempt([&] { RunFolder::check_free(f.out, f.name); });
    if (!f.resume.empty() &&
        !faults.attempt([&] { plan.folder.emplace(RunFolder::open(f.resume, "train_sft")); }))
        return plan;  // its options and its model are what there would be to look at
    const std::string source = plan.folder ? plan.folder->latest() : f.model;

    TextModel text;
    const bool has_model = !source.empty() && faults.attempt([&] {
        plan.model.emplace(open_model_folder(source, Head::Policy));
        ModelConfig& config = plan.model->config;
        if (f.block && !config.full_attention) config.B = f.block;  // and the saved model says so
        refuse_of_kind(config, options, faults);
    });
    const bool has_method =
        has_model && faults.attempt([&] { check_method(f.run.masks, plan.model->config, source); });
    const bool has_text = has_model && faults.attempt([&] {
        text = load_text_model(f.text.tokenizer, f.text.chat_template, source, plan.model->config);
    });
    if (!has_text) {
        for (const std::string& file : {f.data, f.eval_data})
            if (!file.empty()) faults.attempt([&] { check_readable(file); });
        return plan;
    }
    const bool has_data = !f.data.empty() && faults.attempt([&] {
        read_data(plan, text, record_limits(plan.model->config, plan.block(), false));
    });
    if (!has_data || !has_method) return plan;
    faults.attempt([&] {
        f.optimizer.total_steps = steps_of(f.run, plan.train.size());
        const MaskShape shape = {plan.block(), plan.model->config.mask_id};
        MicroBatchLimits need = largest_example(plan.train, shape, f.run.masks);
        need.max_tokens =
            std::max(need.max_tokens, largest_example(plan.held_out, shape, f.run.masks).max_tokens);
        plan.limits = micro_batch_limits(f, need);
    });
    return plan;
}

Exit run_sft(Ops& ops, SftPlan& p, const Common& common, const std::string& config_toml) {
    const SftFlags& f = p.flags;
    ModelFolder& model = *p.model;
    std::optional<RunFolder>& folder = p.folder;
    const std::string source = model.path;
    Learner learner(ops, model.config, Head::Policy, p.block(), p.limits, f.optimizer,
                    {.weights = training_dtype(common.dtype, ops), .moments = f.memory.moments});
    const MemoryPlan plan = plan_memory({{"model", &learner}}, nullptr, f.memory.recompute, ops.available());
    if (common.dry_run && common.json)
        printf("%s\n", dump(plan.json()).c_str());
    else if (common.dry_run)
        plan.print(stdout);
    plan.check();
    if (common.dry_run) return Exit::Ok;
    learner.allocate();
    learner.load(model);
    const bool resumed = folder.has_value();
    if (!folder) folder.emplace(RunFolder::create(f.out, f.name, config_toml));
    log_to_file(folder->file("main.log"));
    survive_broken_pipes();
    log_info("run folder %s; %s, %.2fM parameters; %zu examples, %zu held out", folder->path().c_str(),
             source.c_str(), double(model.config.n_parameters()) / 1e6, p.train.size(), p.held_out.size());
    const auto save = [&](const std::string& path) {
        // after a resume from the newest checkpoint: the one resumed from may be gone
        save_model_folder(path, learner.master(), learner.config, resumed ? folder->latest() : source,
                          DType::F32, ops);
    };
    SftRun run(f.run, learner, std::move(p.train), std::move(p.held_out), *folder, save);
    if (resumed) {
        run.resume(source);
        folder->set_options(config_toml);
    }
    if (!run.run([] { return interrupted(); })) {
        log_info("stopped and saved; go on with: ./train_sft --resume %s",
                 shell_word(folder->path()).c_str());
        return interrupt_code();
    }
    if (ops.on_host())
        log_info("memory: %.1f MiB at most, %.1f MiB planned", double(peak_host_memory()) / (1 << 20),
                 double(plan.total()) / (1 << 20));
    log_info("the model is in %s", folder->latest().c_str());
    if (common.json) printf("%s\n", dump({{"model", folder->latest()}}).c_str());
    return Exit::Ok;
}
