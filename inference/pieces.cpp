#include "inference/pieces.h"

#include "utils/error.h"

namespace {

// Length of the character that begins at text[i]: positive where it is whole, 0 where its end is missing, -1
// where no character begins here.
int character_length(std::string_view text, size_t i) {
    const auto byte = [&](size_t k) { return uint8_t(text[k]); };
    const uint8_t b = byte(i);
    const int n = b < 0x80                ? 1
                  : b >= 0xC2 && b < 0xE0 ? 2
                  : b >= 0xE0 && b < 0xF0 ? 3
                  : b >= 0xF0 && b < 0xF5 ? 4
                                          : -1;
    for (int k = 1; k < n; k++) {
        if (i + size_t(k) >= text.size()) return 0;
        const uint8_t c = byte(i + size_t(k));
        const uint8_t low = k == 1 && b == 0xE0 ? 0xA0 : k == 1 && b == 0xF0 ? 0x90 : 0x80;
        const uint8_t high = k == 1 && b == 0xED ? 0x9F : k == 1 && b == 0xF4 ? 0x8F : 0xBF;
        if (c < low || c > high) return -1;
    }
    return n;
}

// Moves the whole characters at the front of `bytes` to `out`; with `all`, everything, U+FFFD standing for
// what is none.
void take_characters(std::string& bytes, std::string& out, bool all) {
    size_t i = 0;
    while (i < bytes.size()) {
        const int n = character_length(bytes, i);
        if (n == 0 && !all) break;
        out += n > 0 ? bytes.substr(i, size_t(n)) : "\xEF\xBF\xBD";
        i += n > 0 ? size_t(n) : 1;
    }
    bytes.erase(0, i);
}

}  // namespace

std::vector<std::string> pieces_of(const Tokenizer* tokenizer, std::span<const int> ids,
                                   std::span<const char> known) {
    std::vector<std::string> out(ids.size());
    std::string pending;
    size_t last = 0;  // the piece that pending bytes came from last
    const auto flush = [&] { take_characters(pending, out[last], true); };
    for (size_t i = 0; i < ids.size(); i++) {
        if (!known.empty() && !known[i]) {
            flush();
            continue;
        }
        const std::string_view bytes = tokenizer ? tokenizer->bytes_of(ids[i]) : std::string_view();
        if (bytes.empty()) {
            flush();
            out[i] = format("<%d>", ids[i]);
        } else {
            // What cannot begin or continue the pending character ends it where it stood.
            if (!pending.empty() && character_length(pending + std::string(bytes), 0) < 0) flush();
            pending += bytes;
            take_characters(pending, out[i], false);
        }
        last = i;
    }
    flush();
    return out;
}

std::string output_text(const Tokenizer& tokenizer, std::span<const int> ids,
                        const std::string& finish_reason) {
    return tokenizer.decode(finish_reason == "stop" ? ids.first(ids.size() - 1) : ids, true);
}
