#include "inference/decoding_flags.h"

#include <algorithm>

void DecodingFlags::declare(Options& flags) {
    flags.section("Decoding");
    std::string presets;
    for (const std::string& name : preset_names()) presets += (presets.empty() ? "" : ", ") + name;
    flags
        .add("--preset NAME", &preset,
             "sampling, remasking and cache as a published engine has them: " + presets)
        .choices(preset_names());
    flags.add("--gen-length,--max-tokens,-n N", &options.gen_length, "output tokens, at most")
        .range(1, 1 << 24);
    flags
        .add("--block,--block-length B", &options.block,
             "tokens of a diffusion block (0: as the model was trained)")
        .range(0, 65536);
    flags
        .add("--steps,--denoising-steps S", &options.steps,
             "denoising steps of a block (0: as many as it has tokens)")
        .range(0, 65536);
    flags.add_choice("--remasking,--remasking-strategy RULE", &options.remasking,
                     {{name_of(Remasking::LowConfidenceStatic), Remasking::LowConfidenceStatic},
                      {name_of(Remasking::LowConfidenceDynamic), Remasking::LowConfidenceDynamic},
                      {name_of(Remasking::Sequential), Remasking::Sequential},
                      {name_of(Remasking::EntropyBounded), Remasking::EntropyBounded},
                      {name_of(Remasking::Factor), Remasking::Factor}},
                     "which masked tokens a step reveals");
    flags
        .add("--threshold,--confidence-threshold,--dynamic-threshold P", &options.threshold,
             "low_confidence_dynamic reveals everything more confident than this")
        .range(0, 1);
    flags
        .add("--eb-threshold NATS", &options.eb_threshold,
             "entropy_bounded reveals up to this sum of entropies")
        .range(0, 1e9);
    flags
        .add("--factor F", &options.factor,
             "factor reveals the R most confident as long as the R-th has 1 - F / (R + 1)")
        .range(0, 1e9);
    flags.add_choice("--confidence KIND", &options.confidence,
                     {{name_of(Confidence::Tempered), Confidence::Tempered},
                      {name_of(Confidence::Plain), Confidence::Plain},
                      {name_of(Confidence::Filtered), Confidence::Filtered}},
                     "a candidate's probability after temperature, before it, or after top-k and top-p too");
    flags.add("--temperature,--temp T", &options.temperature, "0 is greedy").range(0, 1e6);
    flags.add("--top-k K", &options.top_k, "draw from the K likeliest tokens (0: all)").range(0, INT32_MAX);
    flags.add("--top-p P", &options.top_p, "draw from the likeliest tokens that make up P (1: all)")
        .range(1e-6, 1);
    flags.add_choice(
        "--cache KIND", &options.cache,
        {{name_of(Cache::Auto), Cache::Auto},
         {name_of(Cache::Exact), Cache::Exact},
         {name_of(Cache::Prefix), Cache::Prefix},
         {name_of(Cache::Dual), Cache::Dual},
         {name_of(Cache::None), Cache::None}},
        "of keys and values; auto: exact (block models), none (full attention). Approximate under full "
        "attention: keys before a block (prefix) or around it (dual) stay those of the pass that opened it");
    flags
        .add("--further-horizon N", &options.further_horizon,
             "tokens after the block that --cache prefix forwards and sees (-1: all)")
        .range(-1, 1 << 24);
    flags
        .add("--stop-ids,--stopping-criteria-idx IDS", &stop_ids,
             "end after one of these tokens instead of the model's own")
        .range(0, INT32_MAX);
    flags.add("--ignore-eos", &ignore_eos, "go on to --gen-length whatever comes");
    flags.check([this](Faults& faults) {
        if (ignore_eos && !stop_ids.empty()) faults.add("--ignore-eos and --stop-ids exclude each other");
    });
}

GenerateOptions DecodingFlags::with_preset(const Options& flags) const {
    GenerateOptions o = options;
    if (preset.empty()) return o;
    apply_preset(o, preset);
    const auto keep = [&](const char* flag, auto GenerateOptions::*field) {
        if (flags.given(flag)) o.*field = options.*field;
    };
    keep("--remasking", &GenerateOptions::remasking);
    keep("--threshold", &GenerateOptions::threshold);
    keep("--eb-threshold", &GenerateOptions::eb_threshold);
    keep("--factor", &GenerateOptions::factor);
    keep("--confidence", &GenerateOptions::confidence);
    keep("--temperature", &GenerateOptions::temperature);
    keep("--top-k", &GenerateOptions::top_k);
    keep("--top-p", &GenerateOptions::top_p);
    keep("--cache", &GenerateOptions::cache);
    keep("--further-horizon", &GenerateOptions::further_horizon);
    return o;
}

bool DecodingFlags::is_greedy(const Options& flags) const {
    const GenerateOptions o = with_preset(flags);
    for (const char* name : {"--preset", "--temperature", "--top-k"})
        if (!flags.sound(name)) return false;  // what was meant is not known
    return o.temperature == 0 || o.top_k == 1;
}

void DecodingFlags::refuse_idle(const Options& flags, bool two_rules, Faults& faults) const {
    if (!flags.sound("--preset")) return;
    const GenerateOptions o = with_preset(flags);
    if (o.temperature == 0)
        flags.refuse_typed(faults, {"--top-k", "--top-p", "--confidence"},
                           "has no effect at --temperature 0, which is greedy; raise that", "--temperature");
    if (!two_rules && o.remasking != Remasking::LowConfidenceDynamic)
        flags.refuse_typed(faults, {"--threshold"}, "is for --remasking low_confidence_dynamic; leave it out",
                           "--remasking");
    if (two_rules || o.remasking != Remasking::EntropyBounded)
        flags.refuse_typed(faults, {"--eb-threshold"}, "is for --remasking entropy_bounded; add that",
                           "--remasking");
    if (two_rules || o.remasking != Remasking::Factor)
        flags.refuse_typed(faults, {"--factor"}, "is for --remasking factor; add that", "--remasking");
    refuse_idle_cache(flags, faults);
}

void DecodingFlags::refuse_idle_cache(const Options& flags, Faults& faults) const {
    if (flags.sound("--preset") && with_preset(flags).cache != Cache::Prefix)
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
