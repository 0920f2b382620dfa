// UTF-8, character classes and NFC.
#include <gtest/gtest.h>
#include <utf8proc.h>

#include <cstdlib>

#include "tokenizer/unicode.h"
#include "utils/philox.h"

namespace {

std::string utf8(std::initializer_list<int32_t> code_points) {
    std::string out;
    for (const int32_t c : code_points) append_utf8(out, c);
    return out;
}

TEST(Utf8, Columns) {
    EXPECT_EQ(columns(""), 0);
    EXPECT_EQ(columns("ab"), 2);
    EXPECT_EQ(columns("中é"), 3);
    EXPECT_EQ(columns("e\u0301"), 1);
    EXPECT_EQ(columns("\xE4\xB8"), 1);
}

TEST(Utf8, EveryCharacterComesBack) {
    for (int32_t c = 0; c <= 0x10FFFF; c++) {
        if (c >= 0xD800 && c <= 0xDFFF) continue;
        const std::string text = utf8({c});
        const Utf8 got = utf8_at(text, 0);
        ASSERT_TRUE(got.kind == Utf8::Whole && got.code_point == c && got.length == text.size()) << c;
        for (size_t cut = 1; cut < text.size(); cut++) {
            const Utf8 part = utf8_at(std::string_view(text).substr(0, cut), 0);
            ASSERT_TRUE(part.kind == Utf8::CutOff && part.length == cut && part.code_point == -1) << c;
        }
    }
}

// utf8proc_iterate says of every sequence of four bytes whether it begins with a character.
TEST(Utf8, AcceptsWhatUtf8procAccepts) {
    Rng rng(1, Stream::Task);
    for (int i = 0; i < 200000; i++) {
        std::string text;
        text += char(0xC0 + rng.below(0x40));
        for (int k = 0; k < 3; k++) text += char(rng.below(4) ? 0x80 + rng.below(0x40) : rng.below(256));
        utf8proc_int32_t code_point;
        const auto length = utf8proc_iterate(reinterpret_cast<const uint8_t*>(text.data()), 4, &code_point);
        const Utf8 got = utf8_at(text, 0);
        ASSERT_EQ(got.kind == Utf8::Whole, length > 0);
        if (length > 0) {
            ASSERT_EQ(got.code_point, code_point);
            ASSERT_EQ(got.length, length);
        }
        ASSERT_GE(got.length, 1);
    }
}

TEST(CharClass, WhiteSpaceIsTheTwentyFiveOfUnicode) {
    std::vector<int32_t> spaces;
    for (int32_t c = 0; c <= 0x10FFFF; c++) {
        if (class_of(c) == CharClass::Space || class_of(c) == CharClass::Newline) spaces.push_back(c);
    }
    EXPECT_EQ(spaces,
              (std::vector<int32_t>{9,      10,     11,     12,     13,     32,     0x85,   0xA0,   0x1680,
                                    0x2000, 0x2001, 0x2002, 0x2003, 0x2004, 0x2005, 0x2006, 0x2007, 0x2008,
                                    0x2009, 0x200A, 0x2028, 0x2029, 0x202F, 0x205F, 0x3000}));
}

TEST(CharClass, Samples) {
    for (const int32_t c : {int32_t('a'), int32_t('Z'), 0xE9, 0x17F, 0x65E5, 0xD55C, 0x2B0})
        EXPECT_EQ(class_of(c), CharClass::Letter) << c;
    for (const int32_t c : {int32_t('0'), 0xBD, 0x663, 0xFF11, 0x2160})
        EXPECT_EQ(class_of(c), CharClass::Number) << c;
    for (const int32_t c : {int32_t('_'), 0x301, 0x200D, 0x1F600, 0x1C, 0xFFFD, -1, 0x10FFFF})
        EXPECT_EQ(class_of(c), CharClass::Other) << c;
    EXPECT_EQ(class_of('\r'), CharClass::Newline);
    EXPECT_EQ(class_of('\v'), CharClass::Space);
}

std::string nfc(const std::string& text) {
    std::string out = "garbage";
    return to_nfc(text, out) ? out : text;
}

TEST(Nfc, ComposesWhatItShould) {
    EXPECT_EQ(nfc(utf8({'e', 0x301})), utf8({0xE9}));
    EXPECT_EQ(nfc(utf8({0x1E9B, 0x323})), utf8({0x1E9B, 0x323}));
    EXPECT_EQ(nfc(utf8({'a', 0x301, 0x323})), utf8({0x1EA1, 0x301}));  // marks are sorted first
    EXPECT_EQ(nfc(utf8({0x1100, 0x1161, 0x11A8})), utf8({0xAC01}));    // Hangul
    EXPECT_EQ(nfc(utf8({0xAC00, 0x11A8})), utf8({0xAC01}));            // a syllable takes a final
    EXPECT_EQ(nfc(utf8({0x212B})), utf8({0xC5}));                      // Angstrom
    EXPECT_EQ(nfc(utf8({0x958})), utf8({0x915, 0x93C}));               // excluded from composition
    EXPECT_EQ(nfc(utf8({0x2126, 0x37E, 0x340})), utf8({0x3A9, ';', 0x300}));
}

TEST(Nfc, BrokenBytesStayWhereTheyAre) {
    EXPECT_EQ(nfc("e\xCC\x81\xFF"
                  "e\xCC\x81\xE2\x82"),
              "\xC3\xA9\xFF\xC3\xA9\xE2\x82");
    EXPECT_EQ(nfc("\xFF"), "\xFF");
    EXPECT_EQ(nfc(""), "");
}

TEST(Nfc, AgreesWithUtf8procOnRandomText) {
    Rng rng(2, Stream::Task);
    const int32_t hot[] = {'a',    'e',   0x301, 0x323, 0x338,  0x327,  0x1100, 0x1161, 0x11A8,
                           0xAC00, 0x915, 0x93C, 0xC5,  0x212B, 0x1E9B, 0x3099, 0x304B};
    int changed = 0;
    for (int i = 0; i < 20000; i++) {
        std::string text;
        for (uint32_t n = 1 + rng.below(9); n-- > 0;) {
            int32_t c = rng.below(3) ? hot[rng.below(std::size(hot))]
                                     : int32_t(1 + rng.below(rng.below(2) ? 0x3400 : 0x2FFFF));
            if (c >= 0xD800 && c <= 0xDFFF) c = 'x';
            append_utf8(text, c);
        }
        utf8proc_uint8_t* want = utf8proc_NFC(reinterpret_cast<const utf8proc_uint8_t*>(text.c_str()));
        ASSERT_NE(want, nullptr);
        EXPECT_EQ(nfc(text), reinterpret_cast<const char*>(want)) << text;
        changed += nfc(text) != text;
        free(want);
    }
    EXPECT_GT(changed, 1000);
}

// utf8proc_NFC alone would take minutes here.
TEST(Nfc, SortsALongRunOfMarks) {
    std::string text = "q", want = "q";
    for (int i = 0; i < 100000; i++) text += utf8({i % 2 ? 0x323 : 0x301});
    for (int i = 0; i < 100000; i++) want += utf8({i < 50000 ? 0x323 : 0x301});
    EXPECT_EQ(nfc(text), want);
}

}  // namespace
