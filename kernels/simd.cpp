#include "kernels/simd.h"

extern const Simd SIMD_GENERIC;
#ifdef __x86_64__
extern const Simd SIMD_AVX2, SIMD_AVX512;
#endif

const Simd* simd(Isa isa) {
#ifdef __x86_64__
    if (isa == Isa::Avx512 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq"))
        return &SIMD_AVX512;
    if (isa == Isa::Avx2 && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
        return &SIMD_AVX2;
#endif
    return isa == Isa::Generic ? &SIMD_GENERIC : nullptr;
}

const Simd& best_simd() {
    if (const Simd* found = simd(Isa::Avx512)) return *found;
    if (const Simd* found = simd(Isa::Avx2)) return *found;
    return SIMD_GENERIC;
}
