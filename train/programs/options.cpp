#include "train/programs/options.h"

#include <cmath>
#include <cstdlib>

#include "utils/files.h"

KeepBand parse_keep_accuracy(const std::string& text) {
    if (text == "all") return {.all = true};
    KeepBand keep;
    char* end = nullptr;
    keep.low = std::strtod(text.c_str(), &end);
    const bool comma = end != text.c_str() && *end == ',';
    const char* second = end + 1;
    if (comma) keep.high = std::strtod(second, &end);
    if (!comma || end == second || *end || !(keep.low <= keep.high) || !std::isfinite(keep.low) ||
        !std::isfinite(keep.high))
        fail(Exit::Usage, "--keep-accuracy: '%s' is neither LO,HI with LO <= HI (such as 0.2,0.8) nor 'all'",
             text.c_str());
    return keep;
}

void RlFlags::declare(Options& flags) {
    RlOptions& o = options;
    flags.section("Objective");
    flags.add_choice("--objective NAME", &o.kind,
                     {{"tracerl", RlObjective::TraceRl},
                      {"random-masking", RlObjective::RandomMasking},
                      {"coupled", RlObjective::Coupled}},
                     "which states of a response are trained: those it was sampled from, random masks, or "
                     "masks with their complements");
    flags.add_choice("--loss-norm NAME", &o.loss.loss_norm,
                     {{"step", LossNorm::Step},
                      {"sequence", LossNorm::Sequence},
                      {"token", LossNorm::Token},
                      {"constant", LossNorm::Constant}},
                     "what a token's loss is divided by: tokens of its step, of its response, of the update, "
                     "or --norm-length");
    flags
        .add("--norm-length N", &o.loss.norm_length,
             "divisor of --loss-norm constant; 0: the generation limit")
        .range(0, 1e9);
    flags.add("--kl-beta X", &o.loss.kl_beta, "weight of the k3 divergence from the old policy")
        .range(0, 1e6);
    flags.add("--clip-low X", &o.loss.clip_low, "ratios are clipped below 1 - X").range(0, 1);
    flags.add("--clip-high X", &o.loss.clip_high, "ratios are clipped above 1 + X").range(0, 1e6);
    flags.add("--shrink S", &o.shrink, "so many neighbouring reveal steps of a block are merged")
        .range(1, 1 << 20);
    flags.add("--keep-accuracy LO,HI|all", &keep_accuracy, "groups whose mean reward is outside are dropped");
    flags.add("--masks M", &o.masks.m, "random masks per response (random-masking, coupled)")
        .range(1, 1 << 16);
    flags.add("--mask-low X", &o.masks.low, "smallest share of tokens that are masked").range(0, 1);
    flags.add("--mask-high X", &o.masks.high, "largest share").range(0, 1);
    flags.add_choice("--mask-ratio-per WHAT", &o.masks.per_token, {{"block", false}, {"token", true}},
                     "draw the share once per block (per copy under full attention) or for every token");
    flags.section("Value model");
    flags.add("--gamma X", &o.loss.gamma, "discount per reveal step").range(0, 1);
    flags.add("--lambda X", &o.loss.lambda, "of generalised advantage estimation").range(0, 1);
    flags.add("--value-clip X", &o.loss.value_clip, "values are clipped to the old ones +- X in the loss")
        .range(0, 1e6);
    flags.add_choice("--value-target NAME", &o.value_target,
                     {{"zscore", ValueTarget::ZScore}, {"raw", ValueTarget::Raw}},
                     "what a reward is for the value model: standardised in its group, or as it is");
    flags.check([this, &flags](Faults& faults) {
        faults.attempt([&] { options.keep = parse_keep_accuracy(keep_accuracy); });
        if (options.masks.low > options.masks.high)
            faults.add("--mask-low %g is above --mask-high %g", options.masks.low, options.masks.high);
        if (options.loss.loss_norm != LossNorm::Constant)
            flags.refuse_typed(faults, {"--norm-length"}, "is the divisor of --loss-norm constant; add that",
                               "--loss-norm");
        if (options.kind == RlObjective::TraceRl)
            flags.refuse_typed(
                faults, {"--masks", "--mask-low", "--mask-high", "--mask-ratio-per"},
                "masks are drawn with --objective random-masking and coupled only; leave it out",
                "--objective");
        else
            flags.refuse_typed(faults, {"--shrink"}, "merges steps of --objective tracerl; leave it out",
                               "--objective");
    });
}

