#include "tokenizer/unicode.h"

#include <utf8proc.h>

#include <algorithm>
#include <vector>

#include "utils/error.h"

Utf8 utf8_at(std::string_view text, size_t at) {
    const auto byte = [&](size_t i) { return uint8_t(text[at + i]); };
    const uint8_t lead = byte(0);
    if (lead < 0x80) return {lead, 1, Utf8::Whole};
    // Lead bytes say how many follow; the first that follows also rules out long forms, surrogates and what
    // lies past U+10FFFF.
    if (lead < 0xC2 || lead > 0xF4) return {-1, 1, Utf8::Broken};
    const size_t length = lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : 4;
    uint8_t low = 0x80, high = 0xBF;
    if (lead == 0xE0) low = 0xA0;
    if (lead == 0xED) high = 0x9F;
    if (lead == 0xF0) low = 0x90;
    if (lead == 0xF4) high = 0x8F;
    int32_t code_point = lead & (0x7F >> length);
    for (size_t i = 1; i < length; i++) {
        if (at + i == text.size()) return {-1, uint8_t(i), Utf8::CutOff};
        if (byte(i) < low || byte(i) > high) return {-1, uint8_t(i), Utf8::Broken};
        code_point = code_point << 6 | (byte(i) & 0x3F);
        low = 0x80;
        high = 0xBF;
    }
    return {code_point, uint8_t(length), Utf8::Whole};
}

void append_utf8(std::string& out, int32_t code_point) {
    uint8_t bytes[4];
    out.append(reinterpret_cast<char*>(bytes), size_t(utf8proc_encode_char(code_point, bytes)));
}

void move_characters(std::string& bytes, std::string& out) {
    size_t at = 0;
    while (at < bytes.size()) {
        const Utf8 c = utf8_at(bytes, at);
        if (c.kind == Utf8::CutOff) break;
        if (c.kind == Utf8::Whole) {
            out.append(bytes, at, c.length);
        } else {
            append_utf8(out, 0xFFFD);
        }
        at += c.length;
    }
    bytes.erase(0, at);
}

int columns(std::string_view text) {
    int sum = 0;
    for (size_t at = 0; at < text.size();) {
        const Utf8 c = utf8_at(text, at);
        sum += c.kind == Utf8::Whole ? utf8proc_charwidth(c.code_point) : 1;
        at += c.length;
    }
    return sum;
}

CharClass class_of(int32_t code_point) {
    if (code_point < 0) return CharClass::Other;
    switch (utf8proc_category(code_point)) {
        case UTF8PROC_CATEGORY_LU:
        case UTF8PROC_CATEGORY_LL:
        case UTF8PROC_CATEGORY_LT:
        case UTF8PROC_CATEGORY_LM:
        case UTF8PROC_CATEGORY_LO: return CharClass::Letter;
        case UTF8PROC_CATEGORY_ND:
        case UTF8PROC_CATEGORY_NL:
        case UTF8PROC_CATEGORY_NO: return CharClass::Number;
        case UTF8PROC_CATEGORY_ZS:
        case UTF8PROC_CATEGORY_ZL:
        case UTF8PROC_CATEGORY_ZP: return CharClass::Space;
        default:
            if (code_point == '\n' || code_point == '\r') return CharClass::Newline;
            return (code_point >= 9 && code_point <= 13) || code_point == 0x85 ? CharClass::Space
                                                                               : CharClass::Other;
    }
}

namespace {

// Characters that NFC leaves alone as long as their neighbours are such characters too: those below the first combining
// mark, and the blocks of most text. Anything else takes the long way.
bool nfc_keeps(int32_t c) {
    return c < 0x300 || (c >= 0x388 && c <= 0x482) || (c >= 0x48A && c <= 0x590) ||
           (c >= 0x2010 && c <= 0x2027) || (c >= 0x3001 && c <= 0x3029) || (c >= 0x3041 && c <= 0x3096) ||
           (c >= 0x30A0 && c <= 0x30FF) || (c >= 0x3400 && c <= 0x9FFF) || (c >= 0xAC00 && c <= 0xD7A3) ||
           (c >= 0xFF01 && c <= 0xFFEF) || (c >= 0x1F300 && c <= 0x1FAFF);
}

// NFC of whole characters only. utf8proc's own function sorts combining marks in quadratic time; the steps
// are taken one by one here, so that a hostile text is sorted in n log n.
void append_nfc(std::string_view text, std::string& out) {
    std::vector<utf8proc_int32_t> code_points;
    code_points.reserve(text.size());
    for (size_t at = 0; at < text.size();) {
        const Utf8 c = utf8_at(text, at);
        utf8proc_int32_t parts[32];  // the longest canonical decomposition is 4
        const auto n = utf8proc_decompose_char(c.code_point, parts, 32, UTF8PROC_DECOMPOSE, nullptr);
        CHECK(n > 0 && n <= 32, "U+%04X decomposes into %d characters", unsigned(c.code_point), int(n));
        code_points.insert(code_points.end(), parts, parts + n);
        at += c.length;
    }
    const auto combining = [](utf8proc_int32_t c) { return utf8proc_get_property(c)->combining_class; };
    for (size_t i = 0; i < code_points.size();) {
        size_t end = i;
        while (end < code_points.size() && combining(code_points[end]) != 0) end++;
        std::stable_sort(code_points.begin() + ptrdiff_t(i), code_points.begin() + ptrdiff_t(end),
                         [&](auto a, auto b) { return combining(a) < combining(b); });
        i = end + 1;
    }
    const auto length = utf8proc_normalize_utf32(code_points.data(), utf8proc_ssize_t(code_points.size()),
                                                 utf8proc_option_t(UTF8PROC_STABLE | UTF8PROC_COMPOSE));
    CHECK(length >= 0, "utf8proc_normalize_utf32: %s", utf8proc_errmsg(length));
    for (size_t i = 0; i < size_t(length); i++) append_utf8(out, code_points[i]);
}

}  // namespace

bool to_nfc(std::string_view text, std::string& out) {
    bool plain = true;
    for (size_t at = 0; at < text.size() && plain;) {
        if (uint8_t(text[at]) < 0xCC) {  // below U+0300, or broken
            at++;
            continue;
        }
        const Utf8 c = utf8_at(text, at);
        plain = c.kind != Utf8::Whole || nfc_keeps(c.code_point);
        at += c.length;
    }
    if (plain) return false;
    out.clear();
    for (size_t at = 0; at < text.size();) {
        size_t end = at;
        Utf8 c = utf8_at(text, end);
        while (c.kind == Utf8::Whole) {
            end += c.length;
            if (end == text.size()) break;
            c = utf8_at(text, end);
        }
        append_nfc(text.substr(at, end - at), out);
        if (end == text.size()) break;
        out.append(text.substr(end, c.length));
        at = end + c.length;
    }
    return true;
}
