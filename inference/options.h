// options.h -- how one sequence is generated: lengths, remasking rule, sampling; and the presets of published engines.
#pragma once
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "kernels/ops.h"
#include "model/config.h"

// Which keys and values a pass computes anew. Those of a block model's finished blocks never change; under full attention
// every key depends on every token, so only None is exact there. The approximations (Fast-dLLM) forward the whole canvas
// when a block is begun, and then, until it is finished,
//   Prefix   the block and what comes after it, which do not see beyond further_horizon; keys before it stay
//   Dual     the block; keys before and after it stay
// Where the model's outputs are shifted, the row before the block is forwarded too: it predicts the block's first token.
enum class Cache { Auto, Exact, Prefix, Dual, None };
// The lowest temperature above 0: what fp32 makes of logits divided by it stays finite.
constexpr float MIN_TEMPERATURE = 1e-6f;
constexpr int WHOLE_CANVAS = 1 << 16;  // a block length: all masks of a full-attention canvas are one block

struct GenerateOptions {
    int gen_length = 256;
    int block = 4;
    int steps = 0;  // per block; 0: as many as the block is long
    Remasking remasking = Remasking::LowConfidenceDynamic;
    double threshold = 0.9;
    double eb_threshold = 0.35;  // nats
    double factor = 1;
    float order_temperature = 0;  // of static, margin and entropy orders; 0: the best, above: drawn
    RevealSchedule schedule = RevealSchedule::Even;
    float eps = 1e-3f;      // the last timestep of RevealSchedule::Timesteps
    float temperature = 0;  // 0: greedy, else from MIN_TEMPERATURE on
    int top_k = 0;
    float top_p = 1;
    Confidence confidence = Confidence::Tempered;
    Draw draw = Draw::Inverse;
    float cfg_scale = 0;  // logits + cfg_scale * (logits - those without the prompt); 0: no guidance
    std::vector<int> stop_ids = {};
    uint64_t seed = 0;
    // The prompt's mask ids are gaps to fill in, and nothing is appended (full-attention models).
    bool infill = false;
    Cache cache = Cache::Auto;  // Exact (block models) or None (full attention)
    int further_horizon = -1;   // Cache::Prefix: tokens after the block that a pass forwards; -1: all of them
    // What the presets of other engines need:
    Fallback fallback = Fallback::Top;
    bool threshold_inclusive = false;  // confidence >= threshold instead of >

    bool approximate_cache() const { return cache == Cache::Prefix || cache == Cache::Dual; }
    // B of a block: its length, or the masks of the canvas
    int block_length() const { return block == WHOLE_CANVAS ? gen_length : block; }
    int steps_per_block() const { return steps > 0 ? steps : block_length(); }
    RevealRule reveal_rule() const {
        return {.remasking = remasking,
                .fallback = fallback,
                .inclusive = threshold_inclusive,
                .schedule = remasking == Remasking::Origin ? RevealSchedule::Timesteps : schedule,
                .block = block_length(),
                .steps = steps_per_block(),
                .eps = eps,
                .order_temperature = order_temperature,
                .threshold = threshold,
                .entropy_bound = eb_threshold,
                .factor = factor};
    }
};

// Spellings of the command line: a value's own name comes before its aliases.
template <class Enum>
using Names = std::vector<std::pair<std::string, Enum>>;
Names<Remasking> remasking_names();
Names<Confidence> confidence_names();
Names<RevealSchedule> schedule_names();
Names<Draw> draw_names();
Names<Cache> cache_names();
const char* name_of(Remasking remasking);
const char* name_of(Cache cache);

// Sets the sampling and remasking fields and the cache to a published engine's defaults. Stop ids, seed and lengths stay,
// except the block where that engine knows none. Stop rule, limits and step map are always this engine's own. Throws
// Error(Usage) that lists the names.
void apply_preset(GenerateOptions& options, const std::string& name);
std::vector<std::string> preset_names();

// What is wrong with a temperature that `option` set; "": nothing.
std::string temperature_fault(const char* option, float value);
// Every fault of the options for a model of this kind, one line each; empty: none.
std::vector<std::string> faults(const GenerateOptions& options, const ModelConfig& config);
