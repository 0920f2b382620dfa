// Where texts are cut. The expected pieces are those of the regular expressions, by Python's `regex` module.
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "tokenizer/pre_tokenizer.h"
#include "utils/philox.h"

namespace {

using Pieces = std::vector<std::string>;

Pieces pieces_of(PreTokenizer kind, const std::string& text) {
    Pieces out;
    for (size_t begin = 0; begin < text.size();) {
        const size_t end = piece_end(kind, text, begin);
        EXPECT_TRUE(end > begin && end <= text.size()) << text;
        if (end <= begin) break;
        out.push_back(text.substr(begin, end - begin));
        begin = end;
    }
    return out;
}

TEST(PreTokenizer, Qwen2) {
    const auto cut = [](const std::string& text) { return pieces_of(PreTokenizer::Qwen2, text); };
    EXPECT_EQ(cut("Hello  world"), (Pieces{"Hello", " ", " world"}));
    EXPECT_EQ(cut("don't I'LL it'S y'all"), (Pieces{"don", "'t", " I", "'LL", " it", "'S", " y", "'all"}));
    EXPECT_EQ(cut("a'\xC5\xBF"
                  "b"),
              (Pieces{"a", "'\xC5\xBF", "b"}));
    EXPECT_EQ(cut("12345 67"), (Pieces{"1", "2", "3", "4", "5", " ", "6", "7"}));
    EXPECT_EQ(cut("x\n\n  y"), (Pieces{"x", "\n\n", " ", " y"}));
    EXPECT_EQ(cut("a  \n \r\n b"), (Pieces{"a", "  \n \r\n", " b"}));
    EXPECT_EQ(cut("hi!!\n\nyo"), (Pieces{"hi", "!!\n\n", "yo"}));
    EXPECT_EQ(cut("\tfoo(bar) "), (Pieces{"\tfoo", "(bar", ")", " "}));
    EXPECT_EQ(cut(" !?"), (Pieces{" !?"}));
    EXPECT_EQ(cut("  !"), (Pieces{" ", " !"}));
    EXPECT_EQ(cut("\n a"), (Pieces{"\n", " a"}));
    EXPECT_EQ(cut("日本,語"), (Pieces{"日本", ",語"}));
    EXPECT_EQ(cut("e\xCC\x81x"), (Pieces{"e", "\xCC\x81x"}));
    EXPECT_EQ(cut("\xC2\xA0z"), (Pieces{"\xC2\xA0z"}));
    EXPECT_EQ(cut("\xFF\xFE"
                  "ab"),
              (Pieces{"\xFF\xFE", "ab"}));
}

TEST(PreTokenizer, Gpt2) {
    const auto cut = [](const std::string& text) { return pieces_of(PreTokenizer::Gpt2, text); };
    EXPECT_EQ(cut("Hello  world"), (Pieces{"Hello", " ", " world"}));
    EXPECT_EQ(cut("don't I'LL"), (Pieces{"don", "'t", " I", "'", "LL"}));
    EXPECT_EQ(cut("12345 67"), (Pieces{"12345", " 67"}));
    EXPECT_EQ(cut("x\n\n  y"), (Pieces{"x", "\n\n ", " y"}));
    EXPECT_EQ(cut("hi!!\nyo"), (Pieces{"hi", "!!", "\n", "yo"}));
    EXPECT_EQ(cut("\tfoo(bar)"), (Pieces{"\t", "foo", "(", "bar", ")"}));
    EXPECT_EQ(cut("a \n"), (Pieces{"a", " \n"}));
}

TEST(PreTokenizer, PiecesAreTheText) {
    Rng rng(1, Stream::Task);
    const std::string hot[] = {"'",    "s",        "L", " ",       " ",  "\n",           "\r",
                               "\t",   "7",        "!", "é",       "日", "\xE3\x80\x80", "\xCC\x81",
                               "\xFF", "\xE2\x82", "😀", "\xC5\xBF"};
    for (int i = 0; i < 20000; i++) {
        std::string text;
        for (uint32_t n = 1 + rng.below(12); n-- > 0;) text += hot[rng.below(std::size(hot))];
        for (const PreTokenizer kind : {PreTokenizer::Qwen2, PreTokenizer::Gpt2, PreTokenizer::WholeText}) {
            std::string joined;
            for (const std::string& piece : pieces_of(kind, text)) joined += piece;
            EXPECT_EQ(joined, text);
        }
    }
}

TEST(PreTokenizer, ExpressionsAreRecognisedWhole) {
    PreTokenizer kind = PreTokenizer::WholeText;
    EXPECT_TRUE(pre_tokenizer_of(
        R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)", &kind));
    EXPECT_EQ(kind, PreTokenizer::Gpt2);
    EXPECT_TRUE(pre_tokenizer_of(
        R"('(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+)",
        &kind));
    EXPECT_EQ(kind, PreTokenizer::Qwen2);
    EXPECT_FALSE(pre_tokenizer_of(
        R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)",
        &kind));
    EXPECT_FALSE(pre_tokenizer_of("", &kind));
}

}  // namespace
