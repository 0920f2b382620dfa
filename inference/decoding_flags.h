// decoding_flags.h -- the options of GenerateOptions with their names, ranges and words: on the command line of every
// program that generates, in a line of `infer --input`, and as settings of a chat.
#pragma once
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "inference/options.h"
#include "utils/cli.h"

struct DecodingFlags {
    GenerateOptions options;  // block 0 until resolve(): the model's own
    std::string preset;       // whose values `options` has where no option beside it says otherwise
    std::vector<int> stop_ids;
    bool ignore_eos = false;

    DecodingFlags() { options.block = 0; }
    // Adds the section SECTION, --preset, which sets others, first. `this` must outlive `flags`.
    void declare(Options& flags);
    static constexpr const char* SECTION = "Decoding";
    // Every response to a prompt would be the same.
    bool is_greedy(const Options& flags) const;
    // Adds a fault for every option of decoding on the command line, of a run that generates nothing. But for --block,
    // which also says how a text that is only scored is attended to.
    static void refuse_all(const Options& flags, const std::string& why, Faults& faults);
    // Adds a fault for everything on the command line that has no effect beside the rest; two_rules: of static and
    // dynamic decoding both.
    void refuse_idle(const Options& flags, bool two_rules, Faults& faults) const;
    // The part of it that holds even where responses are evaluated by both rules and at another temperature besides.
    void refuse_idle_rule(const Options& flags, bool two_rules, Faults& faults) const;

    // The block that there is was said, and stays with another preset, be it the same as this one's.
    void keep_block() { replaced_block_.reset(); }

    // What the options mean for a model: its block length where they have none, and its stop ids (`eos_ids`, sorted
    // out by the caller) where --stop-ids names none. Throws Error(Usage) with all faults.
    GenerateOptions resolve(const ModelConfig& config, const std::vector<int>& eos_ids, uint64_t seed) const;

  private:
    void set_preset(const std::string& name);
    // The block there would be without that of `preset`; none: the preset has none.
    std::optional<int> replaced_block_;
};

// A message about options, for one who writes settings: "--top-k 3: ..." is "top_k 3: ...", or has the name that the option
// was given by. What `settings` has not stays an option of the command line.
using GivenNames = std::map<const OptionEntry*, std::string>;
std::string in_settings(const std::string& message, const Options& settings, const GivenNames& given = {});
