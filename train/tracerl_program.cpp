#include "train/tracerl_program.h"

#include <algorithm>

#include "inference/infer_plan.h"
#include "tokenizer/byte_tokenizer.h"
#include "tokenizer/tokenizer.h"
#include "train/codec.h"
#include "utils/log.h"
#include "utils/signals.h"
#include "weights_tools/init_folder.h"
#include "weights_tools/model_folder.h"

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

// A model made here speaks bytes; for another tokenizer there is `convert init`.
ModelConfig made_config(const RunFlags& f) {
    const std::string block =
        f.decoding.options.block ? format("block_size=%d", f.decoding.options.block) : "";
    return init_config(f.preset, {BYTE_VOCABULARY, BYTE_MASK, {BYTE_IM_END, BYTE_END_OF_TEXT}},
                       block.empty() ? std::vector<std::string>{} : std::vector{block});
}

// The longest prompt of the task in tokens: of every problem of a data file, of a thousand generated ones.
int longest_prompt(const Task& task, const TextCodec& codec) {
    int longest = 0;
    for (const Split split : {Split::Train, Split::HeldOut}) {
        const int64_t size = split == Split::Train ? task.train_size : task.held_out_size;
        for (int64_t i = 0; i < (size ? size : 1000); i++)
            longest = std::max(longest, int(codec.encode_prompt(task.problem(split, i).prompt).size()));
    }
    return longest;
}

EngineLimits engine_limits(const RunFlags& f, const ModelConfig& config, const GenerateOptions& rollout,
                           int prompt) {
    const Footprint need = footprint(prompt, rollout, config);
    const int sequences =
        std::min(f.max_active, std::max(f.run.rl.tasks * f.run.rl.responses, f.run.eval_problems));
    EngineLimits limits;
    limits.max_active = sequences;
    limits.max_rows = sequences * need.rows + need.shared_slots;
    limits.kv_slots = sequences * (need.own_slots + need.shared_slots);
    return limits;
}

// The longest response, one token revealed per step, must fit into one pass: it is never cut.
MicroBatchLimits micro_batch_limits(const RunFlags& f, const ModelConfig& config,
                                    const GenerateOptions& rollout, int block, int prompt) {
    constexpr int CHEAP_TOKENS = 4096;
    const int length = prompt + rollout.gen_length + block;
    const int worst =
        config.full_attention ? length * rollout.gen_length : length + (rollout.gen_length + block) * block;
    if (f.token_budget && f.token_budget < worst)
        fail(Exit::Usage,
             "--token-budget %d: a response of --gen-length %d to a prompt of %d tokens can take %d tokens "
             "in training; raise the one or lower the other",
             f.token_budget, rollout.gen_length, prompt, worst);
    const int tokens = f.token_budget ? f.token_budget : std::max(worst, CHEAP_TOKENS);
    return {tokens, tokens};
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
    printf("total %34.1f MiB\n",
           mib(policy.planned_bytes() + (value ? value->planned_bytes() : 0) + engine.bytes()));
}

}  // namespace

Exit run_tracerl(Ops& ops, TracerlRequest r, const Common& common, const Options& options) {
    RunFlags& f = r.flags;
    std::optional<RunFolder> folder;
    if (!f.resume.empty()) folder.emplace(RunFolder::open(f.resume));
    const Source source = find_source(r, folder ? &*folder : nullptr);

    const ModelConfig config = source.policy.empty() ? made_config(f) : read_model_config(source.policy);
    const TextModel text = load_text_model(source.policy.empty() ? "bytes" : f.tokenizer, f.chat_template,
                                           source.policy, config);
    const TextCodec codec = make_codec(text, prompt_template(f.prompt_template), f.thinking);
    const Task task = make_task(f.task, common.seed);

    GenerateOptions rollout = f.decoding.resolve(options, config, text.eos_ids, common.seed);
    f.run.progress = progress_style(common.progress);
    f.run.sft.seed = f.run.rl.seed = common.seed;
    f.run.value_from_policy = r.value_model == "init";
    f.run.rl.rollout = rollout;
    f.run.rl.rl = r.rl;
    if (f.run.rl.rl.loss.norm_length == 0) f.run.rl.rl.loss.norm_length = rollout.gen_length;
    f.run.sft_optimizer.total_steps = f.run.sft.steps;
    f.run.optimizer.total_steps = f.run.value_optimizer.total_steps =
        f.run.steps * f.run.rl.epochs * f.run.rl.mini_batches;

    const int block = config.full_attention ? 0 : f.train_block ? f.train_block : rollout.block;
    const int prompt = longest_prompt(task, codec);
    const MicroBatchLimits limits = micro_batch_limits(f, config, rollout, block, prompt);
    Learner policy(ops, config, Head::Policy, block, limits, f.run.sft_optimizer);
    std::optional<Learner> value;
    if (!r.value_model.empty())
        value.emplace(ops, source.value.empty() ? config : read_model_config(source.value), Head::Value,
                      block, limits, f.run.value_optimizer);
    Arena engine_arena("rollout", ops);
    Engine engine(ops, policy.config, policy.weights, engine_limits(f, config, rollout, prompt), text.n_ids,
                  engine_arena);
    if (common.dry_run) {
        print_plan(policy, value ? &*value : nullptr, engine_arena);
        return Exit::Ok;
    }
    engine_arena.allocate();
    policy.allocate();
    if (value) value->allocate();
    if (source.policy.empty())
        initialize(policy.weights, policy.config, common.seed);
    else
        load_weights(open_model_folder(source.policy, Head::Policy), policy.weights, ops);
    if (!source.value.empty())
        load_weights(open_model_folder(source.value, Head::Value), value->weights, ops);

    if (!folder) folder.emplace(RunFolder::create(f.out, f.name, r.config_toml));
    log_to_file(folder->file("main.log"));
    log_info("run folder %s; %s, %.2fM parameters, block %d, task %s", folder->path().c_str(),
             source.policy.empty() ? ("a new " + f.preset + " model").c_str() : source.policy.c_str(),
             double(config.n_parameters()) / 1e6, rollout.block, f.task.c_str());
    const auto save = [&](const std::string& path) {
        // The tokenizer travels along: from --model, or after a resume from the newest checkpoint (the one resumed from may be gone).
        const std::string companions = source.resumed ? folder->latest() : source.policy;
        save_model_folder(path, policy.weights, policy.config, companions, DType::F32, ops);
        if (source.policy.empty()) save_byte_tokenizer(path);
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
    printf("%s\nTry it: ./infer --model %s --block %d --prompt \"%s\"\n", run.summary().c_str(),
           folder->latest().c_str(), rollout.block, task.problem(Split::HeldOut, 0).prompt.c_str());
    return Exit::Ok;
}
