// decoding_flags.h -- the command-line options of GenerateOptions, for every program that generates.
#pragma once
#include "inference/options.h"
#include "utils/cli.h"

struct DecodingFlags {
    GenerateOptions options;  // block 0 until resolve(): the model's own
    std::string preset;
    std::vector<int> stop_ids;
    bool ignore_eos = false;

    DecodingFlags() { options.block = 0; }
    // Adds --preset, --gen-length, --block, --steps, --remasking, --threshold, --eb-threshold, --confidence,
    // --temperature, --top-k,
    // --top-p, --stop-ids, --ignore-eos. `this` must outlive `flags`.
    void declare(Options& flags);

    // What the flags mean for a model: the preset's values where no flag was given, its block length, and its
    // stop ids (`eos_ids`, sorted out by the caller) where --stop-ids names none. Throws Error(Usage) with
    // all faults.
    GenerateOptions resolve(const Options& flags, const ModelConfig& config, const std::vector<int>& eos_ids,
                            uint64_t seed) const;
};
