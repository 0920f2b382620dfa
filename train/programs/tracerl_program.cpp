#include "train/programs/tracerl_program.h"

#include <algorithm>
#include <optional>

#include "inference/infer_plan.h"
#include "tokenizer/byte_tokenizer.h"
#include "tokenizer/tokenizer.h"
#include "train/codec.h"
#include "train/programs/step_plan.h"
#include "utils/arena.h"
#include "utils/json.h"
#include "utils/log.h"
#include "utils/signals.h"
#include "utils/words.h"
#include "weights_tools/init_folder.h"
#include "weights_tools/model_folder.h"

namespace {

// A model made here speaks bytes; for another tokenizer there is `convert init`.
ModelConfig made_config(const RunFlags& f) {
    const int length =
        f.decoding.options
            .block;  // the whole canvas is not for a model that has blocks, which it says itself
    const std::string block = length && length != WHOLE_CANVAS ? format("block_size=%d", length) : "";
    return init_config(f.preset, {BYTE_VOCABULARY, BYTE_MASK, {BYTE_IM_END, BYTE_END_OF_TEXT}},
                       block.empty() ? std::vector<std::string>{} : std::vector{block});
}

// The longest prompt of a split in tokens: of every problem of a data file, of a thousand generated ones at least.
int longest_prompt(const Task& task, Split split, const TextCodec& codec) {
    int longest = 0;
    const int64_t size = split == Split::Train ? task.train_size : task.held_out_size;
    for (int64_t i = 0; i < (size ? size : std::max<int64_t>(task.pass, 1000)); i++)
        longest = std::max(longest, int(codec.encode_prompt(task.problem(split, i).prompt).size()));
    return longest;
}

// The longest block of the run: what rollouts begin with, or what updates and later rollouts are made in.
int longest_block(const RunFlags& f, const GenerateOptions& rollout) {
    return std::max(f.run.train_block, rollout.block);
}

// With which prompt: the longest of the run, as far as it is known.
std::string with_prompt(std::optional<int> prompt) {
    return prompt ? format("a prompt of %d tokens", *prompt) : "any prompt";
}

// block: the rollout's.
void check_train_block(const RunFlags& f, int block, bool full_attention) {
    const int train = f.run.train_block;
    if (train && full_attention)
        fail(Exit::Usage, "--train-block %d: a full-attention model is not trained in blocks", train);
    if (train && train % block)
        fail(Exit::Usage, "--train-block %d: must be a multiple of the rollout's block length, %d", train,
             block);
    // Equal ones are fine: a run that is resumed after the switch begins with the enlarged blocks.
    if (f.run.enlarge_at && train < block)
        fail(Exit::Usage, "--enlarge-at %lld: needs --train-block, longer than the rollout's %d",
             (long long)f.run.enlarge_at, block);
}

void check_positions(const RunFlags& f, const ModelConfig& config, const GenerateOptions& rollout,
                     std::optional<int> prompt) {
    const int block = config.full_attention ? 1 : longest_block(f, rollout);
    const int64_t length = int64_t(prompt.value_or(0)) + rollout.gen_length;
    const int64_t positions = (length + block - 1) / block * block;
    if (positions > config.max_positions)
        fail(Exit::Usage, "--gen-length %d: with %s%s it takes %lld positions, the model has %d",
             rollout.gen_length, with_prompt(prompt).c_str(),
             config.full_attention ? "" : format(" and blocks of %d", block).c_str(), (long long)positions,
             config.max_positions);
}

// A data file's problems are of two splits, either of which may be empty.
void check_is_trained(const Task& task) {
    if (task.held_out_size && !task.train_size)
        fail(Exit::Usage, "--task %s: all problems are held out, none is left to train on; lower held_out",
             task.name.c_str());
}

void check_is_held_out(const Task& task) {
    if (task.train_size && !task.held_out_size)
        fail(Exit::Usage,
             "%s: no problem is held out for evaluation; raise held_out, or name another --eval-task",
             task.name.c_str());
}

EngineLimits engine_limits(const RunFlags& f, const ModelConfig& config, GenerateOptions rollout,
                           int prompt) {
    if (!config.full_attention) rollout.block = longest_block(f, rollout);
    const Footprint need = footprint(prompt, rollout, config);
    const int sequences = std::min(f.max_active, std::max(f.run.rl.tasks * f.run.rl.responses,
                                                          f.run.eval_problems * f.run.eval_samples));
    EngineLimits limits;
    limits.max_active = sequences;
    limits.max_rows = sequences * need.rows + need.shared_slots;
    limits.kv_slots = sequences * (need.own_slots + need.shared_slots);
    return limits;
}

int64_t ceil_div(int64_t n, int64_t d) { return (n + d - 1) / d; }

// Tokens of the longest response that have to be in one pass, whatever was revealed when: under full attention a copy of it,
// else its clean text and, of every block, one copy per (merged) reveal step or per random mask.
int64_t largest_response(const RunFlags& f, const RlOptions& rl, const ModelConfig& config,
                         const GenerateOptions& rollout, int prompt) {
    const int64_t n = rollout.gen_length;
    if (config.full_attention) return prompt + n;
    const int64_t block = longest_block(f, rollout), blocks = ceil_div(n - 1, block) + 1;
    const int64_t masks = rl.masks.m * (rl.kind == RlObjective::Coupled ? 2 : 1) * blocks;
    const int64_t steps = std::min(ceil_div(block, rl.shrink) * blocks, n + block);
    const int64_t warm_start = f.run.sft.steps ? blocks : 0;
    const int64_t copies = std::max(rl.kind == RlObjective::TraceRl ? steps : masks, warm_start);
    return copies * block + prompt + n + block;
}

// What is never cut must fit into one pass.
MicroBatchLimits micro_batch_limits(const RunFlags& f, const RlOptions& rl, const ModelConfig& config,
                                    const GenerateOptions& rollout, std::optional<int> prompt) {
    constexpr int64_t CHEAP_TOKENS = 4096, MOST_TOKENS = 1 << 24;
    const int64_t worst = largest_response(f, rl, config, rollout, prompt.value_or(0)),
                  budget = f.token_budget ? f.token_budget : MOST_TOKENS;
    if (budget < worst)
        fail(Exit::Usage,
             "--token-budget %lld: a response of --gen-length %d to %s can take %lld tokens in training; "
             "raise "
             "the one or lower the other",
             (long long)budget, rollout.gen_length, with_prompt(prompt).c_str(), (long long)worst);
    const int tokens = f.token_budget ? f.token_budget : int(std::max(worst, CHEAP_TOKENS));
    return {tokens, tokens};
}

void print_plan(const TracerlPlan& plan, const MemoryPlan& memory, Ops& ops, bool has_value_model,
                bool json) {
    const RunFlags& f = plan.request.flags;
    const TraceRlOptions& o = f.run.rl;
    const int block = plan.config.full_attention ? 0 : o.rollout.block;
    const StepCost cost = step_cost(plan.config, o, plan.longest_prompt, block, has_value_model);
    const double flop_rate = f.memory.device_memory > 0 ? 0 : measured_flop_rate(ops, plan.config);
    if (json) {
        Json out = memory.json();
        out["parameters"] = plan.config.n_parameters();
        out["step"] = step_plan_json(cost, flop_rate);
        printf("%s\n", dump(out).c_str());
        return;
    }
    printf("policy, %.2f million parameters\n", double(plan.config.n_parameters()) / 1e6);
    memory.print(stdout);
    print_step_plan(stdout, cost, o, plan.longest_prompt, flop_rate);
}

// The run's options as far as they follow from others.
void settle(RunFlags& f, const TracerlRequest& r, const Common& common, const GenerateOptions& rollout) {
    f.run.progress = progress_style(common.progress);
    f.run.sft.seed = f.run.rl.seed = common.seed;
    f.run.sft.canvas = rollout.gen_length;
    f.run.value_from_policy = r.value_model == "init";
    f.run.rl.rollout = rollout;
    f.run.rl.rl = r.rl;
    if (f.run.rl.rl.loss.norm_length == 0) f.run.rl.rl.loss.norm_length = rollout.gen_length;
    f.run.sft_optimizer.total_steps = f.run.sft.steps;
    f.run.optimizer.total_steps = f.run.value_optimizer.total_steps =
        f.run.steps * f.run.rl.epochs * f.run.rl.mini_batches;
}

// The value model sees the policy's token ids, in the policy's layout.
void check_value_model(const ModelConfig& value, const ModelConfig& policy, const std::string& folder) {
    if (value.V != policy.V)
        fail(Exit::Usage,
             "--value-model %s: has a vocabulary of %d, the policy one of %d; it must be the same",
             folder.c_str(), value.V, policy.V);
    if (value.full_attention != policy.full_attention || value.mask_id != policy.mask_id)
        fail(
            Exit::Usage,
            "--value-model %s: is of another kind than the policy (%s, mask id %d; %s, mask id %d); `convert "
            "value-init` makes one that fits",
            folder.c_str(), name_of(value.family), value.mask_id, name_of(policy.family), policy.mask_id);
}

}  // namespace

