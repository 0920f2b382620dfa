// pre_tokenizer.h -- how a text is cut into the pieces that BPE works inside of. The regular expressions are
// written out by hand.
//
// Gpt2       's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+
// Qwen2      (?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}|
// ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+
//            (Qwen3 has the same; LLaDA's is spelled otherwise and cuts the same way)
// WholeText  no cuts: for a vocabulary without merges
#pragma once
#include <cstddef>
#include <string_view>

enum class PreTokenizer { WholeText, Gpt2, Qwen2 };

// The end of the piece that begins at `begin` < text.size(). Pieces follow each other without gaps.
size_t piece_end(PreTokenizer kind, std::string_view text, size_t begin);

// The pre-tokenizer of a regular expression as tokenizer.json files spell it; false where it is none of those
// above.
bool pre_tokenizer_of(std::string_view regex, PreTokenizer* kind);
