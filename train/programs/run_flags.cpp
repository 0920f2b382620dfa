#include "train/programs/run_flags.h"

#include <algorithm>
#include <cstdio>

#include "train/tasks/prompt_template.h"

std::vector<TraceRlRunOptions::Limit> parse_length_schedule(const std::string& text, int gen_length) {
    std::vector<TraceRlRunOptions::Limit> out;
    for (size_t at = 0; at < text.size();) {
        const size_t end = std::min(text.find(',', at), text.size());
        const std::string entry = text.substr(at, end - at);
        long long step = 0;
        int length = 0, used = 0;
        if (sscanf(entry.c_str(), "%lld:%d%n", &step, &length, &used) != 2 || size_t(used) != entry.size() ||
            step < 0)
            fail(Exit::Usage, "--length-schedule: '%s' is not STEP:N (such as 0:256,50:1024)", entry.c_str());
        if (length < 1 || length > gen_length)
            fail(Exit::Usage, "--length-schedule %s: the length must be from 1 to --gen-length, which is %d",
                 entry.c_str(), gen_length);
        if (!out.empty() && step <= out.back().step)
            fail(Exit::Usage, "--length-schedule %s: steps must rise", entry.c_str());
        out.push_back({step, length});
        at = end + 1;
    }
    return out;
}

RunFlags::RunFlags() {
    run.rl.max_resample = 3;
    decoding.options.temperature = 1;
    run.sft_optimizer.lr = 1e-3;
    run.value_optimizer.lr = 5e-6;
}