void declare_optimizer(Options& flags, OptimizerOptions& o, const std::string& prefix) {
    flags.section(prefix == "value-" ? "Optimizer of the value model"
                  : prefix == "sft-" ? "Optimizer of the warm start"
                                     : "Optimizer");
    const auto name = [&](const char* rest) { return "--" + prefix + rest; };
    flags.add(name("lr X"), &o.lr, "learning rate").range(0, 1e3);
    flags.add_choice(name("schedule NAME"), &o.schedule,
                     {{"constant", Schedule::Constant}, {"cosine", Schedule::Cosine}},
                     "how the learning rate goes on after the warm-up");
    flags.add(name("warmup N"), &o.warmup_steps, "updates over which it rises to --lr").range(0, 1e12);
    flags.add(name("min-lr-ratio X"), &o.min_lr_ratio, "the cosine's floor, as a part of --lr").range(0, 1);
    // In fp32 a beta is to stay below 1 and eps above 0: a moment that is zero would give 0 / 0.
    flags.add(name("beta1 X"), &o.beta1, "AdamW").range(0, 0.9999999);
    flags.add(name("beta2 X"), &o.beta2, "AdamW").range(0, 0.9999999);
    flags.add(name("adam-eps X"), &o.eps, "AdamW").range(1e-30, 1);
    flags.add(name("weight-decay X"), &o.weight_decay, "decoupled; not of norms and biases").range(0, 1e3);
    flags.add(name("max-grad-norm X"), &o.max_grad_norm, "gradients are scaled down to this norm; 0: never")
        .range(0, 1e9);
    flags.check([&flags, &o, floor = name("min-lr-ratio"), schedule = name("schedule")](Faults& faults) {
        if (o.schedule == Schedule::Constant)
            flags.refuse_typed(faults, {floor}, "is the floor of " + schedule + " cosine; add that",
                               schedule);
    });
}

void declare_sft_masks(Options& flags, SftMaskOptions& o) {
    flags.section("Method");
    flags.add_choice("--method NAME", &o.method,
                     {{"semi-ar", SftMethod::SemiAr},
                      {"random-mask", SftMethod::RandomMask},
                      {"trace", SftMethod::Trace},
                      {"ar", SftMethod::Ar}},
                     "the states an example is trained from: a noise level per block, one for the sequence, "
                     "its step_map's, or next token");
    flags.add("--mask-low X", &o.low, "smallest noise level").range(0, 1);
    flags.add("--mask-high X", &o.high, "largest noise level").range(0, 1);
    flags.add("--weight-by-level", &o.weight_by_level,
              "weigh a copy by 1 / its noise level, the diffusion bound");
    flags.add("--complementary", &o.complementary, "train every copy's complement too");
    flags.add("--shrink S", &o.shrink, "trace: so many neighbouring reveal steps are merged")
        .range(1, 1 << 20);
    flags
        .add("--sft-block B", &o.block,
             "semi-ar under full attention: blocks of B, counted from the end of the prompt")
        .range(1, 1 << 20);
    flags.check([&o, &flags](Faults& faults) {
        const bool noisy = o.method == SftMethod::SemiAr || o.method == SftMethod::RandomMask;
        if (!noisy)
            flags.refuse_typed(faults, {"--mask-low", "--mask-high", "--weight-by-level", "--complementary"},
                               "is for noise: --method semi-ar or random-mask; leave it out", "--method");
        if (o.method != SftMethod::Trace)
            flags.refuse_typed(faults, {"--shrink"}, "merges steps of --method trace; leave it out",
                               "--method");
        if (o.method != SftMethod::SemiAr)
            flags.refuse_typed(faults, {"--sft-block"}, "is for --method semi-ar; leave it out", "--method");
        if (!noisy) return;
        if (o.low > o.high) faults.add("--mask-low %g is above --mask-high %g", o.low, o.high);
        if (o.weight_by_level && o.low <= 0)
            faults.add("--weight-by-level divides by the noise level: --mask-low must be above 0");
        if (o.weight_by_level && o.complementary && o.high >= 1)
            faults.add(
                "--weight-by-level with --complementary divides by 1 - the noise level: --mask-high must be "
                "below 1");
    });
}

void ReplayFlags::declare(Options& flags, bool has_value_model) {
    flags.section("Replay");
    flags
        .add("--replay FILE", &file,
             "compute loss and gradients for the records of a JSONL file, print them as JSON, and stop")
        .not_in_config();
    flags.add("--dump-grads FILE", &dump_grads, "write the gradients as safetensors").not_in_config();
    if (has_value_model)
        flags.add("--dump-value-grads FILE", &dump_value_grads, "write the value model's gradients")
            .not_in_config();
    flags.check([this, &flags, has_value_model](Faults& faults) {
        if (!file.empty())
            flags.refuse_typed(
                faults, {"--resume", "--out", "--name"},
                "--replay computes loss and gradients of --model, there is no run; leave it out");
        else
            flags.refuse_typed(faults, {"--dump-grads"}, "only goes with --replay");
        if (file.empty() && has_value_model)
            flags.refuse_typed(faults, {"--dump-value-grads"}, "only goes with --replay");
        if (!file.empty()) faults.attempt([&] { check_readable(file); });
        for (const std::string& path : {dump_grads, dump_value_grads})
            if (!path.empty()) faults.attempt([&] { check_writable(path); });
        if (!dump_grads.empty() && same_place(dump_grads, dump_value_grads))
            faults.add("--dump-grads %s: --dump-value-grads would be written over it; name two files",
                       dump_grads.c_str());
    });
}
