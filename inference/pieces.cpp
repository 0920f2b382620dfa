#include "inference/pieces.h"

#include "tokenizer/unicode.h"
#include "utils/error.h"

std::vector<std::string> pieces_of(const Tokenizer* tokenizer, std::span<const int> ids,
                                   std::span<const char> known) {
    std::vector<std::string> out(ids.size());
    std::string pending;  // the beginning of a character
    size_t last = 0;      // the piece of its last byte
    const auto flush = [&] {
        if (!pending.empty()) append_utf8(out[last], 0xFFFD);
        pending.clear();
    };
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
            // What does not continue the pending character ends it where it stood.
            const Utf8 c = utf8_at(pending + std::string(bytes), 0);
            if (c.kind == Utf8::Broken && c.length == pending.size()) flush();
            pending += bytes;
            move_characters(pending, out[i]);
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
