// train_sft.cpp -- the `train_sft` program: supervised fine-tuning.
#include "train/replay.h"
#include "train/resume.h"
#include "train/sft_program.h"
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
    ResumedArguments arguments(argc, argv);
    return run_main(
        arguments.count(), arguments.values(), "Supervised fine-tuning of diffusion language models.", common,
        [&](Options& options) { flags.declare(options); },
        [&](const Options& options) {
            const std::unique_ptr<Ops> ops = training_ops(flags.memory, common);
            return flags.replay.file.empty() ? run_sft(*ops, flags, common, options.to_toml())
                                             : replay(*ops, flags, common);
        });
}
