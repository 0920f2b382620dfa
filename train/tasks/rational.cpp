#include "train/tasks/rational.h"

#include <utility>

namespace {

constexpr __int128 LIMIT = __int128(1) << 126;

bool product(__int128 a, __int128 b, __int128* out) { return !__builtin_mul_overflow(a, b, out); }

}  // namespace

std::optional<Rational> make_rational(__int128 numerator, __int128 denominator) {
    if (denominator == 0 || numerator > LIMIT || numerator < -LIMIT || denominator > LIMIT ||
        denominator < -LIMIT)
        return {};
    if (denominator < 0) {
        numerator = -numerator;
        denominator = -denominator;
    }
    __int128 a = numerator < 0 ? -numerator : numerator, b = denominator;
    while (b != 0) a = std::exchange(b, a % b);
    return Rational{numerator / a, denominator / a};
}

std::optional<Rational> add(const Rational& a, const Rational& b) {
    __int128 left, right, sum, denominator;
    if (!product(a.numerator, b.denominator, &left) || !product(b.numerator, a.denominator, &right))
        return {};
    if (__builtin_add_overflow(left, right, &sum) || !product(a.denominator, b.denominator, &denominator))
        return {};
    return make_rational(sum, denominator);
}

std::optional<Rational> subtract(const Rational& a, const Rational& b) {
    return add(a, {-b.numerator, b.denominator});
}

std::optional<Rational> multiply(const Rational& a, const Rational& b) {
    __int128 numerator, denominator;
    if (!product(a.numerator, b.numerator, &numerator) ||
        !product(a.denominator, b.denominator, &denominator))
        return {};
    return make_rational(numerator, denominator);
}

std::optional<Rational> divide(const Rational& a, const Rational& b) {
    __int128 numerator, denominator;
    if (!product(a.numerator, b.denominator, &numerator) ||
        !product(a.denominator, b.numerator, &denominator))
        return {};
    return make_rational(numerator, denominator);
}

std::optional<Rational> power(const Rational& base, int64_t exponent) {
    if (exponent > 200 || exponent < -200) return {};
    std::optional<Rational> out = Rational{1, 1};
    for (int64_t i = 0; out && i < (exponent < 0 ? -exponent : exponent); i++)
        out = exponent < 0 ? divide(*out, base) : multiply(*out, base);
    return out;
}
