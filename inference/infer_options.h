// infer_options.h -- every option of the `infer` program.
#pragma once
#include "inference/decoding_flags.h"
#include "inference/text_flags.h"

struct InferOptions {
    // Model
    std::string model;  // "": the one in inference/default_model
    TextFlags text{.thinking = true};
    // Input
    std::string prompt, file, input, encode;
    std::vector<int> prompt_ids;
    bool prompt_given = false, prompt_ids_given = false;  // even where empty
    bool chat = false;
    std::string system;
    // Decoding
    DecodingFlags decoding;
    int num_samples = 1;
    // Limits
    int max_active = 16;
    int max_rows = 0;  // 0: planned from the requests
    int kv_slots = 0;
    // Output
    std::string logits, trace_html;
    bool visual = false;

    void declare(Options& flags, const Common& common);
    // Adds a fault for every option of decoding that was typed and has no effect on an answer.
    void refuse_idle(const Options& flags, Faults& faults) const;
};
