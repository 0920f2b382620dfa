// rational.h -- exact fractions of whole numbers that know when they no longer fit.
#pragma once
#include <cstdint>
#include <optional>

struct Rational {
    __int128 numerator = 0, denominator = 1;  // lowest terms, denominator > 0
    bool operator==(const Rational& other) const = default;
};

// Nothing where the denominator is 0 or a number passes 2^126.
std::optional<Rational> make_rational(__int128 numerator, __int128 denominator);
std::optional<Rational> add(const Rational& a, const Rational& b);
std::optional<Rational> subtract(const Rational& a, const Rational& b);
std::optional<Rational> multiply(const Rational& a, const Rational& b);
std::optional<Rational> divide(const Rational& a, const Rational& b);
std::optional<Rational> power(const Rational& base, int64_t exponent);
