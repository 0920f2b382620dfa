// infer_inputs.h -- what `infer` is asked: from the command line, a file, JSON lines or a pipe.
#pragma once
#include <functional>
#include <string>
#include <vector>

#include "inference/infer_options.h"
#include "inference/line_options.h"
#include "inference/text_model.h"
#include "utils/json.h"

struct Prompt {
    Json id;  // of a JSON line; null where it has none
    std::vector<int> ids;
    std::string shown;       // the text as it was given, for people; "" where there were only ids
    std::string where = "";  // "prompts.jsonl:3", "--prompt"; for messages
    Decoding decoding{};
};

// Who is asked, and how where a line does not say.
struct Asking {
    const InferOptions& o;
    const Options& flags;  // that set o
    const GenerateOptions& options;
    const ModelConfig& config;
    const TextModel& text;
    const std::string& folder;  // the model's
};

constexpr const char* SAMPLE_PROMPT = "sample prompt";  // where it is from
// Where nothing is asked and it is the default model, its sample prompt. Throws Error(Usage | BadFile); of a file's lines
// all that are at fault are named, those included that ask what the model cannot answer.
std::vector<Prompt> read_prompts(const Asking& asking);
// Runs a check of what a prompt asks, and says with what it throws where the prompt is from: what is at fault with a line
// of a file is a fault of the file.
void check_prompt(const Prompt& prompt, bool in_file, const std::function<void()>& check);
