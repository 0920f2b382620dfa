// line_options.h -- the decoding options that a line of `infer --input` may hold, over those of the command line.
#pragma once
#include "inference/options.h"
#include "utils/cli.h"
#include "utils/json_forward.h"

// How a prompt is answered.
struct Decoding {
    GenerateOptions options;
    int num_samples = 1;
    bool own_seed = false;  // its samples are sequences 0, 1, ... of its seed, whatever else is generated
};

// Keys are the names of the flags with underscores (`top_k`), or of their aliases (`max_tokens`): preset, gen_length,
// block, steps, remasking, threshold, eb_threshold, factor, order_temperature, reveal_schedule, eps, confidence, draw,
// cfg_scale, temperature, top_k, top_p, cache, further_horizon, stop_ids, ignore_eos, infill, seed, num_samples; null is
// as good as none. A preset sets what the line does not say itself.
// base: what the command line says, valid; eos_ids: the model's own stop ids; flags: the program's, for their aliases.
// Throws Error(BadFile) with `where`, key, value and what is allowed; also for a key that is one of these
// misspelt (in one letter of seven or more, in case or hyphens), and for an option of the engine that cannot differ between lines. Other keys are the caller's.
Decoding read_line_options(const Json& line, const std::string& where, const Decoding& base,
                           const ModelConfig& config, const std::vector<int>& eos_ids, const Options& flags);
