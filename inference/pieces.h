// pieces.h -- the text of each token, for people: whole characters only.
#pragma once
#include <span>
#include <string>
#include <vector>

#include "tokenizer/tokenizer.h"

// One piece per id, always valid UTF-8, together the text of all ids as Tokenizer::decode() has it. A character that several
// tokens make up stands whole in the piece of the last of them; bytes that never become one are U+FFFD. An id without text
// is shown as <id>. Where `known` is not empty, ids with known[i] == 0 get "" and no character spans them.
std::vector<std::string> pieces_of(const Tokenizer* tokenizer, std::span<const int> ids,
                                   std::span<const char> known = {});

// The text of an output without the stop token at its end and without special tokens.
std::string output_text(const Tokenizer& tokenizer, std::span<const int> output_ids,
                        const std::string& finish_reason);
