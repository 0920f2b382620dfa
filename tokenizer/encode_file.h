// encode_file.h -- `infer --encode`: the ids of every line of a JSONL file, without a model.
#pragma once
#include <cstdio>
#include <string>

#include "tokenizer/chat_template.h"

// Lines hold `text`, or `messages` with an optional `enable_thinking`; special tokens in either are parsed
// and the generation prompt is added, as Hugging Face does. Writes {"ids": [...]} for each, in order. Throws
// Error(BadFile) naming file and line.
void encode_jsonl(const std::string& path, const Tokenizer& tokenizer, const ChatTemplate& chat, FILE* out);
