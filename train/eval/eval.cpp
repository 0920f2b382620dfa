// eval.cpp -- the `eval` program: how right a model is on a task, and how fast it gets there.
#include "train/eval/eval_program.h"

int main(int argc, char** argv) {
    Common common;
    EvalFlags flags;
    EvalPlan plan;
    return run_main(
        argc, argv,
        "Scores models on a task or a data file: generated answers, likelihoods of given ones, multiple "
        "choice.",
        common,
        [&](Options& options) {
            flags.declare(options);
            options.check([&](Faults& faults) {
                if (options.given("--dump-config")) return;  // and no model or task is looked at
                plan = plan_eval(flags, common, options, faults);
            });
        },
        [&](const Options&) { return run_eval(plan, common); });
}
