// text_model.h -- a model folder's text side: its tokenizer, its chat template, its stop ids; and where the included model is.
#pragma once
#include <memory>
#include <string>
#include <vector>

#include "model/config.h"
#include "tokenizer/chat_template.h"

Message message(const std::string& role, const std::string& content);

struct TextModel {
    std::unique_ptr<Tokenizer> tokenizer;  // null where there is none: token ids only
    ChatTemplate chat;
    std::vector<int> eos_ids;  // the config's, and the chat template's end of turn
    int n_ids = 0;             // ids from here on are never drawn

    // The ids of one message, or of a conversation, as the model wants to see them. With the raw template the
    // text stands alone, and special tokens written in it are parsed.
    std::vector<int> encode_prompt(const std::string& text, const std::string& system, bool thinking) const;
    std::vector<int> encode_messages(const std::vector<Message>& messages, bool thinking) const;
};

// `tokenizer`: "bytes", a folder, or "" for the model folder's own; a model of the byte tokenizer's
// vocabulary needs no files.
TextModel load_text_model(const std::string& tokenizer, const std::string& chat_template,
                          const std::string& model_folder, const ModelConfig& config);

// The small trained model in inference/default_model, beside the program or in the working directory. Throws
// Error(BadFile) where it is missing.
std::string default_model_folder();
// What to ask it: its sample_prompt.txt, else a sum.
std::string sample_prompt(const std::string& model_folder);
