// Tokenizer files: a small vocabulary in every form they come in, and what is refused.
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <filesystem>

#include "tests/fault_of.h"
#include "tests/temporary_folder.h"
#include "tokenizer/tokenizer.h"
#include "tokenizer/unicode.h"
#include "utils/error.h"
#include "utils/files.h"
#include "utils/json.h"
#include "utils/philox.h"

namespace {

// Spellings in GPT-2's alphabet: a space is Ġ, a line end Ċ, the bytes of é are Ã and ©.
const std::vector<std::pair<std::string, std::string>> MERGES = {
    {"t", "h"}, {"th", "e"}, {"Ġ", "the"}, {"Ã", "©"}, {"#", "#"},  {"##", "##"},
    {"Ġ", "Ġ"}, {"1", "2"},  {"Ċ", "Ċ"},   {"a", "n"}, {"an", "d"}, {"Ġ", "and"}};

std::string alphabet_spelling(int rank) {  // GPT-2's order of the bytes
    std::vector<int32_t> printable, other;
    for (int b = 0; b < 256; b++) {
        const bool prints = (b >= 33 && b <= 126) || (b >= 161 && b <= 172) || b >= 174;
        if (prints) printable.push_back(b);
        if (!prints) other.push_back(0x100 + int32_t(other.size()));
    }
    printable.insert(printable.end(), other.begin(), other.end());
    std::string out;
    append_utf8(out, printable[size_t(rank)]);
    return out;
}

class LoadTokenizer : public testing::Test {
  protected:
    void write(const std::string& name, const std::string& content) {
        write_file_atomic(folder + "/" + name, content);
    }

    static std::string merges_txt() {
        std::string out = "#version: 0.2\n";
        for (const auto& [left, right] : MERGES) out += left + " " + right + "\n";
        return out;
    }
    static Json vocab(int shift = 0) {  // ids need not be in the order of the merges
        Json out = Json::object();
        for (int rank = 0; rank < 256; rank++) out[alphabet_spelling(rank)] = rank + shift;
        int id = 256;
        for (const auto& [left, right] : MERGES) out[left + right] = shift + id++;
        return out;
    }
    static Json tokenizer_json(bool pairs) {
        Json merges = Json::array();
        for (const auto& [left, right] : MERGES)
            merges.push_back(pairs ? Json({left, right}) : Json(left + " " + right));
        Json root = Json::parse(
            R"({"version": "1.0", "normalizer": {"type": "NFC"}, "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
            {"type": "Split", "pattern": {"Regex": ""}, "behavior": "Isolated", "invert": false},
            {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": false, "use_regex": false}]},
            "post_processor": null, "decoder": {"type": "ByteLevel"}, "added_tokens": [
            {"id": 268, "content": "<|im_end|>", "single_word": false, "lstrip": false, "rstrip": false, "normalized": false, "special": true},
            {"id": 269, "content": "<|im_end|>>", "special": false, "normalized": false},
            {"id": 271, "content": "caf\u00e9", "special": false, "normalized": true}]})");
        root["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"] =
            R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
        root["model"] = {{"type", "BPE"},     {"dropout", nullptr}, {"unk_token", nullptr},
                         {"fuse_unk", false}, {"vocab", vocab()},   {"merges", merges}};
        return root;
    }
    void write_merges_folder(const std::string& config = R"({"tokenizer_class": "Qwen2Tokenizer"})") {
        write("merges.txt", merges_txt());
        write("tokenizer_config.json", config);
    }

    std::string error() {
        return fault_of(Exit::BadFile, [&] { load_tokenizer(folder); });
    }
    void expect_error(const std::string& part) {
        EXPECT_NE(error().find(part), std::string::npos) << error() << "\nlacks " << part;
    }
    // tokenizer.json with one value replaced
    void expect_refused(const char* pointer, const Json& value, const std::string& part) {
        Json root = tokenizer_json(true);
        root[Json::json_pointer(pointer)] = value;
        write("tokenizer.json", root.dump());
        expect_error(part);
    }

