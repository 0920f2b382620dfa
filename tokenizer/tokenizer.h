// tokenizer.h -- text to ids and back: byte-level BPE (Qwen2, Qwen3, GPT-2, LLaDA), and the built-in byte
// tokenizer, which is the case without merges.
//
// encode: added tokens -> NFC -> pieces -> merges of bytes. Any bytes can be encoded: what is not UTF-8 goes
// byte by byte. Nothing is ever added to a text, no begin-of-text either; chat templates write such tokens
// themselves.
#pragma once
#include <array>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "tokenizer/added_tokens.h"
#include "tokenizer/bpe.h"
#include "tokenizer/pre_tokenizer.h"

// What a loader finds out about a tokenizer.
struct TokenizerDefinition {
    std::string name;                // folder or "bytes", for messages
    std::vector<std::string> bytes;  // (vocabulary size) what every id stands for; empty where it has no text
    std::array<int, 256> byte_ids;   // the id of each single byte, NO_TOKEN where there is none
    std::vector<Merge> merges;
    std::vector<AddedToken> added;  // their ids lie inside `bytes`
    PreTokenizer pre_tokenizer = PreTokenizer::Qwen2;
    bool nfc = false;
    std::string bos, eos, pad, mask;  // contents of these added tokens, empty where the files name none
    std::string chat_template;        // Jinja text of the files, only ever compared, never run
};

TokenizerDefinition byte_tokenizer_definition();  // ids in byte_tokenizer.h

class Tokenizer {
  public:
    explicit Tokenizer(TokenizerDefinition definition);

    // parse_special: added tokens written out in the text become their ids. Off, the text cannot contain any,
    // whatever it says: that is what a user's words want.
    std::vector<int> encode(std::string_view text, bool parse_special = false) const;
    void encode(std::string_view text, bool parse_special, std::vector<int>& ids) const;  // appends

    // Always valid UTF-8: U+FFFD stands for what is not. Ids without text are left out, special tokens where
    // asked.
    std::string decode(std::span<const int> ids, bool skip_special = false) const;

    int vocabulary_size() const { return int(definition_.bytes.size()); }  // ids from here on have no text
    std::string_view bytes_of(int id) const;                               // "" for any id without text
    bool is_special(int id) const;
    int id_of(std::string_view added_token) const;  // by its content; NO_TOKEN where there is none
    // NO_TOKEN where the tokenizer's files name none. A model's config.json has the last word on its mask and
    // stop ids.
    int bos() const { return id_of(definition_.bos); }
    int eos() const { return id_of(definition_.eos); }
    int pad() const { return id_of(definition_.pad); }
    int mask() const { return id_of(definition_.mask); }
    const TokenizerDefinition& definition() const { return definition_; }

    // The added tokens of a text and what stands between them, in order; an id of NO_TOKEN marks text.
    struct Segment {
        std::string_view text;
        int id;
    };
    std::vector<Segment> segments(std::string_view text) const;

  private:
    void encode_text(std::string_view text, bool parse_special, std::vector<int>& ids,
                     Bpe::Session& session) const;
    void encode_pieces(std::string_view text, std::vector<int>& ids, Bpe::Session& session) const;

    TokenizerDefinition definition_;
    Bpe bpe_;
    AddedTokenMatcher before_nfc_, after_nfc_;
    std::vector<bool> special_;
};

// Text that arrives id by id: feed() returns whole characters only, flush() whatever never became whole as
// U+FFFD.
class StreamDecoder {
  public:
    explicit StreamDecoder(const Tokenizer& tokenizer, bool skip_special = false)
        : tokenizer_(tokenizer), skip_special_(skip_special) {}
    std::string feed(int id);
    std::string flush();

  private:
    const Tokenizer& tokenizer_;
    bool skip_special_;
    std::string pending_;  // the beginning of a character
};

// `where` is a folder with tokenizer.json, or vocab.json and merges.txt, or merges.txt and
// tokenizer_config.json; or "bytes", the built-in tokenizer. Throws Error(BadFile) naming file and field; a
// pre-tokenizer, normalizer or model that is not known is refused by its name.
std::unique_ptr<Tokenizer> load_tokenizer(const std::string& where);
// True where the folder holds a tokenizer that load_tokenizer would try to read.
bool has_tokenizer(const std::string& folder);
