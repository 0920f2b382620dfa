// added_tokens.h -- tokens that are found by their text before anything else happens to it: <|im_end|>,
// <think>, ...
#pragma once
#include <string>
#include <string_view>
#include <vector>

#include "tokenizer/bpe.h"

struct AddedToken {
    int id;
    std::string content;
    bool special;     // left out where a text is decoded for reading
    bool normalized;  // looked for after NFC instead of before
};

// The leftmost token, the longest where several begin there.
class AddedTokenMatcher {
  public:
    explicit AddedTokenMatcher(std::vector<AddedToken> tokens);
    struct Match {
        size_t begin, end;
        int id;  // NO_TOKEN: there is none from `begin` on, and begin = end = text.size()
    };
    Match find(std::string_view text, size_t from) const;
    int id_of(std::string_view content) const;  // NO_TOKEN where there is none

  private:
    std::vector<AddedToken> tokens_;  // sorted by content
    bool first_byte_[256] = {};       // that some token begins with
};
