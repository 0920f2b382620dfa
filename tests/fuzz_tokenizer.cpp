// Tokenizer files and texts of any bytes. The first byte says what the rest is: 'j' a tokenizer.json, 'm' a merges.txt, else a text.
// A file is either refused by Error(BadFile) or gives a tokenizer that works; a text always comes back.
#include <cstdint>
#include <cstdlib>
#include <fstream>

#include "tokenizer/chat_template.h"
#include "tokenizer/unicode.h"
#include "utils/error.h"
#include "utils/files.h"

namespace {

const char* CONFIG =
    R"({"tokenizer_class": "GPT2Tokenizer", "eos_token": "<|im_end|>", "added_tokens_decoder": {
    "2000": {"content": "<|im_start|>", "special": true}, "2001": {"content": "<|im_end|>", "special": true},
    "2002": {"content": "<|im_end|>>"}, "2003": {"content": "e"}}})";
const char* MERGES =
    "#version: 0.2\nt h\nth e\n\u0120 the\n\u00c3 \u00a9\n# #\n## ##\n\u0120 \u0120\n1 2\na a\naa aa\naa a\n";

void check(const Tokenizer& t, std::string_view text) {
    for (const bool parse_special : {false, true}) {
        const std::vector<int> ids = t.encode(text, parse_special);
        const std::string decoded = t.decode(ids);
        std::string bytes, streamed;
        StreamDecoder stream(t);
        for (const int id : ids) {
            if (id < 0 || id >= t.vocabulary_size()) abort();
            bytes += t.bytes_of(id);
            streamed += stream.feed(id);
        }
        if (streamed + stream.flush() != decoded) abort();
        for (size_t at = 0; at < decoded.size();) {
            const Utf8 c = utf8_at(decoded, at);
            if (c.kind != Utf8::Whole) abort();
            at += c.length;
        }
        const auto& d = t.definition();
        bool every_byte = !d.nfc;
        for (const int id : d.byte_ids) every_byte = every_byte && id != NO_TOKEN;
        if (every_byte && d.merges.empty() && bytes != text) abort();
    }
}

std::unique_ptr<Tokenizer> load(const char* name, std::string_view content) {
    const std::string folder = "fuzz_tokenizer_" + std::string(name);
    make_folders(folder);
    std::ofstream(folder + "/" + name) << content;
    if (std::string_view(name) == "merges.txt") std::ofstream(folder + "/tokenizer_config.json") << CONFIG;
    try {
        return load_tokenizer(folder);
    } catch (const Error& error) {
        if (error.code != Exit::BadFile) abort();
        return nullptr;
    }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    if (size == 0) return 0;
    const std::string_view rest(reinterpret_cast<const char*>(data + 1), size - 1);
    if (data[0] == 'j' || data[0] == 'm') {
        if (const auto t = load(data[0] == 'j' ? "tokenizer.json" : "merges.txt", rest)) check(*t, rest);
        return 0;
    }
    static const auto small = load("merges.txt", MERGES), bytes = load_tokenizer("bytes");
    check(*small, rest);
    check(*bytes, rest);
    std::string back;
    for (const int id : small->encode(rest, true)) back += small->bytes_of(id);
    if (back != rest) abort();  // GPT-2's has no NFC: every byte is there
    std::string composed, again;
    if (to_nfc(rest, composed) && to_nfc(composed, again) && again != composed) abort();
    // whatever is said, a turn ends where the template ends it
    const std::vector<Message> said = {{.role = "user", .content = std::string(rest)}};
    size_t ends = 0;
    for (const int id : encode_chat(*small, choose_chat_template("qwen3", "", *small), said, {}))
        ends += id == 2001;
    if (ends != 1) abort();
    return 0;
}
