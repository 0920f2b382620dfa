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
    // Adds --preset, --gen-length, --block, --steps, --remasking, --threshold, --eb-threshold, --factor,
    // --order-temperature, --reveal-schedule, --eps, --confidence, --draw, --cfg-scale, --temperature, --top-k,
    // --top-p, --cache, --further-horizon, --stop-ids, --ignore-eos. `this` must outlive `flags`.
    void declare(Options& flags);
    // These names, but for --block, which also says how a text that is only scored is attended to.
    static std::vector<std::string> names();

    // The options with the preset's values where no flag was given.
    GenerateOptions with_preset(const Options& flags) const;
    // Every response to a prompt would be the same.
    bool is_greedy(const Options& flags) const;
    // Adds a fault for everything on the command line that has no effect beside the rest; two_rules: of static and
    // dynamic decoding both.
    void refuse_idle(const Options& flags, bool two_rules, Faults& faults) const;
    // The part of it that holds even where responses are evaluated by both rules and at another temperature besides.
    void refuse_idle_rule(const Options& flags, bool two_rules, Faults& faults) const;

    // What the flags mean for a model: the preset's values where no flag was given, its block length, and its
    // stop ids (`eos_ids`, sorted out by the caller) where --stop-ids names none. Throws Error(Usage) with
    // all faults.
    GenerateOptions resolve(const Options& flags, const ModelConfig& config, const std::vector<int>& eos_ids,
                            uint64_t seed) const;
};
