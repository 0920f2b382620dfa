#include "tokenizer/added_tokens.h"

#include <algorithm>

AddedTokenMatcher::AddedTokenMatcher(std::vector<AddedToken> tokens) : tokens_(std::move(tokens)) {
    std::sort(tokens_.begin(), tokens_.end(),
              [](const auto& a, const auto& b) { return a.content < b.content; });
    for (const AddedToken& token : tokens_) first_byte_[uint8_t(token.content[0])] = true;
}

AddedTokenMatcher::Match AddedTokenMatcher::find(std::string_view text, size_t from) const {
    for (size_t begin = from; begin < text.size(); begin++) {
        if (!first_byte_[uint8_t(text[begin])]) continue;
        // Byte by byte, narrow [low, high) to the tokens that agree with the text so far.
        auto low = tokens_.begin(), high = tokens_.end();
        Match match = {begin, begin, NO_TOKEN};
        for (size_t depth = 0; low != high && begin + depth < text.size(); depth++) {
            const uint8_t byte = uint8_t(text[begin + depth]);
            const auto before = [&](const AddedToken& t, uint8_t b) {
                return t.content.size() <= depth || uint8_t(t.content[depth]) < b;
            };
            const auto after = [&](uint8_t b, const AddedToken& t) {
                return t.content.size() > depth && uint8_t(t.content[depth]) > b;
            };
            low = std::lower_bound(low, high, byte, before);
            high = std::upper_bound(low, high, byte, after);
            if (low != high && low->content.size() == depth + 1) match = {begin, begin + depth + 1, low->id};
        }
        if (match.id != NO_TOKEN) return match;
    }
    return {text.size(), text.size(), NO_TOKEN};
}

int AddedTokenMatcher::id_of(std::string_view content) const {
    const auto at = std::lower_bound(tokens_.begin(), tokens_.end(), content,
                                     [](const AddedToken& t, std::string_view c) { return t.content < c; });
    return at != tokens_.end() && at->content == content ? at->id : NO_TOKEN;
}
