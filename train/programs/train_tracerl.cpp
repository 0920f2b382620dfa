// train_tracerl.cpp -- the `train_tracerl` program: reinforcement learning on reveal traces.
#include "train/programs/replay.h"
#include "train/programs/resume.h"
#include "train/programs/tracerl_program.h"
#include "train/report/plot.h"
#include "utils/json.h"
#include "utils/log.h"
#include "weights_tools/model_folder.h"

namespace {

const char* EXAMPLES = R"(Examples:
  ./train_tracerl
      train/configs/default.toml: a small model learns to add, first from solutions, then by RL
  ./train_tracerl --config train/configs/countdown.toml --seed 1 --out runs/countdown-1
      another of those that come along, each with what it measured
  ./train_tracerl --model DIR --task questions.jsonl --value-model init
      a model of your own on a data file, with a value model
  ./train_tracerl --resume runs/countdown-1
      goes on where it was stopped, bit for bit
  ./train_tracerl --model DIR --replay records.jsonl --dump-grads grads.safetensors
      loss and gradients of given responses, nothing is trained
  ./train_tracerl plot runs/*
      one page of curves from the folders of several runs

Exit codes: 0 ok, 1 runtime failure, 2 usage, 3 bad file, 4 not enough memory, 130 and 143 interrupted, after saving.)";

struct TracerlFlags {
    std::string model, value_model;
    RlFlags rl;
    ReplayFlags replay;
    RunFlags run;
    std::optional<TracerlPlan> plan;  // where nothing is replayed

    void declare(Options& flags, const Common& common) {
        flags.section("Model");
        flags.add("--model DIR", &model, "a Hugging Face folder (default: a small model is made)");
        flags.add("--value-model DIR", &value_model,
                  "a value model's folder, `init`: one is made from the policy, or `none`: advantages come "
                  "from groups alone (none)");
        run.declare(flags);
        rl.declare(flags);
        replay.declare(flags, true);
        flags.epilog(EXAMPLES);
        flags.check([this, &flags, &common](Faults& faults) {
            const bool dumped = flags.given("--dump-config");  // what is missing may come later
            if (value_model == "none") value_model.clear();
            if (value_model.empty()) {
                flags.refuse_typed(faults, {"--dump-value-grads"}, "needs --value-model");
                flags.refuse_typed(faults,
                                   {"--gamma", "--lambda", "--value-clip", "--value-target", "--value-lr",
                                    "--value-schedule", "--value-warmup", "--value-weight-decay"},
                                   "there is no value model; add --value-model");
            }
            if (!run.resume.empty() && replay.file.empty()) {
                flags.refuse_typed(faults, {"--model"},
                                   "--resume goes on with the run's newest checkpoint; leave it out");
                flags.refuse_typed(faults, {"--name"}, "a resumed run stays in its folder; leave it out");
            }
            if (!model.empty() || !run.resume.empty())
                flags.refuse_typed(faults, {"--init"},
                                   "a model is made only where none is given; leave it out");
            else if (replay.file.empty() && !dumped)
                flags.refuse_typed(faults, {"--tokenizer", "--chat-template"},
                                   "the model that is made here speaks bytes; name one with --model");
            if (!value_model.empty() && rl.options.kind != RlObjective::TraceRl)
                faults.add("--value-model: goes with --objective tracerl only");
            if (!replay.file.empty() && model.empty() && !dumped) faults.add("--replay: needs --model");
            if (!replay.file.empty() && value_model == "init")
                faults.add("--replay: --value-model must be a folder (convert value-init makes one)");
            if (!run.out.empty() && !run.resume.empty())
                faults.add("--out and --resume: a resumed run stays in its folder");
            if (dumped) return;  // and no model or task is looked at
            faults.attempt([&] { check_training_device(run.memory, common); });
            if (replay.file.empty())
                plan.emplace(plan_tracerl({model, value_model, run, rl.options}, common, faults));
            else
                for (const std::string& folder : {model, value_model})
                    if (!folder.empty() && folder != "init")
                        faults.attempt([&] { read_model_config(folder); });
        });
    }
};

Exit replay(Ops& ops, const TracerlFlags& f, const Common& common) {
    ReplayRequest request = {.model = f.model,
                             .value_model = f.value_model,
                             .file = f.replay.file,
                             .dump_grads = f.replay.dump_grads,
                             .dump_value_grads = f.replay.dump_value_grads,
                             .block = f.run.decoding.options.block,
                             .token_budget = f.run.token_budget,
                             .dry_run = common.dry_run,
                             .rl = f.rl.options,
                             .weights = training_dtype(common.dtype, ops),
                             .recompute = f.run.memory.recompute.value_or(Recompute::None)};
    if (request.rl.loss.norm_length == 0) request.rl.loss.norm_length = f.run.decoding.options.gen_length;
    const Json result = replay_tracerl(ops, request);
    if (!result.empty()) printf("%s\n", dump(result).c_str());
    return Exit::Ok;
}

}  // namespace

int main(int argc, char** argv) {
    if (argc > 1 && std::string(argv[1]) == "plot") {
        std::string name = std::string(argv[0]) + " plot";
        argv[1] = name.data();
        return plot_main(argc - 1, argv + 1);
    }
    Common common;
    TracerlFlags f;
    ResumedArguments arguments(argc, argv, "train_tracerl", "train/configs/default.toml");
    return run_main(
        arguments.count(), arguments.values(),
        "Reinforcement learning of diffusion language models on their own reveal traces (TraceRL).", common,
        [&](Options& flags) { f.declare(flags, common); },
        [&](const Options& flags) {
            std::string note;
            const std::unique_ptr<Ops> ops = training_ops(f.run.memory, common, &note);
            if (!note.empty() && f.replay.file.empty()) log_info("%s", note.c_str());
            if (!f.replay.file.empty()) return replay(*ops, f, common);
            return run_tracerl(*ops, *f.plan, common, flags.to_toml());
        });
}
