// byte_tokenizer.h -- the built-in tokenizer: one id per byte, then the special tokens that a chat model
// needs.
//
// It needs no file, so every program runs without a download. Ids are part of the file format of models made
// with it and never change.
#pragma once
#include <string>

constexpr int BYTE_END_OF_TEXT = 256;  // <|endoftext|>, also the padding id
constexpr int BYTE_IM_START = 257;     // <|im_start|>
constexpr int BYTE_IM_END = 258;       // <|im_end|>, the end of a turn: a stop id
constexpr int BYTE_MASK = 259;         // <|MASK|>, SDAR's name for it
constexpr int BYTE_TOKENS = 260;       // ids from here on have no text
constexpr int BYTE_VOCABULARY =
    264;  // rows of a model's embedding: BYTE_TOKENS rounded up to a multiple of 8

// Writes it into a folder as Hugging Face's files, tokenizer.json and tokenizer_config.json: what
// load_tokenizer and transformers make of them encodes and decodes exactly as the built-in one does.
void save_byte_tokenizer(const std::string& folder);
