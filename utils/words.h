// words.h -- splitting, wrapping and comparing words, for what programs say.
#pragma once
#include <string>
#include <vector>

// "a,,b" has three parts, "" has one.
std::vector<std::string> split(const std::string& text, char separator);
std::string hyphens(std::string name);                             // top_k -> top-k
std::string underscores(std::string name);                         // top-k -> top_k
size_t edit_distance(const std::string& a, const std::string& b);  // insertions, deletions, substitutions
std::string shell_word(const std::string& text);  // one word of a command to type, quoted where it must be
// Breaks lines at spaces so that they end before column `width`; lines after the first are indented.
std::string wrap(const std::string& text, size_t indent, size_t width);
