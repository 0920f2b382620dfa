#include "train/tracerl_program.h"

#include <algorithm>

#include "inference/infer_plan.h"
#include "tokenizer/byte_tokenizer.h"
#include "tokenizer/tokenizer.h"
#include "train/codec.h"
#include "utils/log.h"
#include "utils/peak_memory.h"
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

// The longest block of the run: what rollouts begin with, or what updates and later rollouts are made in.
int longest_block(const RunFlags& f, const GenerateOptions& rollout) {
    return std::max(f.run.train_block, rollout.block);
}

void check_blocks(const RunFlags& f, const ModelConfig& config, const GenerateOptions& rollout, int prompt) {
    const int train = f.run.train_block, block = longest_block(f, rollout);
    if (train && config.full_attention)
        fail(Exit::Usage, "--train-block %d: a full-attention model is not trained in blocks", train);
    if (train && train % rollout.block)
        fail(Exit::Usage, "--train-block %d: must be a multiple of the rollout's block length, %d", train,
             rollout.block);
    // Equal ones are fine: a run that is resumed after the switch begins with the enlarged blocks.
    if (f.run.enlarge_at && train < rollout.block)
        fail(Exit::Usage, "--enlarge-at %lld: needs --train-block, longer than the rollout's %d",
             (long long)f.run.enlarge_at, rollout.block);
    const int positions = (prompt + rollout.gen_length + block - 1) / block * block;
    if (!config.full_attention && positions > config.max_positions)
        fail(Exit::Usage,
             "--gen-length %d: with a prompt of %d tokens and blocks of %d it takes %d positions, the model "
             "has %d",
             rollout.gen_length, prompt, block, positions, config.max_positions);
}

EngineLimits engine_limits(const RunFlags& f, const ModelConfig& config, GenerateOptions rollout,
                           int prompt) {
    if (!config.full_attention) rollout.block = longest_block(f, rollout);
    const Footprint need = footprint(prompt, rollout, config);
    const int sequences =
        std::min(f.max_active, std::max(f.run.rl.tasks * f.run.rl.responses, f.run.eval_problems));
    EngineLimits limits;
    limits.max_active = sequences;
    limits.max_rows = sequences * need.rows + need.shared_slots;
    limits.kv_slots = sequences * (need.own_slots + need.shared_slots);
    return limits;
}

int64_t ceil_div(int64_t n, int64_t d) { return (n + d - 1) / d; }

// Tokens of the longest response in training, whatever was revealed when: one copy per (merged) reveal step or per
// random mask, of every block or of all of it.
int64_t largest_response(const RunFlags& f, const RlOptions& rl, const ModelConfig& config,
                         const GenerateOptions& rollout, int prompt) {
    const bool full = config.full_attention;
    const int64_t block = longest_block(f, rollout), n = rollout.gen_length;
    const int64_t length = prompt + n + (full ? 0 : block);
    const int64_t parts = full ? 1 : ceil_div(n - 1, block) + 1, part = full ? length : block;
    const int64_t masks = rl.masks.m * (rl.kind == RlObjective::Coupled ? 2 : 1) * parts;
    const int64_t steps = std::min(ceil_div(full ? n : block, rl.shrink) * parts, full ? n : n + block);
    const int64_t warm_start = !f.run.sft.steps ? 0 : full ? ceil_div(n, f.run.sft.masks.block) : parts;
    return std::max(rl.kind == RlObjective::TraceRl ? steps : masks, warm_start) * part + (full ? 0 : length);
}

// The longest response must fit into one pass: it is never cut.
MicroBatchLimits micro_batch_limits(const RunFlags& f, const RlOptions& rl, const ModelConfig& config,
                                    const GenerateOptions& rollout, int prompt) {
    constexpr int64_t CHEAP_TOKENS = 4096, MOST_TOKENS = 1 << 24;
    const int64_t worst = largest_response(f, rl, config, rollout, prompt),
                  budget = f.token_budget ? f.token_budget : MOST_TOKENS;
    if (budget < worst)
        fail(Exit::Usage,
             "--token-budget %lld: a response of --gen-length %d to a prompt of %d tokens can take %lld "
             "tokens "
             "in training; raise the one or lower the other",
             (long long)budget, rollout.gen_length, prompt, (long long)worst);
    const int tokens = f.token_budget ? f.token_budget : int(std::max(worst, CHEAP_TOKENS));
    return {tokens, tokens};
}

double mib(size_t bytes) { return double(bytes) / (1 << 20); }

size_t planned_bytes(const Learner& policy, const Learner* value, const Arena& engine) {
    return policy.planned_bytes() + (value ? value->planned_bytes() : 0) + engine.bytes();
}

void print_plan(const Learner& policy, const Learner* value, const Arena& engine) {
    printf("policy\n");
    policy.print_plan(stdout);
    if (value) {
        printf("value model\n");
        value->print_plan(stdout);
    }
    printf("rollout\n  %-24s %10.1f MiB\n", "KV cache and activations", mib(engine.bytes()));
    printf("total %34.1f MiB\n", mib(planned_bytes(policy, value, engine)));
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

    const int block = config.full_attention ? 0 : rollout.block;
    const int prompt = longest_prompt(task, codec);
    check_blocks(f, config, rollout, prompt);
    const MicroBatchLimits limits = micro_batch_limits(f, r.rl, config, rollout, prompt);
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
    const size_t planned = planned_bytes(policy, value ? &*value : nullptr, engine_arena);
    check_fits(ops, planned);
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
    std::optional<TraceRlRun> run;
    const auto save = [&](const std::string& path) {
        // The tokenizer travels along: from --model, or after a resume from the newest checkpoint (the one resumed from may be gone).
        const std::string companions = source.resumed ? folder->latest() : source.policy;
        ModelConfig saved =
            policy.config;  // says what it is generated with by now: enlarged blocks are the model's own
        if (!saved.full_attention) saved.B = run->rollout_block();
        save_model_folder(path, policy.weights, saved, companions, DType::F32, ops);
        if (source.policy.empty()) save_byte_tokenizer(path);
        if (!value) return;
        make_folders(path + "/value_model");
        save_model_folder(path + "/value_model", value->weights, value->config, "", DType::F32, ops);
    };
    run.emplace(f.run, policy, value ? &*value : nullptr, engine, codec, task, *folder, save);
    if (source.resumed) run->resume(source.policy);
    catch_signals();
    if (!run->run([] { return interrupted(); })) {
        log_info("stopped and saved; go on with: ./train_tracerl --resume %s", folder->path().c_str());
        return interrupt_code();
    }
    if (ops.on_host())
        log_info("memory: %.1f MiB at most, %.1f MiB planned", mib(peak_host_memory()), mib(planned));
    printf("%s\nTry it: ./infer --model %s --block %d --prompt \"%s\"\n", run->summary().c_str(),
           folder->latest().c_str(), run->final_block(), task.problem(Split::HeldOut, 0).prompt.c_str());
    return Exit::Ok;
}
