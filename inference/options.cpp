#include "inference/options.h"

#include <cmath>

namespace {

template <class T>
struct Named {
    const char* name;
    T value;
};

// Other engines' spellings come behind ours.
constexpr Named<Remasking> REMASKINGS[] = {{"low_confidence_static", Remasking::LowConfidenceStatic},
                                           {"low_confidence_dynamic", Remasking::LowConfidenceDynamic},
                                           {"sequential", Remasking::Sequential},
                                           {"entropy_bounded", Remasking::EntropyBounded},
                                           {"factor", Remasking::Factor},
                                           {"random", Remasking::Random},
                                           {"topk_margin", Remasking::Margin},
                                           {"entropy", Remasking::Entropy},
                                           {"origin", Remasking::Origin},
                                           {"low_confidence", Remasking::LowConfidenceStatic},  // LLaDA
                                           {"maskgit_plus", Remasking::LowConfidenceStatic}};   // Dream
constexpr Named<Confidence> CONFIDENCES[] = {
    {"tempered", Confidence::Tempered}, {"plain", Confidence::Plain}, {"filtered", Confidence::Filtered}};
constexpr Named<RevealSchedule> SCHEDULES[] = {{"even", RevealSchedule::Even},
                                               {"floor", RevealSchedule::Floor},
                                               {"timesteps", RevealSchedule::Timesteps}};
constexpr Named<Draw> DRAWS[] = {{"inverse", Draw::Inverse}, {"gumbel", Draw::Gumbel}};

constexpr Named<Cache> CACHES[] = {{"auto", Cache::Auto},
                                   {"exact", Cache::Exact},
                                   {"prefix", Cache::Prefix},
                                   {"dual", Cache::Dual},
                                   {"none", Cache::None}};

// What is not named here is as GenerateOptions has it; see apply_preset.
struct Preset {
    const char* name;
    GenerateOptions options;
};
const Preset PRESETS[] = {
    // SDAR's generate.py (its overwriting of revealed tokens excepted)
    {"sdar", {.threshold = 0.85, .temperature = 1, .confidence = Confidence::Filtered}},
    // SDAR's published evaluation: a greedy token with its probability at temperature 1
    {"sdar-eval", {.threshold = 0.95, .temperature = 1, .top_k = 1}},
    // JetEngine as SDAR's README runs it
    {"jetengine", {.temperature = 1, .fallback = Fallback::Leftmost}},
    // lmdeploy as SDAR's README runs it: greedy
    {"lmdeploy",
     {.schedule = RevealSchedule::Floor,
      .temperature = 1,
      .top_k = 1,
      .fallback = Fallback::One,
      .threshold_inclusive = true}},
    // the rollouts of dLLM-RL (its copy of JetEngine)
    {"dllm-rl", {.temperature = 1, .confidence = Confidence::Filtered}},
    // Fast-dLLM on LLaDA: threshold decoding and the dual cache (on Dream it reveals a block's first token unconditionally)
    {"fast-dllm",
     {.confidence = Confidence::Plain,
      .cache = Cache::Dual,
      .fallback = Fallback::One,
      .threshold_inclusive = true}},
    // LLaDA's generate.py
    {"llada",
     {.remasking = Remasking::LowConfidenceStatic, .confidence = Confidence::Plain, .draw = Draw::Gumbel}},
    // Dream's diffusion_generate as its README runs it (DiffuCoder's is the same at temperature 0.3)
    {"dream",
     {.block = WHOLE_CANVAS,
      .remasking = Remasking::Entropy,
      .schedule = RevealSchedule::Timesteps,
      .temperature = 0.2f,
      .top_p = 0.95f,
      .confidence = Confidence::Filtered}},
};

template <class T, size_t N>
Names<T> names(const Named<T> (&table)[N]) {
    Names<T> out;
    for (const auto& entry : table) out.emplace_back(entry.name, entry.value);
    return out;
}

template <class T, size_t N>
const char* name_in(const Named<T> (&table)[N], T value) {
    for (const auto& entry : table)
        if (value == entry.value) return entry.name;
    return "?";
}

}  // namespace

Names<Remasking> remasking_names() { return names(REMASKINGS); }
Names<Confidence> confidence_names() { return names(CONFIDENCES); }
Names<RevealSchedule> schedule_names() { return names(SCHEDULES); }
Names<Draw> draw_names() { return names(DRAWS); }
Names<Cache> cache_names() { return names(CACHES); }
const char* name_of(Remasking remasking) { return name_in(REMASKINGS, remasking); }
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
            GenerateOptions o = preset.options;
            o.gen_length = options.gen_length;
            if (o.block != WHOLE_CANVAS) o.block = options.block;
            o.steps = options.steps;
            o.stop_ids = options.stop_ids;
            o.seed = options.seed;
            o.infill = options.infill;
            options = o;
            return;
        }
        known += (known.empty() ? "" : ", ") + std::string(preset.name);
    }
    fail(Exit::Usage, "--preset: '%s' is not known; known are %s", name.c_str(), known.c_str());
}

std::string temperature_fault(const char* option, float value) {
    if (value == 0 || (value >= MIN_TEMPERATURE && !std::isinf(value))) return "";
    return format("%s %g: 0 (greedy), or %g and more", option, double(value), double(MIN_TEMPERATURE));
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
    if (!(options.order_temperature >= 0) || std::isinf(options.order_temperature))
        fault(format("--order-temperature %g: 0 (the best positions) or more",
                     double(options.order_temperature)));
    if (!(options.eps >= 0 && options.eps < 1))
        fault(format("--eps %g: a time from 0 to below 1", double(options.eps)));
    if (!(options.cfg_scale >= 0) || std::isinf(options.cfg_scale))
        fault(format("--cfg-scale %g: 0 (none) or more", double(options.cfg_scale)));
    if (!config.full_attention) {
        if (options.cfg_scale > 0)
            fault(
                format("--cfg-scale %g: it takes a full-attention model to generate beside a masked prompt; "
                       "use 0",
                       double(options.cfg_scale)));
        const char* only = "is for full-attention models, whose canvas it goes over in time";
        if (options.remasking == Remasking::Origin) fault(format("--remasking origin: %s; use random", only));
        if (options.schedule == RevealSchedule::Timesteps)
            fault(format("--reveal-schedule timesteps (which --preset dream has): %s; use even", only));
        if (options.block == WHOLE_CANVAS)
            fault(
                format("--block %d: the whole canvas, which is for full-attention models; use 0, the "
                       "model's own",
                       options.block));
    }
    if (const std::string wrong = temperature_fault("--temperature", options.temperature); !wrong.empty())
        fault(wrong);
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
    if (options.approximate_cache() && options.cfg_scale > 0)
        fault(format(
            "--cache %s: has no place for a canvas without the prompt; use --cache none or --cfg-scale 0",
            name_of(options.cache)));
    if (options.further_horizon < -1)
        fault(format("--further-horizon %d: tokens, or -1 for all of them", options.further_horizon));
    for (int id : options.stop_ids)
        if (id < 0 || id >= config.V) fault(format("--stop-ids %d: ids run from 0 to %d", id, config.V - 1));
    return out;
}
