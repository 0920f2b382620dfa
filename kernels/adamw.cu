// adamw.cu -- see adamw.h. One thread per element; parameter, moments and gradient are each F32 or BF16.
//
// What is kept in BF16 is rounded stochastically: with beta2 = 0.999 a second moment changes by a thousandth
// per step, less than half of bf16's spacing, and would never move if rounded to nearest. The random bits
// depend on seed (the tensor's number of elements and the step) and element alone.
#include <cmath>

#include "kernels/cuda_kernels.h"
#include "utils/philox.h"

namespace cuda {

// ---- kernels ----

__device__ inline void store_rounded(float* p, float x, uint32_t) { *p = x; }
// Adds 16 random bits below the last one that stays, then cuts: rounds up as often as x is near the upper
// neighbour.
__device__ inline void store_rounded(bf16* p, float x, uint32_t bits16) {
    const uint32_t u = __float_as_uint(x);
    const bool finite = (u & 0x7f800000u) != 0x7f800000u;
    *p = from_float<bf16>(__uint_as_float(finite ? (u + (bits16 & 0xffffu)) & 0xffff0000u : u));
}

template <class P, class M, class G>
__global__ void adamw_kernel(P* param, M* m, M* v, const G* grad, int64_t n, AdamW o, float correct1,
                             float correct2) {
    const int64_t i = int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
    if (i >= n) return;
    const float g = o.grad_scale * to_float(grad[i]);
    const float mi = o.beta1 * to_float(m[i]) + (1.0f - o.beta1) * g;
    const float vi = o.beta2 * to_float(v[i]) + (1.0f - o.beta2) * g * g;
    const float p = to_float(param[i]);
    const float next = p - o.lr * (mi / correct1 / (sqrtf(vi / correct2) + o.eps) + o.weight_decay * p);
    uint32_t bits[4] = {};
    if constexpr (sizeof(P) == 2 || sizeof(M) == 2) {
        const auto random =
            philox(uint64_t(n), {uint32_t(i), uint32_t(i >> 32), uint32_t(Stream::Noise), uint32_t(o.step)});
        for (int k = 0; k < 3; k++) bits[k] = random[size_t(k)];
    }
    store_rounded(m + i, mi, bits[0]);
    store_rounded(v + i, vi, bits[1]);
    store_rounded(param + i, next, bits[2]);
}

// ---- launchers ----

void adamw(const Context& ctx, Tensor param, Tensor m, Tensor v, Tensor grad, const AdamW& o) {
    const int64_t n = param.size();
    CHECK(m.size() == n && v.size() == n && grad.size() == n && m.dtype == v.dtype && param.contiguous() &&
              m.contiguous() && v.contiguous() && grad.contiguous(),
          "AdamW: tensors of different shapes");
    if (n == 0) return;
    const float correct1 = float(1 - std::pow(double(o.beta1), double(o.step)));
    const float correct2 = float(1 - std::pow(double(o.beta2), double(o.step)));
    with_type(param.dtype, "param", [&](auto p) {
        using P = decltype(p);
        with_type(m.dtype, "a moment", [&](auto mm) {
            using M = decltype(mm);
            with_type(grad.dtype, "grad", [&](auto g) {
                using G = decltype(g);
                launch(adamw_kernel<P, M, G>, ceil_div(n, 256), 256, 0, ctx.stream, param.as<P>(), m.as<M>(),
                       v.as<M>(), static_cast<const G*>(grad.as<G>()), n, o, correct1, correct2);
            });
        });
    });
}

}  // namespace cuda
