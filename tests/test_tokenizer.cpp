// The tokenizer against golden ids, its built-in byte form, and streaming decode.
#include <gtest/gtest.h>

#include <sstream>

#include "tokenizer/byte_tokenizer.h"
#include "tokenizer/tokenizer.h"
#include "tokenizer/unicode.h"
#include "utils/files.h"
#include "utils/json.h"
#include "utils/philox.h"

namespace {

const char* QWEN3 = "../shared/data/tokenizer/qwen3-sdar";

TEST(ByteTokenizer, IdsAreTheBytesAndTheConstants) {
    const auto t = load_tokenizer("bytes");
    EXPECT_EQ(t->vocabulary_size(), BYTE_TOKENS);
    EXPECT_LE(BYTE_TOKENS, BYTE_VOCABULARY);
    EXPECT_EQ(t->encode("A\xFF\n"), (std::vector<int>{65, 255, 10}));
    EXPECT_EQ(t->encode("<|im_end|>").size(), 10u);
    EXPECT_EQ(t->encode("a<|im_end|><|MASK|>", true), (std::vector<int>{'a', BYTE_IM_END, BYTE_MASK}));
    EXPECT_EQ(t->eos(), BYTE_END_OF_TEXT);
    EXPECT_EQ(t->mask(), BYTE_MASK);
    EXPECT_EQ(t->bos(), NO_TOKEN);
    EXPECT_EQ(t->id_of("<|im_start|>"), BYTE_IM_START);
    EXPECT_EQ(t->id_of("<|im_star|>"), NO_TOKEN);
    EXPECT_EQ(t->decode(std::vector<int>{'h', BYTE_IM_END, 'i'}), "h<|im_end|>i");
    EXPECT_EQ(t->decode(std::vector<int>{'h', BYTE_IM_END, 'i'}, true), "hi");
}

TEST(ByteTokenizer, IdsWithoutTextDecodeToNothing) {
    const auto t = load_tokenizer("bytes");
    EXPECT_EQ(t->decode(std::vector<int>{-1, 260, 1 << 30, INT32_MIN, 'x'}), "x");
    EXPECT_EQ(t->bytes_of(263), "");
    EXPECT_FALSE(t->is_special(-5));
}

TEST(Decode, BrokenUtf8IsReplacedAsPythonDoes) {
    const auto t = load_tokenizer("bytes");
    const auto decode = [&](std::string bytes) { return t->decode(t->encode(bytes)); };
    // bytes.decode('utf-8', 'replace'): one U+FFFD for every longest prefix of a character
    const std::string R = "\xEF\xBF\xBD";
    EXPECT_EQ(decode("a\xE2\x82z"), "a" + R + "z");
    EXPECT_EQ(decode("\xF0\x9F\x92"), R);
    EXPECT_EQ(decode("\xED\xA0\x80"), R + R + R);  // a surrogate
    EXPECT_EQ(decode("\xC0\xAF"), R + R);          // a long form
    EXPECT_EQ(decode("\xF4\x90\x80\x80"), R + R + R + R);
    EXPECT_EQ(decode("\xE2\xE2\x82\xAC"), R + "\xE2\x82\xAC");
}

TEST(StreamDecoder, NeverSplitsACharacter) {
    const auto t = load_tokenizer("bytes");
    const std::string text = "é€😀x";
    StreamDecoder stream(*t);
    std::string out;
    for (const int id : t->encode(text)) {
        const std::string part = stream.feed(id);
        for (size_t at = 0; at < part.size();) {
            const Utf8 c = utf8_at(part, at);
            EXPECT_EQ(c.kind, Utf8::Whole);
            at += c.length;
        }
        out += part;
    }
    EXPECT_EQ(out, text);
    EXPECT_EQ(stream.flush(), "");
    EXPECT_EQ(stream.feed(0xE2), "");
    EXPECT_EQ(stream.feed(0x82), "");
    EXPECT_EQ(stream.flush(), "\xEF\xBF\xBD");
    EXPECT_EQ(stream.flush(), "");
    EXPECT_EQ(stream.feed(0xE2), "");
    EXPECT_EQ(stream.feed('a'),
              "\xEF\xBF\xBD"
              "a");
}

TEST(StreamDecoder, IsDecodeInPieces) {
    const auto t = load_tokenizer("bytes");
    Rng rng(11, Stream::Task);
    for (int round = 0; round < 300; round++) {
        std::vector<int> ids;
        for (int i = 0; i < 12; i++)
            ids.push_back(rng.below(3) ? int(0xC0 + rng.below(60)) : int(rng.below(262)));
        StreamDecoder stream(*t, true);
        std::string out;
        for (const int id : ids) out += stream.feed(id);
        out += stream.flush();
        EXPECT_EQ(out, t->decode(ids, true));
    }
}

class Qwen3 : public testing::Test {
  protected:
    static void SetUpTestSuite() {
        if (has_tokenizer(QWEN3)) tokenizer = load_tokenizer(QWEN3);
    }
    static void TearDownTestSuite() { tokenizer.reset(); }
    void SetUp() override {
        if (!tokenizer) GTEST_SKIP() << QWEN3 << " is not there";
    }
    static std::unique_ptr<Tokenizer> tokenizer;
};
std::unique_ptr<Tokenizer> Qwen3::tokenizer;

TEST_F(Qwen3, GivesTheIdsOfTheGoldenVectors) {
    const std::string inputs = read_text("../shared/data/tokenizer/vectors/qwen2.inp");
    std::istringstream expected(read_text("../shared/data/tokenizer/vectors/qwen2.out"));
    const std::string separator = "\n__ggml_vocab_test__\n";
    int n = 0;
    for (size_t at = 0;; n++) {
        const size_t end = inputs.find(separator, at);
        std::string line;
        if (end == std::string::npos || !std::getline(expected, line)) break;
        std::istringstream numbers(line);
        std::vector<int> want;
        for (int id; numbers >> id;) want.push_back(id);
        const std::string text = inputs.substr(at, end - at);
        EXPECT_EQ(tokenizer->encode(text), want) << text;
        at = end + separator.size();
    }
    EXPECT_EQ(n, 46);
}

TEST_F(Qwen3, GivesTheIdsOfTheGoldenTexts) {
    int n = 0;
    read_jsonl("../shared/fixtures/tokenizer_qwen3.jsonl", [&](const Json& line, const std::string& where) {
        const auto want = line.at("ids").get<std::vector<int>>();
        const std::string text = line.contains("text") ? line["text"] : line["chat"];
        EXPECT_EQ(tokenizer->encode(text, true), want) << where;
        EXPECT_EQ(tokenizer->encode(tokenizer->decode(want), true), want) << where;
        n++;
    });
    EXPECT_EQ(n, 305);
}

TEST_F(Qwen3, KnowsItsSpecialTokens) {
    EXPECT_EQ(tokenizer->vocabulary_size(), 151670);
    EXPECT_EQ(tokenizer->eos(), 151643);
    EXPECT_EQ(tokenizer->mask(), 151669);
    EXPECT_EQ(tokenizer->id_of("<think>"), 151667);
    EXPECT_TRUE(tokenizer->is_special(151645));
    EXPECT_TRUE(tokenizer->is_special(151669));   // by the list of special tokens
    EXPECT_FALSE(tokenizer->is_special(151667));  // <think> is text to read
    EXPECT_GT(tokenizer->encode("<|im_end|>").size(), 1u);
    EXPECT_EQ(tokenizer->decode(std::vector<int>{151935, 151670}), "");
}

}  // namespace
