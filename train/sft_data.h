// sft_data.h -- a file of examples for supervised fine-tuning, as ids.
//
// Each line is one example: a prompt and a response as text (`prompt`, `response`, or other names), as
// `messages` whose last one is the assistant's, or as ids (`prompt_ids`, `response_ids`; a line of `infer
// --json` is one, with its step_map). Only the response is trained; text gets the end-of-turn id at its end,
// ids are taken as they are; with --method trace and without --pad-tokens so are the line's tail_ids and tail_steps. A message's
// reasoning_content and tool_calls are trained, too, or refused.
#pragma once
#include <string>
#include <vector>

#include "inference/text_model.h"
#include "train/record.h"
#include "train/sft_example.h"

struct SftDataOptions {
    std::string prompt_field = "prompt", response_field = "response";
    bool thinking = false;
    int max_length = 0;  // longer examples (prompt and response) are left out; 0: as the positions allow
    int pad_tokens = 0;  // end-of-text ids trained after the response
    int canvas = 0;  // full attention: tokens a response stands in, as in generation; the rest stays masked
    bool needs_step_map = false;  // method trace
};

struct SftData {
    std::vector<SftExample> examples;
    int too_long = 0;  // lines left out
};

// Throws Error(BadFile) "path:line: ..." for the first fault.
SftData read_sft_data(const std::string& path, const TextModel& text, const SftDataOptions& options,
                      const RecordLimits& limits);