    const TemporaryFolder own;
    std::string folder = own.path();
};

// "the" in this vocabulary: bytes are their rank ('!' = 0), merges follow from 256
constexpr int THE = 257, SPACE_THE = 258, E_ACUTE = 259, HASHES = 261, SPACES = 262, ONE = 16, TWO = 17,
              EXCLAMATION = 0;

void expect_usual_ids(const Tokenizer& t) {
    EXPECT_EQ(t.encode("the the!"), (std::vector<int>{THE, SPACE_THE, EXCLAMATION}));
    EXPECT_EQ(t.encode("####"), (std::vector<int>{HASHES}));
    EXPECT_EQ(t.encode("12"), (std::vector<int>{ONE, TWO}));  // digits are cut apart before any merge
    EXPECT_EQ(t.encode("   the"), (std::vector<int>{SPACES, SPACE_THE}));
    EXPECT_EQ(t.encode("\xC3\xA9"
                       "e\xCC\x81"),
              (std::vector<int>{E_ACUTE, E_ACUTE}));  // NFC
}

TEST_F(LoadTokenizer, MergesAlone) {
    write_merges_folder();
    const auto t = load_tokenizer(folder);
    EXPECT_EQ(t->vocabulary_size(), 268);
    expect_usual_ids(*t);
}

TEST_F(LoadTokenizer, VocabularyAndMerges) {
    write_merges_folder();
    write("vocab.json", vocab(1000).dump());
    const auto t = load_tokenizer(folder);
    EXPECT_EQ(t->vocabulary_size(), 1268);
    EXPECT_EQ(t->encode("the the!"), (std::vector<int>{1000 + THE, 1000 + SPACE_THE, 1000}));
    EXPECT_EQ(t->decode(std::vector<int>{5, 1000 + SPACE_THE}), " the");
}

TEST_F(LoadTokenizer, TokenizerJsonWithEitherSyntaxOfMerges) {
    for (const bool pairs : {false, true}) {
        write("tokenizer.json", tokenizer_json(pairs).dump());
        const auto t = load_tokenizer(folder);
        EXPECT_EQ(t->vocabulary_size(), 272);
        expect_usual_ids(*t);
        EXPECT_EQ(t->decode(std::vector<int>{270}), "");  // a hole
    }
}

TEST_F(LoadTokenizer, AddedTokensAreFoundLongestFirstAndNormalizedOnesAfterNfc) {
    write("tokenizer.json", tokenizer_json(true).dump());
    const auto t = load_tokenizer(folder);
    EXPECT_EQ(t->encode("the<|im_end|>the<|im_end|>>", true), (std::vector<int>{THE, 268, THE, 269}));
    EXPECT_EQ(t->encode("<|im_end|<|im_end|>", true).back(), 268);
    EXPECT_EQ(t->encode("caf\xC3\xA9 cafe\xCC\x81", true), (std::vector<int>{271, t->encode(" ")[0], 271}));
    EXPECT_EQ(t->encode("cafe", true).size(), 4u);
    for (const int id : t->encode("<|im_end|>café")) EXPECT_LT(id, 268);
    // a mark after a token composes with nothing inside it
    EXPECT_EQ(t->encode("<|im_end|>\xCC\xB8", true)[0], 268);
    EXPECT_EQ(t->decode(std::vector<int>{THE, 268, 269, 271}, true), "the<|im_end|>>café");
}

TEST_F(LoadTokenizer, ConfigurationAddsTokensAndNamesTheirRoles) {
    write("tokenizer.json", tokenizer_json(true).dump());
    write(
        "tokenizer_config.json",
        R"({"eos_token": {"content": "<|im_end|>"}, "mask_token": "<M>", "additional_special_tokens": ["<X>"],
        "added_tokens_decoder": {"270": {"content": "<M>", "special": false}, "273": {"content": "<X>"}}, "chat_template": "{{ x }}"})");
    const auto t = load_tokenizer(folder);
    EXPECT_EQ(t->vocabulary_size(), 274);
    EXPECT_EQ(t->eos(), 268);
    EXPECT_EQ(t->mask(), 270);
    EXPECT_TRUE(t->is_special(270));
    EXPECT_TRUE(t->is_special(273));
    EXPECT_EQ(t->encode("<M><X>", true), (std::vector<int>{270, 273}));
    EXPECT_EQ(t->definition().chat_template, "{{ x }}");
    write("chat_template.jinja", "{{ y }}");
    EXPECT_EQ(load_tokenizer(folder)->definition().chat_template, "{{ y }}");
}