TracerlPlan plan_tracerl(TracerlRequest request, const Common& common, Faults& faults) {
    TracerlPlan plan;
    plan.request = std::move(request);
    const TracerlRequest& r = plan.request;
    RunFlags& f = plan.request.flags;
    faults.attempt([&] { RunFolder::check_free(f.out, f.name); });
    const bool has_folder = f.resume.empty() || faults.attempt([&] {
        plan.folder.emplace(RunFolder::open(f.resume, "train_tracerl"));
    });
    plan.policy_folder = plan.folder ? plan.folder->latest() : r.model;
    if (plan.folder && !r.value_model.empty())
        plan.value_folder = plan.policy_folder + "/value_model";
    else if (r.value_model != "init")
        plan.value_folder = r.value_model;

    const bool made = plan.policy_folder.empty();
    const bool has_config = has_folder && faults.attempt([&] {
        plan.config = made ? made_config(f) : read_model_config(plan.policy_folder);
    });
    if (has_folder && !r.value_model.empty())
        faults.attempt([&] {
            if (plan.folder && !folder_exists(plan.value_folder))
                fail(Exit::Usage,
                     "--value-model %s: the run of --resume has none and cannot get one; begin another with "
                     "--model %s",
                     r.value_model.c_str(), plan.policy_folder.c_str());
            if (!plan.value_folder.empty())
                plan.value_config = read_model_config(plan.value_folder);
            else if (has_config)
                plan.value_config = plan.config;
            if (has_config) check_value_model(*plan.value_config, plan.config, plan.value_folder);
        });
    const bool has_text = has_config && faults.attempt([&] {
        plan.text = std::make_unique<TextModel>(load_text_model(
            made ? "bytes" : f.text.tokenizer, f.text.chat_template, plan.policy_folder, plan.config));
        plan.codec = make_codec(*plan.text, prompt_template(f.prompt_template), f.text.thinking);
    });

    const bool has_task = faults.attempt([&] {
        plan.task = make_tasks(f.task, common.seed);
        check_is_trained(plan.task);
    });
    const bool has_eval_task = faults.attempt([&] {
        if (!f.eval_task.empty()) plan.other_eval_task = make_tasks(f.eval_task, common.seed);
        if (has_task || plan.other_eval_task) check_is_held_out(plan.eval_task());
    });
    std::optional<int> prompt;
    if (has_text && has_task && has_eval_task)
        faults.attempt([&] {
            plan.longest_prompt = std::max(longest_prompt(plan.task, Split::Train, plan.codec),
                                           longest_prompt(plan.eval_task(), Split::HeldOut, plan.codec));
            prompt = plan.longest_prompt;
        });

    GenerateOptions rollout = f.decoding.options;
    const bool has_rollout = has_config && faults.attempt([&] {
        rollout =
            f.decoding.resolve(plan.config, plan.text ? plan.text->eos_ids : std::vector<int>(), common.seed);
        settle(f, r, common, rollout);
    });
    if (!has_rollout && rollout.block == 0 && has_config) rollout.block = plan.config.B;
    const bool has_blocks = rollout.block > 0 && faults.attempt([&] {
        check_train_block(f, rollout.block, has_config && plan.config.full_attention);
    });
    if (has_rollout && has_blocks &&
        faults.attempt([&] { check_positions(f, plan.config, rollout, prompt); }))
        faults.attempt([&] { plan.limits = micro_batch_limits(f, r.rl, plan.config, rollout, prompt); });
    return plan;
}

