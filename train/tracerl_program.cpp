#include "train/tracerl_program.h"

#include <algorithm>

#include "inference/infer_plan.h"
#include "train/codec.h"
#include "utils/log.h"
#include "utils/signals.h"
#include "weights_tools/model_folder.h"
#include "weights_tools/presets.h"

namespace {

// Where weights come from: the run's newest checkpoint, the folder of --model, or nowhere.
struct Source {
    std::string policy, value;
    bool resumed = false;
};

Source find_source(const TracerlRequest& r, const RunFolder* resumed) {
    if (resumed) {
        const std::string checkpoint = resumed->latest();
        return {checkpoint, r.value_model.empty() ? "" : checkpoint + "/value_model", true};
    }
    return {r.model, r.value_model == "init" ? "" : r.value_model, false};
}

ModelConfig made_config(const RunFlags& f, int block) {
    const std::string tokenizer = f.tokenizer.empty() ? "bytes" : f.tokenizer;
    ModelConfig config = preset_config(f.preset, tokenizer);
    if (block) config.B = block;
    return config;
}

// The longest prompt of the task in tokens: of every problem of a data file, of a thousand generated ones.
int longest_prompt(const Task& task, const TextCodec& codec) {
    int longest = 0;
    for (const Split split : {Split::Train, Split::HeldOut}) {
        const int64_t size = split == Split::Train ? task.train_size : task.held_out_size;
        for (int64_t i = 0; i < (size ? size : 1000); i++) longest = std::max(longest, int(codec.encode_prompt(task.problem(split, i).prompt).size()));
    }
    return longest;
}

EngineLimits engine_limits(const RunFlags& f, const ModelConfig& config, const GenerateOptions& rollout, int prompt) {
    const Footprint need = footprint(prompt, rollout, config);
    const int sequences = std::min(f.max_active, std::max(f.run.rl.tasks * f.run.rl.responses, f.run.eval_problems));
    EngineLimits limits;
    limits.max_active = sequences;
    limits.max_rows = sequences * need.rows + need.shared_slots;
    limits.kv_slots = sequences * (need.own_slots + need.shared_slots);
    return limits;
}

void print_plan(const Learner& policy, const Learner* value, const Arena& engine) {
    const auto mib = [](size_t bytes) { return double(bytes) / (1 << 20); };
    printf("policy\n");
    policy.print_plan(stdout);
    if (value) {
        printf("value model\n");
        value->print_plan(stdout);
    }
    printf("rollout\n  %-24s %10.1f MiB\n", "KV cache and activations", mib(engine.bytes()));
    printf("total %34.1f MiB\n", mib(policy.planned_bytes() + (value ? value->planned_bytes() : 0) + engine.bytes()));
}

void load_or_make(Learner& learner, const std::string& folder, const std::string& body, uint64_t seed) {
    if (!folder.empty())
        load_weights(open_model_folder(folder, learner.head), learner.weights, learner.ops);
    else if (!body.empty())
        load_body(open_model_folder(body, Head::Policy), learner.weights, learner.ops);  // a value model from its policy: zero head
    else
        initialize(learner.weights, learner.config, seed);
}

}  // namespace

Exit run_tracerl(Ops& ops, TracerlRequest r, const Common& common, const Options& options) {
    RunFlags& f = r.flags;
    std::optional<RunFolder> folder;
    if (!f.resume.empty()) folder.emplace(RunFolder::open(f.resume));
    const Source source = find_source(r, folder ? &*folder : nullptr);

    const ModelConfig config = source.policy.empty() ? made_config(f, f.decoding.options.block) : read_model_config(source.policy);
    const TextModel text = load_text_model(source.policy.empty() && f.tokenizer.empty() ? "bytes" : f.tokenizer, f.chat_template, source.policy, config);
    const TextCodec codec = make_codec(text, f.thinking);
    const Task task = make_task(f.task, common.seed);

    GenerateOptions rollout = f.decoding.resolve(options, config, text.eos_ids, common.seed);
    f.run.progress = progress_style(common.progress);
    f.run.sft.seed = f.run.rl.seed = common.seed;
    f.run.rl.rollout = rollout;
    f.run.rl.rl = r.rl;
    if (f.run.rl.rl.loss.norm_length == 0) f.run.rl.rl.loss.norm_length = rollout.gen_length;
    f.run.sft_optimizer.total_steps = f.run.sft.steps;
    f.run.optimizer.total_steps = f.run.value_optimizer.total_steps = f.run.steps * f.run.rl.epochs * f.run.rl.mini_batches;

    const int block = config.full_attention ? 0 : f.train_block ? f.train_block : rollout.block;
    const MicroBatchLimits limits{f.token_budget, f.token_budget};
    Learner policy(ops, config, Head::Policy, block, limits, f.run.sft_optimizer);
    std::optional<Learner> value;
    if (!r.value_model.empty()) value.emplace(ops, source.value.empty() ? config : read_model_config(source.value), Head::Value, block, limits, f.run.value_optimizer);
    Arena engine_arena("rollout", ops);
    Engine engine(ops, policy.config, policy.weights, engine_limits(f, config, rollout, longest_prompt(task, codec)), text.n_ids, engine_arena);
    if (common.dry_run) {
        print_plan(policy, value ? &*value : nullptr, engine_arena);
        return Exit::Ok;
    }
    engine_arena.allocate();
    policy.allocate();
    if (value) value->allocate();
    load_or_make(policy, source.policy, "", common.seed);
    if (value) load_or_make(*value, source.value, source.policy, common.seed);

    if (!folder) folder.emplace(RunFolder::create(f.out, f.name, r.config_toml));
    log_to_file(folder->file("main.log"));
    log_info("run folder %s; %s, %.2fM parameters, block %d, task %s", folder->path().c_str(), source.policy.empty() ? ("a new " + f.preset + " model").c_str() : source.policy.c_str(),
             double(config.n_parameters()) / 1e6, rollout.block, f.task.c_str());
    const auto save = [&](const std::string& path) {
        save_model_folder(path, policy.weights, policy.config, source.policy.empty() ? (f.tokenizer == "bytes" ? "" : f.tokenizer) : source.policy, DType::F32, ops);
        if (!value) return;
        make_folders(path + "/value_model");
        save_model_folder(path + "/value_model", value->weights, value->config, "", DType::F32, ops);
    };
    TraceRlRun run(f.run, policy, value ? &*value : nullptr, engine, codec, task, *folder, save);
    if (source.resumed) run.resume(source.policy);
    catch_signals();
    if (!run.run([] { return interrupted(); })) {
        log_info("stopped and saved; go on with: ./train_tracerl --resume %s", folder->path().c_str());
        return interrupt_code();
    }
    printf("%s\nTry it: ./infer --model %s --block %d --prompt \"%s\"\n", run.summary().c_str(), folder->latest().c_str(), rollout.block, task.problem(Split::HeldOut, 0).prompt.c_str());
    return Exit::Ok;
}
