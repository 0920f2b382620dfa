// The numeric verifier: pairs of answer and gold, and what is found in a response.
#include <gtest/gtest.h>

#include <random>

#include "train/tasks/verify_number.h"

namespace {

struct Pair {
    const char *answer, *gold;
};

TEST(VerifyNumber, Same) {
    const Pair pairs[] = {
        {"5", "5"},
        {"5.0", "5"},
        {"5.", "5"},
        {"+5", "5"},
        {" 5 ", "5"},
        {"075", "75"},
        {"-5", "-5.00"},
        {"\xE2\x88\x92"
         "5",
         "-5"},
        {"0.50", "0.5"},
        {".5", "0.5"},
        {"1/2", "\\frac{1}{2}"},
        {"\\frac12", "\\frac{1}{2}"},
        {"0.5", "\\frac{1}{2}"},
        {"2/4", "1/2"},
        {"\\frac{10}{20}", "1/2"},
        {"3/1", "3"},
        {"3/4", "0.75"},
        {"0.25", "1/4"},
        {"-1/2", "-\\frac{1}{2}"},
        {"\\frac{-1}{2}", "-\\frac{1}{2}"},
        {"\\dfrac{3}{4}", "\\frac{3}{4}"},
        {"\\tfrac34", "\\frac{3}{4}"},
        {"\\frac 59", "\\frac{5}{9}"},
        {"\\frac9{19}", "\\frac{9}{19}"},
        {"\\frac{270}{7}", "\\frac{270}7\\text{ degrees}"},
        {"\\frac{9}{5}", "1\\frac{4}{5}"},
        {"137.5", "137 \\frac{1}{2}"},
        {"1 4/5", "9/5"},
        {"-1\\frac{1}{2}", "-1.5"},
        {"1e3", "1000"},
        {"6.72e-5", ".0000672"},
        {"0.0000672", ".0000672"},
        {"6.72 \\times 10^{-5}", ".0000672"},
        {"3\\cdot10^2", "300"},
        {"2^{10}", "1024"},
        {"10^{-3}", "0.001"},
        {"2^5", "32"},
        {"1,000", "1000"},
        {"1{,}000", "1000"},
        {"10\\!000", "10000"},
        {"1\\,000", "1000"},
        {"1 000", "1000"},
        {"11,\\! 111,\\! 111,\\! 100", "11,111,111,100"},
        {"1,234.5", "1234.5"},
        {"32348", "\\$32,\\!348"},
        {"18.9", "\\$18.90"},
        {"\\$5", "5"},
        {"5$", "5"},
        {"$5$", "5"},
        {"$1,250.00", "1250"},
        {"50\\%", "50"},
        {"50%", "50\\%"},
        {"90^\\circ", "90"},
        {"90^{\\circ}", "90^\\circ"},
        {"90\xC2\xB0", "90"},
        {"72.", "72"},
        {"5\\text{ cm}", "5"},
        {"5 \\text{ inches}", "5"},
        {"864 \\mbox{ inches}^2", "864"},
        {"5 cm", "5"},
        {"60 miles per hour", "60"},
        {"18 dollars", "18"},
        {"\\frac{1}{2} cup", "0.5"},
        {"x=5", "5"},
        {"k = 2", "2"},
        {"xyz=5", "5"},
        {"\\mathbf{5}", "5"},
        {"{5}", "5"},
        {"\\text{5}", "5"},
        {"\\boxed{4}", "4"},
        {"\\left 3 \\right", "3"},
        {"123456789012345678901234", "123456789012345678901234.0"},
        // text
        {"(3, 4)", "(3,4)"},
        {"\\left(3,4\\right)", "(3,4)"},
        {"11:30", "11:30"},
        {"\\text{Evelyn}", "Evelyn"},
        {"\\text{even}", "\\text{ even}"},
        {"x^2+1", "x^2 + 1"},
    };
    for (const Pair& p : pairs) {
        EXPECT_TRUE(same_answer(p.answer, p.gold)) << p.answer << " | " << p.gold;
        EXPECT_TRUE(same_answer(p.gold, p.answer)) << p.gold << " | " << p.answer;
    }
}

TEST(VerifyNumber, Different) {
    const Pair pairs[] = {
        {"5", "6"},
        {"5", "-5"},
        {"1,2,3", "123"},
        {"6, 7", "67"},
        {"a 5", "5"},
        {"1,00", "100"},
        {"1,0000", "10000"},
        {"1234,567", "1234567"},
        {"1 2", "12"},
        {"1/3", "0.3333"},
        {"\\pi", "3.14159"},
        {"(3,4)", "(4,3)"},
        {"52_8", "52"},
        {"2:3", "2/3"},
        {"11:30", "11.5"},
        {"A", "a"},
        {"5x", "5"},
        {"x5", "5"},
        {"1/0", "1/0.0"},
        {"0/0", "0"},
        {"\\frac{1}{0}", "0"},
        {"inf", "1e400"},
        {"nan", "5"},
        {"1e400", "1e401"},
        {"", "0"},
        {"", "5"},
        {"5 6", "56"},
        {"--5", "5"},
        {"5-3", "2"},
        {"3+4", "7"},
        {"2*3", "6"},
        {"1..5", "1.5"},
        {"1.2.3", "1.23"},
        {"\\frac{1}{2", "0.5"},
        {"1\\frac{-1}{2}", "0.5"},
        {"0.5", "50"},
        {"0.5", "50%"},
        {"1.5\\frac12", "2"},
        {"x=5=6", "5"},
        {"10^{1000000}", "10"},
        {"9^{99}", "9"},
        {"1e", "1"},
    };
    for (const Pair& p : pairs) {
        EXPECT_FALSE(same_answer(p.answer, p.gold)) << p.answer << " | " << p.gold;
        EXPECT_FALSE(same_answer(p.gold, p.answer)) << p.gold << " | " << p.answer;
    }
    EXPECT_FALSE(same_answer("", ""));
}

TEST(VerifyNumber, Rationals) {
    EXPECT_EQ(parse_number("-1\\frac{4}{5}"), (Rational{-9, 5}));
    EXPECT_EQ(parse_number("0.125"), (Rational{1, 8}));
    EXPECT_EQ(parse_number("-0"), (Rational{0, 1}));
    EXPECT_FALSE(parse_number(std::string(1000, '9')));
    EXPECT_FALSE(parse_number(std::string(190, '{')));
    const __int128 big = __int128(1) << 120;
    EXPECT_FALSE(multiply({big, 1}, {big, 1}));
    EXPECT_FALSE(add({1, big}, {1, big - 1}));
    EXPECT_FALSE(divide({1, 1}, {0, 1}));
    EXPECT_EQ(add({1, 3}, {1, 6}), (Rational{1, 2}));
    EXPECT_EQ(power({2, 3}, -2), (Rational{9, 4}));
}

TEST(ExtractAnswer, TheLastOneCounts) {
    EXPECT_EQ(extract_answer("so \\boxed{3} no, \\boxed{4}.", AnswerForm::Any), "4");
    EXPECT_EQ(extract_answer("\\boxed{\\frac{1}{2}}", AnswerForm::Boxed), "\\frac{1}{2}");
    EXPECT_EQ(extract_answer("\\boxed{\\boxed{4}}", AnswerForm::Any), "4");
    EXPECT_EQ(extract_answer("x\n#### 72", AnswerForm::Any), "72");
    EXPECT_EQ(extract_answer("#### 1\n#### $1,200 \nbye", AnswerForm::Hash), "$1,200");
    EXPECT_EQ(extract_answer("\\boxed{1}\n#### 2", AnswerForm::Any), "1");
    EXPECT_EQ(extract_answer("\\boxed{1}\n#### 2", AnswerForm::Hash), "2");
    EXPECT_EQ(extract_answer("#### 2", AnswerForm::Boxed), std::nullopt);
    EXPECT_EQ(extract_answer("\\boxed{1} and \\boxed{2", AnswerForm::Any),
              std::nullopt);  // as the reference: an open box is no answer
    for (const char* none : {"", "42", "\\boxed 5", "\\fbox{5}", "\\boxed {5}", "### 5"})
        EXPECT_EQ(extract_answer(none, AnswerForm::Any), std::nullopt) << none;
}

// No text breaks the parser (run it under the address sanitizer).
TEST(VerifyNumber, SurvivesGarbage) {
    std::mt19937 random(1);
    const char* bits[] = {"1",       "0", "9",      ",", ".", "-",        "+",     " ",
                          "{",       "}", "\\frac", "^", "/", "\\times",  "10",    "e",
                          "\\text{", "=", "x",      "$", "%", "\\boxed{", "#### ", "\n"};
    int numbers = 0;
    for (int i = 0; i < 50000; i++) {
        std::string text;
        for (unsigned n = random() % 12; n-- > 0;) text += bits[random() % std::size(bits)];
        const auto number = parse_number(text);
        numbers += bool(number);
        if (number) {
            EXPECT_GT(number->denominator, 0) << text;
            EXPECT_TRUE(same_answer(text, text)) << text;
        }
        extract_answer(text, AnswerForm::Any);
    }
    EXPECT_GT(numbers, 1000);
}

}  // namespace
