// train_tracerl.cpp -- the `train_tracerl` program: reinforcement learning on reveal traces.
#include "kernels/device_select.h"
#include "train/options.h"
#include "train/replay.h"
#include "utils/json.h"

namespace {

struct TracerlOptions {
    std::string model, value_model;
    int block = 0, gen_length = 256, token_budget = 0;
    RlFlags rl;
    ReplayFlags replay;

    void declare(Options& flags) {
        flags.section("Model");
        flags.add("--model DIR", &model, "a Hugging Face folder");
        flags.add("--value-model DIR", &value_model,
                  "a value model's folder; none: advantages come from groups alone");
        flags.add("--block B", &block, "diffusion block length; 0: the model's own").range(0, 1 << 12);
        flags.add("--gen-length N", &gen_length, "longest response, in tokens").range(1, 1 << 24);
        flags.add("--token-budget N", &token_budget, "tokens of one forward pass in training; 0: what suits")
            .range(0, 1 << 24);
        rl.declare(flags);
        replay.declare(flags, true);
        flags.check([this](Faults& faults) {
            if (!replay.dump_value_grads.empty() && value_model.empty())
                faults.add("--dump-value-grads: needs --value-model");
            if (!value_model.empty() && rl.options.kind != RlObjective::TraceRl)
                faults.add("--value-model: goes with --objective tracerl only");
        });
    }
};

}  // namespace

int main(int argc, char** argv) {
    Common common;
    TracerlOptions o;
    return run_main(
        argc, argv,
        "Reinforcement learning of diffusion language models on their own reveal traces (TraceRL).", common,
        [&](Options& flags) { o.declare(flags); },
        [&](const Options&) {
            const std::unique_ptr<Ops> ops = make_ops(common.device);
            ReplayRequest request = {.model = o.model,
                                     .value_model = o.value_model,
                                     .file = o.replay.file,
                                     .dump_grads = o.replay.dump_grads,
                                     .dump_value_grads = o.replay.dump_value_grads,
                                     .block = o.block,
                                     .token_budget = o.token_budget,
                                     .dry_run = common.dry_run,
                                     .rl = o.rl.options};
            if (request.rl.loss.norm_length == 0) request.rl.loss.norm_length = o.gen_length;
            const Json result = replay_tracerl(*ops, request);
            if (!result.empty()) printf("%s\n", dump(result).c_str());
            return Exit::Ok;
        });
}
