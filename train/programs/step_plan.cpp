#include "train/programs/step_plan.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "inference/generation.h"
#include "utils/arena.h"
#include "utils/error.h"
#include "utils/json.h"
#include "utils/timer.h"

// Tokens forwarded of a canvas in all passes that do not open a block: each reveals a token, or by timesteps, which may reveal
// none, they are all that a block has.
static double later_rows(const ModelConfig& config, const GenerateOptions& o, int prompt) {
    const int length = prompt + o.gen_length;
    const bool timesteps = o.reveal_rule().schedule == RevealSchedule::Timesteps;
    double rows = 0;
    for (int lo = prompt; lo < length; lo += o.block) {
        const int hi = std::min(lo + o.block, length);
        const int passes = timesteps ? o.steps_per_block() : hi - lo;
        rows += double(passes - 1) * canvas_window(lo, hi, length, o, config.shift).rows();
    }
    return rows;
}

StepCost step_cost(const ModelConfig& config, const TraceRlOptions& o, int prompt, int train_block,
                   bool has_value_model) {
    const bool canvas = config.full_attention;
    const double L = o.rollout.gen_length, B = o.rollout.block_length(), P = prompt,
                 n = double(o.tasks) * o.responses;
    StepCost cost;
    cost.generated = n * L;
    // A pass forwards the block being denoised, and finished blocks ride along once; a canvas' first pass of a block forwards
    // all of it, the others what its cache leaves.
    const double n_blocks = std::ceil(L / B);
    cost.rollout_least = canvas ? n * n_blocks * (P + L) : o.tasks * P + n * (n_blocks * B + L);
    cost.rollout_most = canvas ? cost.rollout_least + n * later_rows(config, o.rollout, prompt)
                               : o.tasks * P + n * (L * B + L);
    // A copy of the block (or of the sequence) per reveal step, after shrinkage, beside one clean sequence.
    const double length = canvas ? P + L : train_block, blocks = canvas ? 1 : std::ceil(L / length);
    const double most = canvas ? std::ceil(L / o.rl.shrink) : std::ceil(length / o.rl.shrink);
    const double least = canvas ? std::ceil(std::ceil(L / B) / o.rl.shrink) : 1;
    const auto update = [&](double copies) {
        if (o.rl.kind != RlObjective::TraceRl)
            copies = o.rl.masks.m * (o.rl.kind == RlObjective::Coupled ? 2 : 1);
        return n * blocks * copies * length + (canvas ? 0 : o.tasks * P + n * L);
    };
    cost.update_least = update(least);
    cost.update_most = update(most);

    const double head = double(config.V) * config.C;
    const double body = double(config.n_parameters()) - head * (config.tied ? 1 : 2);
    const double networks = has_value_model ? 2 : 1;
    // Rows that the head reads: all that are masked in a pass of the rollout, every response token once in the update.
    const auto flop = [&](double rolled, double read, double updated) {
        return 2 * body * rolled + 2 * head * read +
               o.epochs * (6 * body * updated * networks + 6 * head * cost.generated);
    };
    cost.flop_least = flop(cost.rollout_least, n * L, cost.update_least);
    cost.flop_most = flop(cost.rollout_most, n * L * (canvas ? L : B) / 2, cost.update_most);
    return cost;
}

double measured_flop_rate(Ops& ops, const ModelConfig& config) {
    const int T = 256, K = std::min(config.C, 2048), N = std::min(config.F, 2048);
    Arena arena("measurement", ops);
    Tensor inp, weight, out;
    arena.add(&inp, "inp", T, K);
    arena.add(&weight, "weight", N, K);
    arena.add(&out, "out", T, N);
    arena.allocate();
    std::vector<float> ignored(size_t(T) * size_t(N));
    const auto pass = [&](int n) {
        for (int i = 0; i < n; i++) ops.linear_forward(out, inp, weight);
        ops.download(ignored.data(), out);  // waits for them
    };
    pass(1);  // wakes threads, touches memory
    Timer timer;
    int n = 0;
    for (; timer.seconds() < 0.2; n += 8) pass(8);
    return 2.0 * T * K * N * n / timer.seconds();
}

static std::string duration(double seconds) {
    if (seconds < 120) return format("%.1f s", seconds);
    if (seconds < 7200) return format("%.1f min", seconds / 60);
    if (seconds < 2 * 86400) return format("%.1f h", seconds / 3600);
    return format("%.1f days", seconds / 86400);
}

void print_step_plan(FILE* out, const StepCost& c, const TraceRlOptions& o, int prompt, double flop_rate) {
    const auto tokens = [](double n) {
        return n < 1e4   ? format("%.0f", n)
               : n < 1e7 ? format("%.0f thousand", n / 1e3)
                         : format("%.1f million", n / 1e6);
    };
    fprintf(out, "one step\n");
    fprintf(out, "  responses                %d problems x %d, each of at most %d tokens after at most %d\n",
            o.tasks, o.responses, o.rollout.gen_length, prompt);
    fprintf(out, "  tokens generated         %s at most\n", tokens(c.generated).c_str());
    fprintf(out, "  forwarded in the rollout %s to %s (a block per pass, a token per pass)\n",
            tokens(c.rollout_least).c_str(), tokens(c.rollout_most).c_str());
    fprintf(out, "  forwarded in an update   %s to %s, %d times\n", tokens(c.update_least).c_str(),
            tokens(c.update_most).c_str(), o.epochs);
    fprintf(out, "  arithmetic               %.3g to %.3g TFLOP (weights only, attention is not counted)\n",
            c.flop_least / 1e12, c.flop_most / 1e12);
    if (flop_rate == 0) return;
    fprintf(
        out,
        "  time                     %s to %s at %.1f GFLOP/s, which a matrix product reached here just now\n",
        duration(c.flop_least / flop_rate).c_str(), duration(c.flop_most / flop_rate).c_str(),
        flop_rate / 1e9);
}

Json step_plan_json(const StepCost& c, double flop_rate) {
    Json out = {{"generated_tokens_most", c.generated},
                {"rollout_tokens_least", c.rollout_least},
                {"rollout_tokens_most", c.rollout_most},
                {"update_tokens_least", c.update_least},
                {"update_tokens_most", c.update_most},
                {"flop_least", c.flop_least},
                {"flop_most", c.flop_most}};
    if (flop_rate > 0) {
        out["seconds_least"] = c.flop_least / flop_rate;
        out["seconds_most"] = c.flop_most / flop_rate;
    }
    return out;
}
