#include "inference/options.h"

#include <cmath>

namespace {

template <class T>
struct Named {
    const char* name;
    T value;
};

constexpr Named<Remasking> REMASKINGS[] = {{"low_confidence_static", Remasking::LowConfidenceStatic},
                                           {"low_confidence_dynamic", Remasking::LowConfidenceDynamic},
                                           {"sequential", Remasking::Sequential},
                                           {"entropy_bounded", Remasking::EntropyBounded},
                                           {"factor", Remasking::Factor}};
constexpr Named<Confidence> CONFIDENCES[] = {
    {"tempered", Confidence::Tempered}, {"plain", Confidence::Plain}, {"filtered", Confidence::Filtered}};

constexpr Named<Cache> CACHES[] = {{"auto", Cache::Auto},
                                   {"exact", Cache::Exact},
                                   {"prefix", Cache::Prefix},
                                   {"dual", Cache::Dual},
                                   {"none", Cache::None}};

// Sampling, remasking and cache as the published engines have them; see apply_preset.
struct Preset {
    const char* name;
    double threshold;
    int top_k;
    Confidence confidence;
    Fallback fallback;
    bool threshold_inclusive, floor_schedule;
    float temperature = 1;
    Cache cache = Cache::Auto;
};
constexpr Preset PRESETS[] = {
    // SDAR's generate.py (its overwriting of revealed tokens excepted)
    {"sdar", 0.85, 0, Confidence::Filtered, Fallback::Top, false, false},
    // SDAR's published evaluation: a greedy token with its probability at temperature 1
    {"sdar-eval", 0.95, 1, Confidence::Tempered, Fallback::Top, false, false},
    // JetEngine as SDAR's README runs it
    {"jetengine", 0.9, 0, Confidence::Tempered, Fallback::Leftmost, false, false},
    // lmdeploy as SDAR's README runs it: greedy
    {"lmdeploy", 0.9, 1, Confidence::Tempered, Fallback::One, true, true},
    // the rollouts of dLLM-RL (its copy of JetEngine)
    {"dllm-rl", 0.9, 0, Confidence::Filtered, Fallback::Top, false, false},
    // Fast-dLLM on LLaDA: threshold decoding and the dual cache (on Dream it reveals a block's first token unconditionally)
    {"fast-dllm", 0.9, 0, Confidence::Plain, Fallback::One, true, false, 0, Cache::Dual},
};

template <class T, size_t N>
T parse(const Named<T> (&table)[N], const char* option, const std::string& name) {
    std::string known;
    for (const auto& entry : table) {
        if (name == entry.name) return entry.value;
        known += (known.empty() ? "" : ", ") + std::string(entry.name);
    }
    fail(Exit::Usage, "%s: '%s' is not known; known are %s", option, name.c_str(), known.c_str());
}

template <class T, size_t N>
const char* name_in(const Named<T> (&table)[N], T value) {
    for (const auto& entry : table)
        if (value == entry.value) return entry.name;
    return "?";
}

}  // namespace

Remasking parse_remasking(const std::string& name) { return parse(REMASKINGS, "--remasking", name); }
Confidence parse_confidence(const std::string& name) { return parse(CONFIDENCES, "--confidence", name); }
Cache parse_cache(const std::string& name) { return parse(CACHES, "--cache", name); }
const char* name_of(Remasking remasking) { return name_in(REMASKINGS, remasking); }
const char* name_of(Confidence confidence) { return name_in(CONFIDENCES, confidence); }
const char* name_of(Cache cache) { return name_in(CACHES, cache); }

std::vector<std::string> preset_names() {
    std::vector<std::string> names;
    for (const Preset& preset : PRESETS) names.push_back(preset.name);
    return names;
}

void apply_preset(GenerateOptions& options, const std::string& name) {
    std::string known;
    for (const Preset& preset : PRESETS) {
        if (name == preset.name) {
            options.remasking = Remasking::LowConfidenceDynamic;
            options.threshold = preset.threshold;
            options.eb_threshold = 0.35;
            options.factor = 1;
            options.temperature = preset.temperature;
            options.top_k = preset.top_k;
            options.top_p = 1;
            options.confidence = preset.confidence;
            options.fallback = preset.fallback;
            options.threshold_inclusive = preset.threshold_inclusive;
            options.floor_schedule = preset.floor_schedule;
            options.cache = preset.cache;
            options.further_horizon = -1;
            return;
        }
        known += (known.empty() ? "" : ", ") + std::string(preset.name);
    }
    fail(Exit::Usage, "--preset: '%s' is not known; known are %s", name.c_str(), known.c_str());
}

std::vector<std::string> faults(const GenerateOptions& options, const ModelConfig& config) {
    std::vector<std::string> out;
    const auto fault = [&](std::string text) { out.push_back(std::move(text)); };
    if (options.gen_length < 1) fault(format("--gen-length %d: at least 1 token", options.gen_length));
    if (options.infill && !config.full_attention)
        fault(
            "--infill: a gap must see what comes after it, this model does not; use a full-attention model");
    if (options.block < 1) fault(format("--block %d: at least 1", options.block));
    const bool autoregressive = config.shift && !config.full_attention;
    if (autoregressive && options.block != 1)
        fault(format("--block %d: this model is autoregressive, its block length is 1", options.block));
    if (options.steps < 0 || (options.block >= 1 && options.steps > options.block))
        fault(format("--steps %d: 1 to the block length, %d", options.steps, options.block));
    if (!(options.threshold >= 0 && options.threshold <= 1))
        fault(format("--threshold %g: a probability, 0 to 1", options.threshold));
    if (!(options.eb_threshold >= 0))
        fault(format("--eb-threshold %g: nats, 0 or more", options.eb_threshold));
    if (!(options.factor >= 0)) fault(format("--factor %g: 0 or more", options.factor));
    if (!(options.temperature >= 0) || std::isinf(options.temperature))
        fault(format("--temperature %g: 0 (greedy) or more", double(options.temperature)));
    if (options.top_k < 0) fault(format("--top-k %d: 0 (off) or more", options.top_k));
    if (!(options.top_p > 0 && options.top_p <= 1))
        fault(format("--top-p %g: above 0, up to 1 (off)", double(options.top_p)));
    if (options.cache == Cache::Exact && config.full_attention)
        fault(
            "--cache exact: under full attention every key depends on every token; use --cache none, or "
            "prefix or dual, "
            "which are approximate");
    if (options.cache == Cache::None && !config.full_attention)
        fault(
            "--cache none: is for full-attention models; a block model's cache is exact, use --cache exact");
    if (options.approximate_cache() && !config.full_attention)
        fault(format(
            "--cache %s: is for full-attention models; a block model's cache is exact, use --cache exact%s",
            name_of(options.cache), options.cache == Cache::Dual ? " (also beside --preset fast-dllm)" : ""));
    if (options.further_horizon < -1)
        fault(format("--further-horizon %d: tokens, or -1 for all of them", options.further_horizon));
    for (int id : options.stop_ids)
        if (id < 0 || id >= config.V) fault(format("--stop-ids %d: ids run from 0 to %d", id, config.V - 1));
    return out;
}
