// simd_vectors.h -- a vector of SIMD_LANES floats: loads, stores, fused multiply-add, exp. Included by simd_kernels.h, once
// for each instruction set; what may stand here is said there.
#pragma once

namespace {

constexpr int LANES = SIMD_LANES;
typedef float Vec __attribute__((vector_size(LANES * 4)));
typedef int32_t IVec __attribute__((vector_size(LANES * 4)));
typedef uint32_t UVec __attribute__((vector_size(LANES * 4)));  // bits: wraps where a signed sum may not
typedef float UnalignedVec __attribute__((vector_size(LANES * 4), aligned(1), may_alias));
#define SIMD_INLINE inline __attribute__((always_inline))

SIMD_INLINE Vec load(const float* p) { return *reinterpret_cast<const UnalignedVec*>(p); }
SIMD_INLINE void store(float* p, Vec x) { *reinterpret_cast<UnalignedVec*>(p) = x; }
SIMD_INLINE Vec all(float x) { return x - Vec{}; }
SIMD_INLINE Vec max_of(Vec a, Vec b) { return a > b ? a : b; }

#if SIMD_LANES == 16
SIMD_INLINE __mmask16 mask_first(int n) { return __mmask16((1u << n) - 1); }
SIMD_INLINE Vec fma(Vec a, Vec b, Vec c) { return _mm512_fmadd_ps(a, b, c); }
SIMD_INLINE Vec sqrt_of(Vec x) { return _mm512_sqrt_ps(x); }
SIMD_INLINE Vec load(const float* p, int n) { return _mm512_maskz_loadu_ps(mask_first(n), p); }
SIMD_INLINE void store(float* p, Vec x, int n) { _mm512_mask_storeu_ps(p, mask_first(n), x); }
#else
SIMD_INLINE Vec load(const float* p, int n) {
    float x[LANES] = {};
    __builtin_memcpy(x, p, size_t(n) * sizeof(float));  // p may be a BF16 row's: aligned to 2 bytes only
    return load(x);
}
SIMD_INLINE void store(float* p, Vec v, int n) {
    float x[LANES];
    store(x, v);
    for (int i = 0; i < n; i++) p[i] = x[i];
}
#if SIMD_LANES == 8
SIMD_INLINE Vec fma(Vec a, Vec b, Vec c) { return _mm256_fmadd_ps(a, b, c); }
SIMD_INLINE Vec sqrt_of(Vec x) { return _mm256_sqrt_ps(x); }
#else
SIMD_INLINE Vec fma(Vec a, Vec b, Vec c) { return a * b + c; }
SIMD_INLINE Vec sqrt_of(Vec x) {
    for (int i = 0; i < LANES; i++) x[i] = sqrtf(x[i]);
    return x;
}
#endif
#endif

// The width of an access: a whole vector, known at compile time, or the first n lanes (the others read as zero).
struct Full {
    SIMD_INLINE operator int() const { return LANES; }
};
SIMD_INLINE Vec load(const float* p, Full) { return load(p); }
SIMD_INLINE void store(float* p, Vec x, Full) { store(p, x); }
SIMD_INLINE Vec keep(Vec x, Full, float) { return x; }
SIMD_INLINE Vec keep(Vec x, int n, float fill) {  // lanes from n on become fill
    float e[LANES];
    store(e, x);
    for (int i = n; i < LANES; i++) e[i] = fill;
    return load(e);
}

// f(i, width) over [0, n), with width Full but for a last, partial vector.
template <class F>
SIMD_INLINE void for_vectors(int n, F f) {
    int i = 0;
    for (; i + LANES <= n; i += LANES) f(i, Full());
    if (i < n) f(i, n - i);
}

SIMD_INLINE float sum_lanes(Vec x) {  // in one fixed order
    float e[LANES];
    store(e, x);
    for (int width = LANES / 2; width > 0; width /= 2)
        for (int i = 0; i < width; i++) e[i] += e[i + width];
    return e[0];
}
SIMD_INLINE float max_lanes(Vec x) {
    float e[LANES];
    store(e, x);
    for (int width = LANES / 2; width > 0; width /= 2)
        for (int i = 0; i < width; i++) e[i] = e[i] > e[i + width] ? e[i] : e[i + width];
    return e[0];
}

// exp to 2 units in the last place (polynomial of Cephes' expf); 0 where the result would be below the smallest normal
// number, e^88 above x = 88.
SIMD_INLINE Vec exp_of(Vec x) {
    const float LOG2E = 1.44269504088896341f, LN2_HIGH = 0.693359375f, LN2_LOW = -2.12194440e-4f,
                SHIFTER = 12582912.0f;
    const Vec lowest = all(-87.3365f), highest = all(88.0f);
    const Vec clamped = x > highest ? highest : x;
    // The low bits of its fraction are round(x / ln 2).
    const Vec shifted = fma(clamped, all(LOG2E), all(SHIFTER));
    const Vec n = shifted - all(SHIFTER);
    const Vec r = fma(n, all(-LN2_LOW), fma(n, all(-LN2_HIGH), clamped));
    Vec p = all(1.9875691500e-4f);
    p = fma(p, r, all(1.3981999507e-3f));
    p = fma(p, r, all(8.3334519073e-3f));
    p = fma(p, r, all(4.1665795894e-2f));
    p = fma(p, r, all(1.6666665459e-1f));
    p = fma(p, r, all(5.0000001201e-1f));
    p = fma(p, r * r, r) + all(1);
    const UVec power = (UVec)shifted << 23;  // the shifter's own low bits are zero
    const Vec scale = (Vec)(power + (uint32_t(127) << 23));
    return x < lowest ? Vec{} : p * scale;
}

}  // namespace
