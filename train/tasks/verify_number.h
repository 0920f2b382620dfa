// verify_number.h -- is this the right number? Compared exactly, as rationals: 0.50 = 1/2 = \frac{2}{4}. A percent sign is
// a unit like any other: 50\% is 50.
//
// Read as numbers: integers, decimals, 1e3, thousands separators in their places (1,234 or 1{,}234 or 1 234), a/b,
// \frac{a}{b} (\dfrac, \tfrac, \frac12, \frac9{19}), mixed numbers (1\frac{4}{5}), powers (10^{-3}),
// 6.72 \times 10^{-5}, with a sign, and with $ % degrees, units (\text{ cm}, 5 cm), braces, \left \right, a full stop or
// "x =" around them. Anything else is text, and equal only to the same text up to white space. Lists, surds and formulas
// are not evaluated.
#pragma once
#include <optional>
#include <string>
#include <string_view>

#include "train/tasks/rational.h"

enum class AnswerForm { Any, Boxed, Hash };  // \boxed{...}; #### ... ; either, the box first

// The last answer given in the form: what the last `\boxed{` holds up to its closing brace, or what follows
// the last `####` on its line. Nothing where there is none, or its brace never closes.
std::optional<std::string> extract_answer(std::string_view response, AnswerForm form);

std::optional<Rational> parse_number(std::string_view answer);
bool same_answer(std::string_view answer, std::string_view gold);