Exit run_tracerl(Ops& ops, TracerlPlan& plan, const Common& common, const std::string& config_toml) {
    RunFlags& f = plan.request.flags;
    const ModelConfig& config = plan.config;
    const Task& task = plan.task;
    const GenerateOptions& rollout = f.run.rl.rollout;
    std::optional<RunFolder>& folder = plan.folder;
    const bool resumed = folder.has_value();

    const int block = config.full_attention ? 0 : rollout.block;
    SharedMemory turns(ops);  // rollout and updates never want their activations at the same time
    const LearnerMemory memory = {training_dtype(common.dtype, ops), f.memory.moments, &turns};
    Learner policy(ops, config, Head::Policy, block, plan.limits, f.run.sft_optimizer, memory);
    std::optional<Learner> value;
    if (plan.value_config)
        value.emplace(ops, *plan.value_config, Head::Value, block, plan.limits, f.run.value_optimizer,
                      memory);
    Arena engine_arena("rollout", turns);
    Engine engine(ops, policy.config, policy.weights, engine_limits(f, config, rollout, plan.longest_prompt),
                  plan.text->n_ids, engine_arena);
    std::vector<std::pair<std::string, Learner*>> learners = {{"policy", &policy}};
    if (value) learners.push_back({"value model", &*value});
    const MemoryPlan needs = plan_memory(learners, &engine_arena, f.memory.recompute, ops.available());
    if (common.dry_run) print_plan(plan, needs, ops, value.has_value(), common.json);
    needs.check();
    if (common.dry_run) return Exit::Ok;
    turns.reserve(needs.block_bytes());
    engine_arena.allocate();
    for (const auto& [name, learner] : learners) learner->allocate();
    if (plan.policy_folder.empty())
        policy.initialize(common.seed);
    else
        policy.load(open_model_folder(plan.policy_folder, Head::Policy));
    if (!plan.value_folder.empty()) value->load(open_model_folder(plan.value_folder, Head::Value));

    if (!folder) folder.emplace(RunFolder::create(f.out, f.name, config_toml));
    log_to_file(folder->file("main.log"));
    survive_broken_pipes();
    log_info(
        "run folder %s; %s, %.2fM parameters, block %d, task %s", folder->path().c_str(),
        plan.policy_folder.empty() ? ("a new " + f.preset + " model").c_str() : plan.policy_folder.c_str(),
        double(config.n_parameters()) / 1e6, rollout.block_length(), task.name.c_str());
    std::optional<TraceRlRun> run;
    const auto save = [&](const std::string& path) {
        // The tokenizer travels along: from --model, or after a resume from the newest checkpoint (the one resumed from may be gone).
        const std::string companions = resumed ? folder->latest() : plan.policy_folder;
        ModelConfig saved =
            policy.config;  // says what it is generated with by now: enlarged blocks are the model's own
        if (!saved.full_attention) saved.B = run->rollout_block();
        save_model_folder(path, policy.master(), saved, companions, DType::F32, ops);
        if (plan.policy_folder.empty()) save_byte_tokenizer(path);
        if (!value) return;
        make_folders(path + "/value_model");
        save_model_folder(path + "/value_model", value->master(), value->config, "", DType::F32, ops);
    };
    run.emplace(f.run, policy, value ? &*value : nullptr, engine, plan.codec, task, plan.eval_task(), *folder,
                save);
    if (resumed) {
        run->resume(plan.policy_folder);
        folder->set_options(config_toml);
    }
    if (!run->run([] { return interrupted(); })) {
        log_info("stopped and saved; go on with: ./train_tracerl --resume %s",
                 shell_word(folder->path()).c_str());
        return interrupt_code();
    }
    if (ops.on_host())
        log_info("memory: %.1f MiB at most, %.1f MiB planned", double(peak_host_memory()) / (1 << 20),
                 double(needs.total()) / (1 << 20));
    if (common.json) {
        for (const Json& evaluation : run->evaluations()) printf("%s\n", dump(evaluation).c_str());
        return Exit::Ok;
    }
    printf("%s\nTry it: ./infer --model %s --block %d --prompt %s\n", run->summary().c_str(),
           shell_word(folder->latest()).c_str(), run->final_block(),
           shell_word(plan.eval_task().problem(Split::HeldOut, 0).prompt).c_str());
    return Exit::Ok;
}
