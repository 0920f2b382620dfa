// train_sft.cpp -- the `train_sft` program: supervised fine-tuning.
#include "train/programs/replay.h"
#include "train/programs/resume.h"
#include "train/programs/sft_program.h"
#include "utils/json.h"

static Exit replay(Ops& ops, const SftFlags& f, const Common& common) {
    const ReplayRequest request = {.model = f.model,
                                   .value_model = {},
                                   .file = f.replay.file,
                                   .dump_grads = f.replay.dump_grads,
                                   .dump_value_grads = {},
                                   .block = f.block,
                                   .token_budget = f.token_budget,
                                   .dry_run = common.dry_run,
                                   .rl = {},
                                   .weights = training_dtype(common.dtype, ops),
                                   .recompute = f.memory.recompute.value_or(Recompute::None)};
    const Json result = replay_sft(ops, request);
    if (!result.empty()) printf("%s\n", dump(result).c_str());
    return Exit::Ok;
}

int main(int argc, char** argv) {
    Common common;
    SftFlags flags;
    std::optional<SftPlan> plan;  // where nothing is replayed
    ResumedArguments arguments(argc, argv, "train_sft");
    return run_main(
        arguments.count(), arguments.values(), "Supervised fine-tuning of diffusion language models.", common,
        [&](Options& options) {
            flags.declare(options);
            options.check([&](Faults& faults) {
                if (options.given("--dump-config")) return;  // and no model or data is looked at
                faults.attempt([&] { check_training_device(flags.memory, common); });
                if (flags.replay.file.empty())
                    plan.emplace(plan_sft(flags, common, options, faults));
                else if (!flags.model.empty())
                    faults.attempt([&] { read_model_config(flags.model); });
            });
        },
        [&](const Options& options) {
            const std::unique_ptr<Ops> ops = training_ops(flags.memory, common);
            return plan ? run_sft(*ops, *plan, common, options.to_toml()) : replay(*ops, flags, common);
        });
}
