// train_sft.cpp -- the `train_sft` program: supervised fine-tuning.
#include "train/options.h"
#include "train/replay.h"

namespace {

struct SftOptions {
    std::string model;
    int block = 0;
    ReplayFlags replay;

    void declare(Options& flags) {
        flags.section("Model");
        flags.add("--model DIR", &model, "a Hugging Face folder");
        flags.add("--block B", &block, "diffusion block length; 0: the model's own").range(0, 1 << 12);
        replay.declare(flags, false);
    }
};

}  // namespace

int main(int argc, char** argv) {
    Common common;
    SftOptions o;
    return run_main(
        argc, argv, "Supervised fine-tuning of diffusion language models.", common,
        [&](Options& flags) { o.declare(flags); },
        [&](const Options&) {
            const std::unique_ptr<Ops> ops = make_cpu_ops();
            const ReplayRequest request = {.model = o.model,
                                           .value_model = {},
                                           .file = o.replay.file,
                                           .dump_grads = o.replay.dump_grads,
                                           .dump_value_grads = {},
                                           .block = o.block,
                                           .micro_batch_tokens = o.replay.micro_batch_tokens,
                                           .dry_run = common.dry_run,
                                           .rl = {}};
            const Json result = replay_sft(*ops, request);
            if (!result.empty()) printf("%s\n", dump(result).c_str());
            return Exit::Ok;
        });
}
