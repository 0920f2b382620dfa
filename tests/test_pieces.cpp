#include <gtest/gtest.h>

#include "inference/pieces.h"
#include "tokenizer/byte_tokenizer.h"
#include "utils/json.h"
#include "utils/philox.h"

namespace {

using Texts = std::vector<std::string>;

const Tokenizer& bytes() {
    static const Tokenizer tokenizer(byte_tokenizer_definition());
    return tokenizer;
}

std::vector<int> ids_of(const std::string& text) {
    std::vector<int> ids;
    for (const char c : text) ids.push_back(uint8_t(c));
    return ids;
}

}  // namespace

TEST(Pieces, ACharacterStandsWholeInItsLastToken) {
    EXPECT_EQ(pieces_of(&bytes(), ids_of("aé€😀!")), (Texts{"a", "", "é", "", "", "€", "", "", "", "😀", "!"}));
}

TEST(Pieces, WhatIsNoCharacterIsReplacedWhereItStood) {
    const std::string bad = "\xEF\xBF\xBD";
    EXPECT_EQ(pieces_of(&bytes(), ids_of("\xE2\x82"
                                         "a")),
              (Texts{"", bad, "a"}));
    EXPECT_EQ(pieces_of(&bytes(), ids_of("\x80z\xC3")), (Texts{bad, "z", bad}));
    EXPECT_EQ(pieces_of(&bytes(), ids_of("\xC0\xAF")), (Texts{bad, bad}));           // overlong
    EXPECT_EQ(pieces_of(&bytes(), ids_of("\xED\xA0\x80")), (Texts{bad, bad, bad}));  // a surrogate
}

TEST(Pieces, MasksAndSpecialTokensEndACharacter) {
    const std::string bad = "\xEF\xBF\xBD";
    std::vector<int> ids = ids_of("é");
    ids.insert(ids.begin() + 1, 7);
    EXPECT_EQ(pieces_of(&bytes(), ids, std::vector<char>{1, 0, 1}), (Texts{bad, "", bad}));
    ids[1] = BYTE_IM_END;
    EXPECT_EQ(pieces_of(&bytes(), ids), (Texts{bad, "<|im_end|>", bad}));
    ids[1] = BYTE_TOKENS + 1;
    EXPECT_EQ(pieces_of(&bytes(), ids)[1], "<261>");
    EXPECT_EQ(pieces_of(nullptr, std::vector<int>{5, 6}), (Texts{"<5>", "<6>"}));
}

TEST(Pieces, AnyBytesTogetherAreTheWholeText) {
    Rng rng(1, Stream::Task);
    for (int round = 0; round < 200; round++) {
        std::vector<int> ids;
        for (int i = 0; i < 24; i++)
            ids.push_back(int(rng.below(2) ? 0x80 + rng.below(128) : rng.below(256)));
        std::string together;
        for (const std::string& piece : pieces_of(&bytes(), ids)) together += piece;
        EXPECT_NO_THROW((void)nlohmann::json(together).dump()) << round;  // valid UTF-8
        EXPECT_EQ(together, bytes().decode(ids)) << round;
    }
}

TEST(OutputText, LeavesTheStopTokenOut) {
    std::vector<int> ids = ids_of("ab");
    EXPECT_EQ(output_text(bytes(), ids, "length"), "ab");
    ids.push_back('!');
    EXPECT_EQ(output_text(bytes(), ids, "stop"), "ab");
    ids.back() = BYTE_IM_END;
    EXPECT_EQ(output_text(bytes(), ids, "stop"), "ab");
    EXPECT_EQ(output_text(bytes(), ids, "length"), "ab");  // special tokens are no text
}
