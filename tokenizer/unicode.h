// unicode.h -- UTF-8 that may be broken, the character classes that pre-tokenisers ask for, and NFC.
#pragma once
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

// What stands at the front of a text. A broken sequence is as long as its longest prefix that could begin a
// character (at least one byte), which is also what one U+FFFD replaces in Python and in Rust.
struct Utf8 {
    enum Kind : uint8_t { Whole, Broken, CutOff };  // CutOff: more bytes could still make it whole
    int32_t code_point;                             // -1 unless whole
    uint8_t length;                                 // bytes
    Kind kind;
};
Utf8 utf8_at(std::string_view text, size_t at);  // at < text.size()
void append_utf8(std::string& out, int32_t code_point);
// Moves every character of `bytes` to `out` that is complete, or broken and so replaced by U+FFFD; what is cut off at the
// end stays.
void move_characters(std::string& bytes, std::string& out);

// Columns that a terminal shows the text in; a broken sequence takes one.
int columns(std::string_view text);

// \p{L}, \p{N}, \r and \n, the rest of \s, and everything else (broken bytes too).
enum class CharClass : uint8_t { Other, Letter, Number, Space, Newline };
CharClass class_of(int32_t code_point);

// Canonical composition (NFC); bytes that are not UTF-8 stay as they are. True where `out` was written: false
// means that the text is in NFC already. O(n log n) also for a megabyte of combining marks.
bool to_nfc(std::string_view text, std::string& out);