TEST_F(LoadTokenizer, AddedTokensFileAndRolesFromTheMap) {
    write_merges_folder();
    write("added_tokens.json", R"({"<|x|>": 268, "<y>": 269})");
    write("special_tokens_map.json", R"({"eos_token": "<|x|>"})");
    const auto t = load_tokenizer(folder);
    EXPECT_EQ(t->eos(), 268);
    EXPECT_TRUE(t->is_special(268));
    EXPECT_FALSE(t->is_special(269));
}

TEST_F(LoadTokenizer, Gpt2) {
    write("tokenizer_config.json", R"({"tokenizer_class": "GPT2Tokenizer", "eos_token": "and"})");
    write("merges.txt", merges_txt());
    const auto t = load_tokenizer(folder);
    EXPECT_EQ(t->encode("12"), (std::vector<int>{263}));  // a run of digits is one piece
    EXPECT_EQ(t->encode("e\xCC\x81").size(), 3u);         // no NFC
    EXPECT_EQ(t->eos(), 266);  // named in the configuration, found in the vocabulary
    Json root = tokenizer_json(true);
    root["pre_tokenizer"] = {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"trim_offsets", true}};
    root["normalizer"] = nullptr;
    write("tokenizer.json", root.dump());
    EXPECT_EQ(load_tokenizer(folder)->encode("12"), (std::vector<int>{263}));
}

// For every text: what comes back is its NFC, and encoding that again gives the same ids.
TEST_F(LoadTokenizer, DecodingAnEncodingIsNfc) {
    write("tokenizer.json", tokenizer_json(true).dump());
    const auto t = load_tokenizer(folder);
    Rng rng(5, Stream::Task);
    const int32_t hot[] = {'t',   'h',  'e',    ' ',     ' ',    '#', '\n', '1', '\'', 0x301,
                           0x323, 0xE9, 0x65E5, 0x1F600, 0x3000, 0,   '<',  '|', '>'};
    for (int i = 0; i < 5000; i++) {
        std::string text, nfc;
        for (uint32_t n = rng.below(20); n-- > 0;)
            append_utf8(text, rng.below(8) ? hot[rng.below(std::size(hot))] : int32_t(rng.below(0xD800)));
        if (!to_nfc(text, nfc)) nfc = text;
        const auto ids = t->encode(text);
        EXPECT_EQ(t->decode(ids), nfc);
        EXPECT_EQ(t->encode(nfc), ids);
        StreamDecoder stream(*t);
        std::string streamed;
        for (const int id : ids) streamed += stream.feed(id);
        EXPECT_EQ(streamed + stream.flush(), nfc);
    }
}

// No bytes are lost, whatever they are.
TEST_F(LoadTokenizer, AnyBytesCanBeEncoded) {
    write_merges_folder(R"({"tokenizer_class": "GPT2Tokenizer"})");
    const auto t = load_tokenizer(folder);
    Rng rng(6, Stream::Task);
    for (int i = 0; i < 3000; i++) {
        std::string text, back;
        for (uint32_t n = rng.below(30); n-- > 0;) text += char(rng.below(256));
        for (const int id : t->encode(text, true)) back += t->bytes_of(id);
        EXPECT_EQ(back, text);
    }
}

