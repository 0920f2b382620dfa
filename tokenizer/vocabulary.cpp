#include "tokenizer/vocabulary.h"

#include <algorithm>

#include "tokenizer/unicode.h"
#include "utils/error.h"

namespace {

struct Alphabet {
    int32_t character[256];  // of every byte
    int16_t byte[0x144];     // of every character, -1 where it stands for none
    uint8_t in_order[256];   // bytes by the rank that GPT-2 gives them
};

Alphabet make_alphabet() {
    Alphabet a;
    std::fill(std::begin(a.byte), std::end(a.byte), int16_t(-1));
    int printable = 0, other = 0;
    const auto prints = [](int b) { return (b >= 33 && b <= 126) || (b >= 161 && b <= 172) || b >= 174; };
    for (int b = 0; b < 256; b++) printable += prints(b);
    int rank = 0;
    for (int b = 0; b < 256; b++) {
        a.character[b] = prints(b) ? b : 0x100 + other;
        a.in_order[prints(b) ? rank++ : printable + other++] = uint8_t(b);
        a.byte[a.character[b]] = int16_t(b);
    }
    return a;
}

const Alphabet& alphabet() {
    static const Alphabet a = make_alphabet();
    return a;
}

// The bytes of a spelling; where a character is not of the alphabet, the whole spelling stands for itself.
std::string bytes_of(const std::string& spelling) {
    std::string out;
    for (size_t at = 0; at < spelling.size();) {
        const Utf8 c = utf8_at(spelling, at);
        if (c.code_point < 0 || c.code_point >= 0x144 || alphabet().byte[c.code_point] < 0) return spelling;
        out += char(alphabet().byte[c.code_point]);
        at += c.length;
    }
    return out;
}

}  // namespace

std::string spelling_of(uint8_t byte) {
    std::string out;
    append_utf8(out, alphabet().character[byte]);
    return out;
}

void VocabularyBuilder::add_token(const std::string& spelling, int64_t id, const std::string& where) {
    if (id < 0 || id >= MAX_VOCABULARY) {
        fail(Exit::BadFile, "%s: the id of '%s' is %lld, outside 0..%d", where.c_str(), spelling.c_str(),
             (long long)id, MAX_VOCABULARY - 1);
    }
    if (!ids_.emplace(spelling, int(id)).second)
        fail(Exit::BadFile, "%s: '%s' occurs twice", where.c_str(), spelling.c_str());
}

int VocabularyBuilder::id_of(const std::string& spelling) const {
    const auto found = ids_.find(spelling);
    return found == ids_.end() ? NO_TOKEN : found->second;
}

int VocabularyBuilder::part_of_merge(std::string_view part, const std::string& where, size_t number) const {
    const int id = id_of(std::string(part));
    if (id == NO_TOKEN) {
        fail(Exit::BadFile, "%s:%zu: '%s' of a merge is not in the vocabulary", where.c_str(), number,
             std::string(part).c_str());
    }
    return id;
}

void VocabularyBuilder::add_merge(std::string_view left, std::string_view right, const std::string& where,
                                  size_t number) {
    const int merged = part_of_merge(std::string(left).append(right), where, number);
    definition.merges.push_back(
        {part_of_merge(left, where, number), part_of_merge(right, where, number), merged});
}

void VocabularyBuilder::add_alphabet() {
    for (int rank = 0; rank < 256; rank++)
        add_token(spelling_of(alphabet().in_order[rank]), rank, "byte alphabet");
}

void VocabularyBuilder::add_merge_and_token(std::string_view left, std::string_view right,
                                            const std::string& where, size_t number) {
    std::string merged(left);
    merged.append(right);
    const int id = int(ids_.size());
    if (id >= MAX_VOCABULARY)
        fail(Exit::BadFile, "%s:%zu: more than %d tokens", where.c_str(), number, MAX_VOCABULARY);
    if (!ids_.emplace(merged, id).second) {
        fail(Exit::BadFile,
             "%s:%zu: '%s' is made by an earlier merge already; ids are ambiguous, put vocab.json beside it",
             where.c_str(), number, merged.c_str());
    }
    definition.merges.push_back(
        {part_of_merge(left, where, number), part_of_merge(right, where, number), id});
}

void VocabularyBuilder::set_added(const AddedToken& token, const std::string& where) {
    if (token.id < 0 || token.id >= MAX_VOCABULARY) {
        fail(Exit::BadFile, "%s: the id of '%s' is %d, outside 0..%d", where.c_str(), token.content.c_str(),
             token.id, MAX_VOCABULARY - 1);
    }
    if (token.content.empty())
        fail(Exit::BadFile, "%s: added token %d has no content", where.c_str(), token.id);
    added_[token.id] = token;
}

bool VocabularyBuilder::has_added(const std::string& content) const {
    return std::any_of(added_.begin(), added_.end(),
                       [&](const auto& entry) { return entry.second.content == content; });
}

void VocabularyBuilder::mark_special(const std::string& content) {
    for (auto& [id, token] : added_) token.special |= token.content == content;
}

TokenizerDefinition VocabularyBuilder::finish() {
    int size = 0;
    for (const auto& [spelling, id] : ids_) size = std::max(size, id + 1);
    for (const auto& [id, token] : added_) size = std::max(size, id + 1);
    definition.bytes.resize(size_t(size));
    std::vector<bool> taken(size_t(size), false);
    for (const auto& [spelling, id] : ids_) {
        if (taken[size_t(id)])
            fail(Exit::BadFile, "%s: two tokens have the id %d", definition.name.c_str(), id);
        taken[size_t(id)] = true;
        definition.bytes[size_t(id)] = bytes_of(spelling);
    }
    std::unordered_map<std::string, int> contents;
    for (const auto& [id, token] : added_) {
        const auto [other, is_new] = contents.emplace(token.content, id);
        if (!is_new) {
            fail(Exit::BadFile, "%s: added token '%s' has two ids, %d and %d", definition.name.c_str(),
                 token.content.c_str(), std::min(id, other->second), std::max(id, other->second));
        }
        definition.bytes[size_t(id)] = token.content;
        definition.added.push_back(token);
    }
    std::sort(definition.added.begin(), definition.added.end(),
              [](const auto& a, const auto& b) { return a.id < b.id; });
    for (int byte = 0; byte < 256; byte++)
        definition.byte_ids[size_t(byte)] = id_of(spelling_of(uint8_t(byte)));
    return std::move(definition);
}
