// vocabulary.h -- puts a TokenizerDefinition together from the spellings that Hugging Face files use.
//
// Those files write every byte as a printable character (GPT-2's alphabet): bytes 33-126, 161-172 and 174-255
// as themselves, the other 68 as U+0100, U+0101, ... in order, so that a space is U+0120.
#pragma once
#include <string>
#include <string_view>
#include <unordered_map>

#include "tokenizer/tokenizer.h"

constexpr int MAX_VOCABULARY = 1 << 22;  // ids; far beyond any model, and small enough to be allocated

std::string spelling_of(uint8_t byte);  // a byte in GPT-2's alphabet

class VocabularyBuilder {
  public:
    // `where` names file and field in every message.
    void expect(size_t tokens) { ids_.reserve(tokens); }
    void add_token(const std::string& spelling, int64_t id, const std::string& where);
    // Both parts and their union must be tokens. Messages say where:number.
    void add_merge(std::string_view left, std::string_view right, const std::string& where, size_t number);
    // For a merges file alone: ids 0-255 are the bytes in the order of the alphabet, then every merge makes
    // the next id.
    void add_alphabet();
    void add_merge_and_token(std::string_view left, std::string_view right, const std::string& where,
                             size_t number);

    int id_of(const std::string& spelling) const;                       // NO_TOKEN where there is none
    void set_added(const AddedToken& token, const std::string& where);  // replaces one of the same id
    bool has_added(const std::string& content) const;
    void mark_special(const std::string& content);  // nothing where there is no such added token

    TokenizerDefinition definition;  // all but `bytes`, `byte_ids` and `added`, which finish() fills in
    TokenizerDefinition finish();

  private:
    int part_of_merge(std::string_view part, const std::string& where, size_t number) const;
    std::unordered_map<std::string, int> ids_;
    std::unordered_map<int, AddedToken> added_;
};
