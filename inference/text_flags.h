// text_flags.h -- how text becomes a model's ids, as command-line options, for every program that takes text.
#pragma once
#include "utils/cli.h"

struct TextFlags {
    std::string tokenizer = "";  // "bytes" or a folder; "": the model's
    std::string chat_template = "auto";
    bool thinking = false;

    // Adds --tokenizer, --chat-template, --thinking. `this` must outlive `flags`.
    void declare(Options& flags);
};
