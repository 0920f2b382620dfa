#include "inference/decoding_flags.h"

#include <algorithm>

#include "kernels/reveal_block.h"

void DecodingFlags::declare(Options& flags) {
    flags.section("Decoding");
    std::string presets;
    for (const std::string& name : preset_names()) presets += (presets.empty() ? "" : ", ") + name;
    flags
        .add("--preset NAME", &preset,
             "sampling, remasking and cache as a published engine has them, where no option beside it says "
             "otherwise: " +
                 presets)
        .choices(preset_names());
    flags.add("--gen-length,--max-tokens,-n N", &options.gen_length, "output tokens, at most")
        .range(1, 1 << 24);
    flags
        .add("--block,--block-length B", &options.block,
             "tokens of a diffusion block (0: as the model was trained, 65536: the whole canvas)")
        .range(0, WHOLE_CANVAS);
    flags
        .add("--steps,--denoising-steps S", &options.steps,
             "denoising steps of a block (0: as many as it has tokens)")
        .range(0, 65536);
    flags.add_choice(
        "--remasking,--remasking-strategy,--alg RULE", &options.remasking, remasking_names(),
        "which masked tokens a step reveals (low_confidence and maskgit_plus: LLaDA's and Dream's "
        "names of low_confidence_static)");
    flags
        .add("--threshold,--confidence-threshold,--dynamic-threshold P", &options.threshold,
             "low_confidence_dynamic reveals everything more confident than this")
        .range(0, 1);
    flags
        .add("--eb-threshold NATS", &options.eb_threshold,
             "entropy_bounded reveals up to this sum of entropies")
        .range(0, MOST_NATS);
    flags
        .add("--factor F", &options.factor,
             "factor reveals the most confident tokens, the R-th as long as it has at least 1 - F / (R + 1)")
        .range(0, MOST_FACTOR);
    flags
        .add(
            "--order-temperature,--alg-temp T", &options.order_temperature,
            "above 0, low_confidence_static, topk_margin and entropy draw which tokens they reveal, from the "
            "softmax of confidence, margin or -entropy over T; 0: the best ones")
        .range(0, MOST_TEMPERATURE);
    flags.add_choice(
        "--reveal-schedule NAME", &options.schedule, schedule_names(),
        "how many tokens a step reveals: B / S, the remainder in the first steps (even) or in more steps "
        "(floor), or a share of what is masked, by a time that falls from 1 to --eps (timesteps, Dream's: "
        "full attention)");
    flags
        .add("--eps T", &options.eps,
             "where the time of --reveal-schedule timesteps and --remasking origin ends")
        .range(0, 0.999999);
    flags.add_choice("--confidence KIND", &options.confidence, confidence_names(),
                     "a token's probability after temperature, before it, or after top-k and top-p too");
    flags.add("--temperature,--temp T", &options.temperature, "0 is greedy").range(0, MOST_TEMPERATURE);
    flags.add_choice(
        "--draw KIND", &options.draw, draw_names(),
        "how a token is drawn: by one random number, or by Gumbel noise on the logit of every id (LLaDA)");
    flags
        .add("--cfg-scale W", &options.cfg_scale,
             "classifier-free guidance (full attention): logits + W * (logits - those with the prompt "
             "masked), "
             "at twice the work; 0: none")
        .range(0, MOST_GUIDANCE);
    flags.add("--top-k K", &options.top_k, "draw from the K likeliest tokens (0: all)").range(0, INT32_MAX);
    flags.add("--top-p P", &options.top_p, "draw from the likeliest tokens that make up P (1: all)")
        .range(1e-6, 1);
    flags.add_choice(
        "--cache KIND", &options.cache, cache_names(),
        "of keys and values. auto is exact for block models and none under full attention, where two are "
        "approximate: keys before a block (prefix), or before and after it (dual), stay those of the pass "
        "that opened it");
    flags
        .add("--further-horizon N", &options.further_horizon,
             "so many tokens after the block --cache prefix forwards and sees (-1: all)")
        .range(-1, 1 << 24);
    flags
        .add("--stop-ids,--stopping-criteria-idx IDS", &stop_ids,
             "end after one of these tokens instead of the model's own")
        .range(0, INT32_MAX);
    flags.add("--ignore-eos", &ignore_eos, "go on to --gen-length whatever comes");
    flags.check([this, &flags](Faults& faults) {
        // A configuration that is written names every value beside the preset, which is then no other's.
        if (flags.sound("--preset")) options = with_preset(flags);
        if (ignore_eos && !stop_ids.empty()) faults.add("--ignore-eos and --stop-ids exclude each other");
    });
}