void RunFlags::declare(Options& f) {
    f.section("Model and task");
    f.add("--init PRESET", &preset, "shape of the byte-level model that is made where there is no --model")
        .choices({"tiny", "mini", "small"});
    text.declare(f);
    f.add("--prompt-template NAME", &prompt_template, "the words around a problem")
        .choices(prompt_template_names());
    f.add("--task SPEC[@WEIGHT]", &task,
          "arithmetic, countdown, sudoku4, external, with options as NAME:key=value,..., or a data file; "
          "several, each with a weight, are mixed");
    f.section("Warm start: SFT on the task's own solutions");
    f.add("--sft-steps N", &run.sft.steps, "steps at most; 0: none").range(0, 1e9);
    f.add("--sft-batch N", &run.sft.batch, "solutions per step").range(1, 1e6);
    f.add("--sft-pad-tokens N", &run.sft.pad_tokens, "end tokens trained after a solution").range(0, 4096);
    f.add("--sft-until ACCURACY", &run.sft_until, "ends early at this dynamic accuracy").range(0, 1);
    f.add("--sft-eval-every N", &run.sft_eval_every, "steps between measurements of it; 0: never")
        .range(0, 1e9);
    f.add("--sft-eval-problems N", &run.sft_eval_problems, "problems of such a measurement").range(1, 1e6);
    f.add("--sft-mask-low T", &run.sft.masks.low, "noise levels are uniform between this").range(0, 1);
    f.add("--sft-mask-high T", &run.sft.masks.high, "and this").range(0, 1);
    declare_optimizer(f, run.sft_optimizer, "sft-");
    decoding.declare(f);
    f.section("Rollout");
    f.add("--tasks N", &run.rl.tasks, "problems per step").range(1, 1e6);
    f.add("--responses,--group-size G", &run.rl.responses, "responses to each").range(2, 1e6);
    f.add("--max-resample N", &run.rl.max_resample,
          "so often a step draws other problems where no group is kept, before it goes on without")
        .range(0, 1000);
    f.add("--length-schedule STEP:N,...", &length_schedule,
          "from RL step STEP on a response has at most N tokens, --gen-length at most: a curriculum for long "
          "answers");
    f.add("--max-active N", &max_active, "sequences in flight at once").range(1, 1 << 16);
    declare_optimizer(f, run.optimizer, "");
    declare_optimizer(f, run.value_optimizer, "value-");
    f.section("Update");
    f.add("--total-steps N", &run.steps, "steps of reinforcement learning").range(0, 1e9);
    f.add("--epochs N", &run.rl.epochs, "passes over a step's responses").range(1, 1000);
    f.add("--mini-batches N", &run.rl.mini_batches, "updates per pass, at most one per response")
        .range(1, 1e6);
    f.add("--token-budget N", &token_budget, "tokens of one forward pass in training; 0: what suits")
        .range(0, 1 << 24);
    f.add_choice("--overlong RULE", &run.rl.overlong,
                 {{"zero", Overlong::Zero}, {"keep", Overlong::Keep}, {"mask", Overlong::Mask}},
                 "a response that met --gen-length is wrong, judged like any other, or left out");
    f.add("--train-block B", &run.train_block,
          "block enlargement: RL's updates are made in blocks of B, a multiple of --block (0: in the "
          "rollout's)")
        .range(0, 4096);
    f.add("--enlarge-at N", &run.enlarge_at,
          "from RL step N on rollouts are made in blocks of --train-block, too; 0: never")
        .range(0, 1e9);
    f.add("--reset-optimizer-each-step", &run.reset_optimizer_each_step,
          "as the reference code: moments start at zero in every step");
    memory.declare(f);
    f.section("Evaluation and records");
    f.add("--eval-task SPEC[@WEIGHT]", &eval_task,
          "whose held-out problems an evaluation takes, such as MATH500.json:held_out=1 (default: --task's)");
    f.add("--eval-problems N", &run.eval_problems, "held-out problems of an evaluation").range(1, 1e6);
    f.add("--eval-samples N", &run.eval_samples, "responses to each; figures are means over all")
        .range(1, 1000);
    f.add("--eval-temperature T", &run.eval_temperature, "of these; 0 is greedy, else 1e-6 or more")
        .range(0, 100);
    f.add("--eval-every N", &run.eval_every, "steps between evaluations; 0: before and after only")
        .range(0, 1e9);
    f.add("--save-every N", &run.save_every, "steps between checkpoints; 0: at the end only").range(0, 1e9);
    f.add("--keep N", &run.keep, "checkpoints that are kept; 0: all").range(0, 1e6);
    f.add("--samples-every N", &run.samples_every,
          "steps between files of samples/, some 30 bytes per generated token; 0: none but of evaluations")
        .range(0, 1e9);
    f.add("--keep-samples N", &run.keep_samples, "files of steps in samples/ that are kept; 0: all")
        .range(0, 1e6);
    f.add("--name NAME", &name, "of the run's folder, runs/NAME-DATE");
    f.add("--out RUN", &out, "the run's folder").not_in_config();
    f.add("--resume RUN", &resume, "goes on with a run that was stopped").not_in_config();
    f.check([this, &f](Faults& faults) {
        if (run.eval_samples > 1 && run.eval_temperature == 0)
            faults.add("--eval-samples %d: at --eval-temperature 0 all samples are the same",
                       run.eval_samples);
        if (const std::string wrong = temperature_fault("--eval-temperature", run.eval_temperature);
            !wrong.empty())
            faults.add("%s", wrong.c_str());
        faults.attempt([&] {
            run.length_schedule = parse_length_schedule(length_schedule, decoding.options.gen_length);
        });
        const int64_t responses = int64_t(run.rl.tasks) * run.rl.responses;
        if (run.rl.mini_batches > responses)
            faults.add("--mini-batches %d: a step has %d x %d = %lld responses to share out; at most so many",
                       run.rl.mini_batches, run.rl.tasks, run.rl.responses, (long long)responses);
        if (decoding.options.cfg_scale > 0)
            faults.add(
                "--cfg-scale %g: log-probabilities of a guided response are not the model's own, which "
                "training "
                "compares with; leave it out",
                double(decoding.options.cfg_scale));
        if (run.steps > 0 && decoding.is_greedy(f))
            faults.add(
                "at --temperature 0 or --top-k 1 the responses to a problem would all be the same, with "
                "nothing to "
                "compare; raise them");
        decoding.refuse_idle_rule(f, false, faults);
        if (run.enlarge_at > run.steps)
            f.refuse_typed(faults, {"--enlarge-at"},
                           format("the run ends at --total-steps %lld, before step %lld",
                                  (long long)run.steps, (long long)run.enlarge_at),
                           "--total-steps");
        if (run.sft.steps == 0)
            f.refuse_typed(faults,
                           {"--sft-batch", "--sft-pad-tokens", "--sft-until", "--sft-eval-every",
                            "--sft-eval-problems", "--sft-mask-low", "--sft-mask-high", "--sft-lr"},
                           "there is no warm start; add --sft-steps", "--sft-steps");
        else if (run.sft_eval_every == 0)
            f.refuse_typed(faults, {"--sft-until", "--sft-eval-problems"},
                           "the accuracy is never measured; raise --sft-eval-every", "--sft-eval-every");
        if (run.sft.masks.low > run.sft.masks.high)
            faults.add("--sft-mask-low %g is above --sft-mask-high %g", run.sft.masks.low,
                       run.sft.masks.high);
        if (!out.empty()) f.refuse_typed(faults, {"--name"}, "--out names the run's folder; leave one out");
    });
}