TEST_F(LoadTokenizer, WhatIsNotKnownIsRefusedByName) {
    expect_refused("/normalizer", {{"type", "NFKC"}}, "\"NFKC\"");
    expect_refused("/normalizer", {{"type", "Sequence"}, {"normalizers", {{{"type", "Lowercase"}}}}},
                   "\"Lowercase\"");
    expect_refused("/pre_tokenizer", {{"type", "Metaspace"}}, "\"Metaspace\"");
    expect_refused("/pre_tokenizer", nullptr, "pre_tokenizer null");
    expect_refused("/pre_tokenizer/pretokenizers/0/pattern/Regex", "\\w+", "\\w+");
    expect_refused("/pre_tokenizer/pretokenizers/0/behavior", "Removed", "Removed");
    expect_refused("/pre_tokenizer/pretokenizers/0/type", "Digits", "\"Digits\"");
    expect_refused("/pre_tokenizer/pretokenizers/1/add_prefix_space", true, "add_prefix_space");
    expect_refused("/pre_tokenizer/pretokenizers/1/use_regex", true, "\"ByteLevel\"");
    expect_refused("/decoder", {{"type", "WordPiece"}}, "\"WordPiece\"");
    expect_refused("/model/type", "Unigram", "\"Unigram\"");
    expect_refused("/model/byte_fallback", true, "byte_fallback");
    expect_refused("/model/ignore_merges", true, "ignore_merges");
    expect_refused("/model/dropout", 0.1, "dropout");
    expect_refused("/model/continuing_subword_prefix", "##", "continuing_subword_prefix");
    expect_refused("/added_tokens/0/lstrip", true, "lstrip");
    write("merges.txt", merges_txt());
    std::filesystem::remove(folder + "/tokenizer.json");
    write("tokenizer_config.json", R"({"tokenizer_class": "LlamaTokenizer"})");
    expect_error("LlamaTokenizer");
    write("tokenizer_config.json", "{}");
    expect_error("tokenizer_class is missing");
    write("tokenizer_config.json", R"({"tokenizer_class": "Qwen2Tokenizer", "add_prefix_space": true})");
    expect_error("add_prefix_space");
}

TEST_F(LoadTokenizer, UnsoundFilesAreRefused) {
    expect_refused("/model/merges/3", {"Ã"}, "model.merges:3");
    expect_refused("/model/merges/3", "a  b", "neither");
    expect_refused("/model/merges/3", {"q", "q"}, "'qq'");
    expect_refused("/model/merges", "x", "merges: expected an array");
    expect_refused("/model/vocab/the", -1, "-1");
    expect_refused("/model/vocab/the", 1 << 30, "1073741824");
    expect_refused("/model/vocab/the", 1.5, "'the' is 1.5");
    expect_refused("/model/vocab/the", 3, "two tokens have the id 3");
    expect_refused("/model/vocab", 5, "expected an object");
    expect_refused("/model", nullptr, "model");
    expect_refused("/added_tokens/1/content", "<|im_end|>", "two ids, 268 and 269");
    expect_refused("/added_tokens/1/content", "", "no content");
    expect_refused("/added_tokens/1/id", 1e300, "id");
    expect_refused("/added_tokens/1", 7, "added_tokens");
    expect_refused("/normalizer", 7, "normalizer");
    write("tokenizer.json", "{\"model\": ");
    expect_error("tokenizer.json");
    write("tokenizer.json", "[]");
    expect_error("expected an object");
    write("tokenizer.json", "");
    expect_error("tokenizer.json");
}

TEST_F(LoadTokenizer, UnsoundMergesAreRefusedWithTheirLine) {
    write_merges_folder();
    for (const auto& [line, part] :
         std::vector<std::pair<std::string, std::string>>{{"onlyone", "not two tokens"},
                                                          {"a b c", "not two tokens"},
                                                          {" a", "not two tokens"},
                                                          {"zz y", "'zz'"},
                                                          {"t h", "'th' is made by an earlier merge"}}) {
        write("merges.txt", merges_txt() + line + "\n");
        expect_error("merges.txt:14: ");
        expect_error(part);
    }
    write("merges.txt", merges_txt() + "q q\r\n\n");  // Windows line ends and an empty last line are fine
    EXPECT_EQ(load_tokenizer(folder)->vocabulary_size(), 269);
    write("merges.txt", "");
    EXPECT_EQ(load_tokenizer(folder)->vocabulary_size(), 256);
    write_merges_folder(
        R"({"tokenizer_class": "Qwen2Tokenizer", "added_tokens_decoder": {"x": {"content": "y"}}})");
    expect_error("'x' is not a token id");
    write_merges_folder(R"({"tokenizer_class": "Qwen2Tokenizer", "added_tokens_decoder": {"300": 5}})");
    expect_error("added_tokens_decoder.300");
    write_merges_folder(R"({"tokenizer_class": "Qwen2Tokenizer", "eos_token": 5})");
    expect_error("eos_token");
}

TEST_F(LoadTokenizer, FoldersWithoutOne) {
    expect_error("neither tokenizer.json nor merges.txt");
    EXPECT_FALSE(has_tokenizer(folder));
    write("vocab.json", "{}");
    expect_error("neither");
    folder += "/nowhere";
    expect_error("no such folder");
}

}  // namespace
