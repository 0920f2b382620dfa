// line_options.h -- the decoding options that a line of `infer --input` may hold, over those of the command line.
#pragma once
#include "inference/infer_options.h"
#include "utils/json_forward.h"

// How a prompt is answered.
struct Decoding {
    GenerateOptions options;
    int num_samples = 1;
    bool own_seed = false;  // its samples are sequences 0, 1, ... of its seed, whatever else is generated
};

// Keys are the names of the flags with underscores (`top_k`), or of their aliases (`max_tokens`): those of the section
// Decoding, infill and seed; null is as good as none. A preset sets what the line does not say itself.
class LineOptions {
  public:
    // base, seed and flags: what the command line says, valid; eos_ids: the model's own stop ids. They must outlive this,
    // and config.
    LineOptions(const InferOptions& base, uint64_t seed, const Options& flags, const ModelConfig& config,
                const std::vector<int>& eos_ids);
    // Throws Error(BadFile) with `where`, key, value and what is allowed; also for a key that is an option misspelt (in
    // one letter of seven or more, in case or hyphens), for an option of the engine that cannot differ between lines,
    // and for one that has no effect here, as the command line does. Other keys are the caller's.
    Decoding read(const Json& line, const std::string& where);
    // A message about options, by the names that they had in the line that was read last.
    std::string in_keys(const std::string& message) const { return in_settings(message, table_, given_); }

    // What was typed on the command line and had no effect on any line read so far, one warning each; `file` is theirs.
    std::vector<std::string> idle(const std::string& file) const;

  private:
    void note_idle();
    const InferOptions& base_;
    const uint64_t seed_;
    const ModelConfig& config_;
    const std::vector<int>& eos_ids_;
    // The program's options, for a line at a time.
    InferOptions line_;
    Common common_;
    Options table_;
    GivenNames given_;
    // Typed options that no line was answered by so far, and why not: the fault that it would be to give one in a line;
    // "": all lines have their own.
    std::vector<std::pair<OptionEntry*, std::string>> idle_;
};
