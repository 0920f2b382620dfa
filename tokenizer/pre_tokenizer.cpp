#include "tokenizer/pre_tokenizer.h"

#include <array>

#include "tokenizer/unicode.h"

namespace {

constexpr std::array<CharClass, 128> ascii_classes() {
    std::array<CharClass, 128> table{};
    for (size_t c = 0; c < 128; c++) {
        if ((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z')) table[c] = CharClass::Letter;
        if (c >= '0' && c <= '9') table[c] = CharClass::Number;
        if (c == ' ' || (c >= 9 && c <= 13)) table[c] = CharClass::Space;
        if (c == '\n' || c == '\r') table[c] = CharClass::Newline;
    }
    return table;
}
constexpr std::array<CharClass, 128> ASCII = ascii_classes();

bool is_space(CharClass c) { return c == CharClass::Space || c == CharClass::Newline; }

// A place in the text and the class of the character there; at the end, `length` is 0.
struct Cursor {
    std::string_view text;
    size_t at;
    CharClass kind = CharClass::Other;
    size_t length = 0;

    Cursor(std::string_view text, size_t at) : text(text), at(at) { look(); }
    bool end() const { return length == 0; }
    bool is(CharClass c) const { return length != 0 && kind == c; }
    void next() {
        at += length;
        look();
    }
    void skip(CharClass c) {
        while (is(c)) next();
    }

  private:
    void look() {
        if (at >= text.size()) {
            length = 0;
        } else if (uint8_t(text[at]) < 128) {
            kind = ASCII[uint8_t(text[at])];
            length = 1;
        } else {
            const Utf8 c = utf8_at(text, at);
            kind = class_of(c.code_point);
            length = c.length;
        }
    }
};

// The end of 's 't 're 've 'm 'll 'd at `at`, or 0. Without regard to case, U+017F (long s) is an s.
size_t contraction_end(std::string_view text, size_t at, bool any_case) {
    const auto letter = [&](size_t i) -> char {
        if (at + i >= text.size()) return 0;
        const char c = text[at + i];
        return any_case && c >= 'A' && c <= 'Z' ? char(c + 32) : c;
    };
    if (text[at] != '\'') return 0;
    const char a = letter(1), b = letter(2);
    if (a == 's' || a == 't' || a == 'm' || a == 'd') return at + 2;
    if ((a == 'r' && b == 'e') || (a == 'v' && b == 'e') || (a == 'l' && b == 'l')) return at + 3;
    if (any_case && text.substr(at + 1, 2) == "\xC5\xBF") return at + 3;
    return 0;
}

// \s+(?!\S)|\s+ : a run of white space leaves its last character to the word that follows, where it has two
// or more.
size_t space_end(Cursor c) {
    const size_t begin = c.at;
    size_t last = c.at;
    while (!c.end() && is_space(c.kind)) {
        last = c.at;
        c.next();
    }
    return c.end() || last == begin ? c.at : last;
}

size_t gpt2_end(std::string_view text, size_t begin) {
    if (const size_t end = contraction_end(text, begin, false)) return end;
    Cursor c(text, begin);
    Cursor word = c;
    if (text[begin] == ' ') word.next();
    if (!word.end() && !is_space(word.kind)) {
        word.skip(word.kind);
        return word.at;
    }
    return space_end(c);
}

size_t qwen2_end(std::string_view text, size_t begin) {
    if (const size_t end = contraction_end(text, begin, true)) return end;
    Cursor c(text, begin);
    const CharClass first = c.kind;
    if (first == CharClass::Letter) {
        c.skip(CharClass::Letter);
        return c.at;
    }
    if (first == CharClass::Number) return begin + c.length;
    Cursor next = c;
    next.next();
    if (first != CharClass::Newline && next.is(CharClass::Letter)) {
        next.skip(CharClass::Letter);
        return next.at;
    }
    if (first == CharClass::Other || (text[begin] == ' ' && next.is(CharClass::Other))) {
        next.skip(CharClass::Other);
        next.skip(CharClass::Newline);
        return next.at;
    }
    // \s*[\r\n]+ : up to the last line end of the run
    size_t line_end = 0;
    for (Cursor run = c; !run.end() && is_space(run.kind); run.next()) {
        if (run.kind == CharClass::Newline) line_end = run.at + 1;
    }
    return line_end != 0 ? line_end : space_end(c);
}

}  // namespace

size_t piece_end(PreTokenizer kind, std::string_view text, size_t begin) {
    switch (kind) {
        case PreTokenizer::Gpt2: return gpt2_end(text, begin);
        case PreTokenizer::Qwen2: return qwen2_end(text, begin);
        case PreTokenizer::WholeText: break;
    }
    return text.size();
}

bool pre_tokenizer_of(std::string_view regex, PreTokenizer* kind) {
    struct Spelling {
        std::string_view regex;
        PreTokenizer kind;
    };
    static constexpr Spelling KNOWN[] = {
        {R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)", PreTokenizer::Gpt2},
        {R"('(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)", PreTokenizer::Gpt2},
        {R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)",
         PreTokenizer::Qwen2},
        {R"('(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+)",
         PreTokenizer::Qwen2},
        {R"('(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)",
         PreTokenizer::Qwen2},
    };
    for (const Spelling& known : KNOWN) {
        if (known.regex != regex) continue;
        *kind = known.kind;
        return true;
    }
    return false;
}
