// rounded.h -- a scalar for the references that rounds as a bf16 kernel may: products, quotients and
// functions to bf16, sums in fp32. A reference evaluated with it says how large a kernel's error may be, so
// that no tolerance is tuned by hand.
//
// To be included before the references: they call std::exp and its like by their full names.
#pragma once
#include <cmath>

#include "utils/tensor.h"

struct Rounded {
    float v = 0;
    Rounded() = default;
    template <class T>
    requires std::is_arithmetic_v<T>
    explicit(!std::is_same_v<T, float>) Rounded(T x) : v(float(x)) {}
    static Rounded to_bf16(float x) { return Rounded(to_float(::to_bf16(x))); }
    Rounded& operator+=(Rounded o) { return v += o.v, *this; }
    Rounded& operator-=(Rounded o) { return v -= o.v, *this; }
    explicit operator double() const { return double(v); }
};
inline Rounded operator+(Rounded a, Rounded b) { return Rounded(a.v + b.v); }
inline Rounded operator-(Rounded a, Rounded b) { return Rounded(a.v - b.v); }
inline Rounded operator-(Rounded a) { return Rounded(-a.v); }
inline Rounded operator*(Rounded a, Rounded b) { return Rounded::to_bf16(a.v * b.v); }
inline Rounded operator/(Rounded a, Rounded b) { return Rounded::to_bf16(a.v / b.v); }
inline Rounded number(Rounded x) { return x; }
inline float real_part(Rounded x) { return x.v; }

namespace std {
inline Rounded exp(Rounded x) { return Rounded::to_bf16(std::exp(x.v)); }
inline Rounded log(Rounded x) { return Rounded::to_bf16(std::log(x.v)); }
inline Rounded sqrt(Rounded x) { return Rounded::to_bf16(std::sqrt(x.v)); }
}  // namespace std
