#include "tokenizer/tokenizer.h"

#include "tokenizer/unicode.h"
#include "utils/error.h"

namespace {

std::vector<AddedToken> with_normalized(const std::vector<AddedToken>& tokens, bool normalized) {
    std::vector<AddedToken> out;
    for (const AddedToken& token : tokens) {
        if (token.normalized == normalized) out.push_back(token);
    }
    return out;
}

}  // namespace

Tokenizer::Tokenizer(TokenizerDefinition definition)
    : definition_(std::move(definition)),
      bpe_(definition_.byte_ids, definition_.merges),
      before_nfc_(with_normalized(definition_.added, false)),
      after_nfc_(with_normalized(definition_.added, true)),
      special_(definition_.bytes.size()) {
    for (const AddedToken& token : definition_.added) {
        CHECK(token.id >= 0 && token.id < vocabulary_size() && !token.content.empty(), "added token %d '%s'",
              token.id, token.content.c_str());
        special_[size_t(token.id)] = token.special;
    }
}

std::vector<int> Tokenizer::encode(std::string_view text, bool parse_special) const {
    std::vector<int> ids;
    encode(text, parse_special, ids);
    return ids;
}

void Tokenizer::encode(std::string_view text, bool parse_special, std::vector<int>& ids) const {
    Bpe::Session session(bpe_);
    if (!parse_special) return encode_text(text, false, ids, session);
    for (size_t at = 0; at < text.size();) {
        const auto match = before_nfc_.find(text, at);
        encode_text(text.substr(at, match.begin - at), true, ids, session);
        if (match.id != NO_TOKEN) ids.push_back(match.id);
        at = match.end;
    }
}

// Text without tokens that are looked for before NFC.
void Tokenizer::encode_text(std::string_view text, bool parse_special, std::vector<int>& ids,
                            Bpe::Session& session) const {
    std::string composed;
    if (definition_.nfc && to_nfc(text, composed)) text = composed;
    if (!parse_special) return encode_pieces(text, ids, session);
    for (size_t at = 0; at < text.size();) {
        const auto match = after_nfc_.find(text, at);
        encode_pieces(text.substr(at, match.begin - at), ids, session);
        if (match.id != NO_TOKEN) ids.push_back(match.id);
        at = match.end;
    }
}

void Tokenizer::encode_pieces(std::string_view text, std::vector<int>& ids, Bpe::Session& session) const {
    for (size_t begin = 0; begin < text.size();) {
        const size_t end = piece_end(definition_.pre_tokenizer, text, begin);
        bpe_.encode(text.substr(begin, end - begin), ids, session);
        begin = end;
    }
}

std::vector<Tokenizer::Segment> Tokenizer::segments(std::string_view text) const {
    std::vector<Segment> out;
    for (size_t at = 0; at < text.size();) {
        const auto match = before_nfc_.find(text, at);
        if (match.begin > at) out.push_back({text.substr(at, match.begin - at), NO_TOKEN});
        if (match.id != NO_TOKEN)
            out.push_back({text.substr(match.begin, match.end - match.begin), match.id});
        at = match.end;
    }
    return out;
}

std::string Tokenizer::decode(std::span<const int> ids, bool skip_special) const {
    std::string bytes, out;
    for (const int id : ids) {
        if (!skip_special || !is_special(id)) bytes += bytes_of(id);
    }
    move_characters(bytes, out);
    if (!bytes.empty()) append_utf8(out, 0xFFFD);
    return out;
}

std::string_view Tokenizer::bytes_of(int id) const {
    return id >= 0 && id < vocabulary_size() ? std::string_view(definition_.bytes[size_t(id)])
                                             : std::string_view();
}

bool Tokenizer::is_special(int id) const { return id >= 0 && id < vocabulary_size() && special_[size_t(id)]; }

int Tokenizer::id_of(std::string_view added_token) const {
    const int id = before_nfc_.id_of(added_token);
    return id != NO_TOKEN ? id : after_nfc_.id_of(added_token);
}

std::string StreamDecoder::feed(int id) {
    std::string out;
    if (skip_special_ && tokenizer_.is_special(id)) return out;
    pending_ += tokenizer_.bytes_of(id);
    move_characters(pending_, out);
    return out;
}

std::string StreamDecoder::flush() {
    std::string out;
    if (!pending_.empty()) append_utf8(out, 0xFFFD);
    pending_.clear();
    return out;
}
