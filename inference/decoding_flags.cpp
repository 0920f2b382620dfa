#include "inference/decoding_flags.h"

#include <algorithm>

#include "kernels/reveal_block.h"
#include "utils/option_entry.h"
#include "utils/words.h"

void DecodingFlags::declare(Options& flags) {
    flags.section(SECTION);
    const std::vector<std::string> presets = preset_names();
    const auto index = [this, presets] {
        return size_t(std::find(presets.begin(), presets.end(), preset) - presets.begin());
    };
    const auto apply = [this, presets](size_t i) { set_preset(presets[i]); };
    flags.add("--preset NAME", Options::Choice{presets, index, apply},
              "sampling, remasking and cache as a published engine has them, where no option beside it says "
              "otherwise");
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
        .range(0, 1e9);
    flags
        .add("--factor F", &options.factor,
             "factor reveals the most confident tokens, the R-th as long as it has at least 1 - F / (R + 1)")
        .range(0, 1e9);
    flags
        .add(
            "--order-temperature,--alg-temp T", &options.order_temperature,
            "above 0, low_confidence_static, topk_margin and entropy draw which tokens they reveal, from the "
            "softmax of confidence, margin or -entropy over T; 0: the best ones")
        .range(0, 1e6);
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
    flags.add("--temperature,--temp T", &options.temperature, "0 is greedy; else 1e-6 or more").range(0, 1e6);
    flags.add_choice(
        "--draw KIND", &options.draw, draw_names(),
        "how a token is drawn: by one random number, or by Gumbel noise on the logit of every id (LLaDA)");
    flags
        .add("--cfg-scale W", &options.cfg_scale,
             "classifier-free guidance (full attention): logits + W * (logits - those with the prompt "
             "masked), "
             "at twice the work; 0: none")
        .range(0, 1000);
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
        if (flags.typed("--block")) keep_block();  // a file holds a preset's too
        if (ignore_eos && !stop_ids.empty()) faults.add("--ignore-eos and --stop-ids exclude each other");
    });
}

// A block that an earlier preset brought along goes with it; one that was an option stays.
void DecodingFlags::set_preset(const std::string& name) {
    if (replaced_block_ && options.block == WHOLE_CANVAS) options.block = *replaced_block_;
    const int before = options.block;
    apply_preset(options, preset = name);
    replaced_block_ = options.block == before ? std::nullopt : std::optional(before);
}

void DecodingFlags::refuse_all(const Options& flags, const std::string& why, Faults& faults) {
    for (const OptionEntry* option : flags.entries())
        if (option->section == SECTION && option->name != "block")
            flags.refuse_typed(faults, {option->shown()}, why);
}

bool DecodingFlags::is_greedy(const Options& flags) const {
    for (const char* name : {"--preset", "--temperature", "--top-k", "--remasking", "--order-temperature"})
        if (!flags.sound(name)) return false;  // what was meant is not known
    return (options.temperature == 0 || options.top_k == 1) && !has_random_order(options.reveal_rule());
}

void DecodingFlags::refuse_idle(const Options& flags, bool two_rules, Faults& faults) const {
    if (!flags.sound("--preset")) return;
    const GenerateOptions& o = options;
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
    const GenerateOptions& o = options;
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

GenerateOptions DecodingFlags::resolve(const ModelConfig& config, const std::vector<int>& eos_ids,
                                       uint64_t seed) const {
    GenerateOptions o = options;
    if (o.block == 0) o.block = config.B;
    o.seed = seed;
    o.stop_ids = ignore_eos ? std::vector<int>{} : stop_ids.empty() ? eos_ids : stop_ids;
    std::string all;
    for (const std::string& fault : faults(o, config)) all += (all.empty() ? "" : "\n") + fault;
    if (!all.empty()) throw Error(Exit::Usage, all);
    return o;
}

std::string in_settings(const std::string& message, const Options& settings, const GivenNames& given) {
    std::string out;
    for (size_t at = 0; at < message.size();) {
        const size_t dashes = std::min(message.find("--", at), message.size());
        const size_t end = message.find_first_not_of("abcdefghijklmnopqrstuvwxyz-", dashes);
        const std::string option = message.substr(dashes, end - dashes);
        const OptionEntry* setting = option.size() > 2 ? settings.find(option.substr(2)) : nullptr;
        const auto name = given.find(setting);
        out += message.substr(at, dashes - at);
        out += name != given.end() ? name->second : setting ? underscores(setting->name) : option;
        at = dashes + option.size();
    }
    return out;
}