std::vector<std::string> DecodingFlags::names() {
    return {"--preset",          "--gen-length",
            "--steps",           "--remasking",
            "--threshold",       "--eb-threshold",
            "--factor",          "--order-temperature",
            "--reveal-schedule", "--eps",
            "--confidence",      "--draw",
            "--cfg-scale",       "--temperature",
            "--top-k",           "--top-p",
            "--cache",           "--further-horizon",
            "--stop-ids",        "--ignore-eos"};
}

GenerateOptions DecodingFlags::with_preset(const Options& flags) const {
    GenerateOptions o = options;
    if (preset.empty()) return o;
    apply_preset(o, preset);
    const auto keep = [&](const char* flag, auto GenerateOptions::*field) {
        if (flags.given(flag)) o.*field = options.*field;
    };
    keep("--block", &GenerateOptions::block);
    keep("--remasking", &GenerateOptions::remasking);
    keep("--threshold", &GenerateOptions::threshold);
    keep("--eb-threshold", &GenerateOptions::eb_threshold);
    keep("--factor", &GenerateOptions::factor);
    keep("--order-temperature", &GenerateOptions::order_temperature);
    keep("--reveal-schedule", &GenerateOptions::schedule);
    keep("--eps", &GenerateOptions::eps);
    keep("--confidence", &GenerateOptions::confidence);
    keep("--draw", &GenerateOptions::draw);
    keep("--cfg-scale", &GenerateOptions::cfg_scale);
    keep("--temperature", &GenerateOptions::temperature);
    keep("--top-k", &GenerateOptions::top_k);
    keep("--top-p", &GenerateOptions::top_p);
    keep("--cache", &GenerateOptions::cache);
    keep("--further-horizon", &GenerateOptions::further_horizon);
    return o;
}

bool DecodingFlags::is_greedy(const Options& flags) const {
    const GenerateOptions o = with_preset(flags);
    for (const char* name : {"--preset", "--temperature", "--top-k", "--remasking", "--order-temperature"})
        if (!flags.sound(name)) return false;  // what was meant is not known
    return (o.temperature == 0 || o.top_k == 1) && !has_random_order(o.reveal_rule());
}

void DecodingFlags::refuse_idle(const Options& flags, bool two_rules, Faults& faults) const {
    if (!flags.sound("--preset")) return;
    const GenerateOptions o = with_preset(flags);
    if (o.temperature == 0)
        flags.refuse_typed(faults, {"--top-k", "--top-p", "--confidence", "--draw"},
                           "has no effect at --temperature 0, which is greedy; raise that", "--temperature");
    if (!two_rules && o.remasking != Remasking::LowConfidenceDynamic)
        flags.refuse_typed(faults, {"--threshold"}, "is for --remasking low_confidence_dynamic; leave it out",
                           "--remasking");
    if (o.remasking == Remasking::Origin && !two_rules && o.schedule != RevealSchedule::Timesteps)
        flags.refuse_typed(faults, {"--reveal-schedule"}, "--remasking origin has its own; leave it out",
                           "--remasking");
    refuse_idle_rule(flags, two_rules, faults);
}

void DecodingFlags::refuse_idle_rule(const Options& flags, bool two_rules, Faults& faults) const {
    if (!flags.sound("--preset")) return;
    const GenerateOptions o = with_preset(flags);
    if (two_rules || o.remasking != Remasking::EntropyBounded)
        flags.refuse_typed(faults, {"--eb-threshold"}, "is for --remasking entropy_bounded; add that",
                           "--remasking");
    if (two_rules || o.remasking != Remasking::Factor)
        flags.refuse_typed(faults, {"--factor"}, "is for --remasking factor; add that", "--remasking");
    if (two_rules || (o.remasking != Remasking::LowConfidenceStatic && o.remasking != Remasking::Margin &&
                      o.remasking != Remasking::Entropy))
        flags.refuse_typed(faults, {"--order-temperature"},
                           "is for --remasking low_confidence_static, topk_margin and entropy; add one",
                           "--remasking");
    if ((two_rules || o.remasking != Remasking::Origin) && o.schedule != RevealSchedule::Timesteps)
        flags.refuse_typed(faults, {"--eps"},
                           "is for --reveal-schedule timesteps and --remasking origin; add one",
                           "--reveal-schedule");
    if (o.cache != Cache::Prefix)
        flags.refuse_typed(faults, {"--further-horizon"}, "is for --cache prefix; add that", "--cache");
}

GenerateOptions DecodingFlags::resolve(const Options& flags, const ModelConfig& config,
                                       const std::vector<int>& eos_ids, uint64_t seed) const {
    GenerateOptions o = with_preset(flags);
    if (o.block == 0) o.block = config.B;
    o.seed = seed;
    if (!ignore_eos) o.stop_ids = stop_ids.empty() ? eos_ids : stop_ids;
    std::string all;
    for (const std::string& fault : faults(o, config)) all += (all.empty() ? "" : "\n") + fault;
    if (!all.empty()) throw Error(Exit::Usage, all);
    return o;
}
