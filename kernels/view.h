// view.h -- strided rows, and the few scalar functions that let one reference serve float, double and complex.
//
// A reference is called with its scalar spelled out, ref::rmsnorm_forward<double>(...), so that Rows<T> converts to
// Rows<const T>. A weight that may be BF16 has a type of its own, W, and is read through number().
#pragma once
#include <cmath>
#include <complex>
#include <cstdint>
#include <cstring>

#include "utils/tensor.h"

template <class T>
struct Rows {
    T* data = nullptr;
    int64_t stride = 0;

    T* operator[](int64_t r) const { return data + r * stride; }
    Rows from(int64_t r) const { return {data + r * stride, stride}; }
    explicit operator bool() const { return data != nullptr; }
    operator Rows<const T>() const { return {data, stride}; }
};

template <class T>
Rows<T> rows_of(Tensor t) {
    if (!t) return {};
    return {t.as<std::remove_const_t<T>>(), t.stride};
}

// A contiguous vector of n elements, however its n are split into rows and columns; null if the tensor is absent.
template <class T>
T* vector_of(Tensor t, int64_t n) {
    if (!t) return nullptr;
    CHECK(t.size() == n && (t.contiguous() || (t.cols == 1 && t.stride == 1)),
          "vector of %lld is (%lld, %lld), stride %lld", (long long)n, (long long)t.rows, (long long)t.cols,
          (long long)t.stride);
    return t.as<T>();
}

inline float number(float x) { return x; }
inline double number(double x) { return x; }
inline std::complex<double> number(std::complex<double> x) { return x; }
inline float number(Bf16 x) {
    const uint32_t bits = uint32_t(x.bits) << 16;
    float out;
    memcpy(&out, &bits, sizeof out);
    return out;
}

inline float real_part(float x) { return x; }
inline double real_part(double x) { return x; }
inline double real_part(std::complex<double> x) { return x.real(); }
