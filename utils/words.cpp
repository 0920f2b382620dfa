#include "utils/words.h"

#include <algorithm>
#include <cctype>
#include <cstdint>
#include <string_view>

std::vector<std::string> split(const std::string& text, char separator) {
    std::vector<std::string> parts(1);
    for (const char c : text) {
        if (c == separator)
            parts.emplace_back();
        else
            parts.back() += c;
    }
    return parts;
}

std::string hyphens(std::string name) {
    std::replace(name.begin(), name.end(), '_', '-');
    return name;
}
std::string underscores(std::string name) {
    std::replace(name.begin(), name.end(), '-', '_');
    return name;
}

size_t edit_distance(const std::string& a, const std::string& b) {
    std::vector<size_t> row(b.size() + 1);
    for (size_t j = 0; j <= b.size(); j++) row[j] = j;
    for (size_t i = 1; i <= a.size(); i++) {
        size_t diagonal = row[0];
        row[0] = i;
        for (size_t j = 1; j <= b.size(); j++) {
            const size_t substitute = diagonal + (a[i - 1] != b[j - 1]);
            diagonal = row[j];
            row[j] = std::min({row[j] + 1, row[j - 1] + 1, substitute});
        }
    }
    return row[b.size()];
}

std::string shell_word(const std::string& text) {
    const auto plain = [](char c) {  // letters beyond ASCII too
        return isalnum(uint8_t(c)) || (c & 0x80) ||
               std::string_view("_-./:=+,@%").find(c) != std::string_view::npos;
    };
    if (!text.empty() && std::all_of(text.begin(), text.end(), plain)) return text;
    std::string out = "'";
    for (const char c : text) out += c == '\'' ? "'\\''" : std::string(1, c);
    return out + "'";
}

std::string wrap(const std::string& text, size_t indent, size_t width) {
    std::string out;
    size_t column = indent;
    for (const std::string& word : split(text, ' ')) {
        if (column > indent && column + 1 + word.size() > width) {
            out += "\n" + std::string(indent, ' ');
            column = indent;
        } else if (column > indent) {
            out += ' ';
            column++;
        }
        out += word;
        column += word.size();
    }
    return out;
}
