// adamw.cu -- see adamw.h. One thread per four neighbouring elements, which share one block of random bits; moments,
// gradient and copy are each F32 or BF16.
#include <cmath>

#include "kernels/cuda_kernels.h"
#include "kernels/stochastic_rounding.h"

namespace cuda {

// ---- kernels ----

// Elements [i, i + count) of p; four in one instruction.
template <class T>
__device__ inline void load_four(float (&out)[4], const T* p, int64_t i, int count) {
    if (count == 4) {
        const Pack<T, 4> pack = load_pack<4>(p + i);
        for (int k = 0; k < 4; k++) out[k] = to_float(pack.v[k]);
    } else {
        for (int k = 0; k < count; k++) out[k] = to_float(p[i + k]);
    }
}
template <class T>
__device__ inline void store_four(T* p, int64_t i, int count, const float (&x)[4]) {
    if (count == 4) {
        Pack<T, 4> pack;
        for (int k = 0; k < 4; k++) pack.v[k] = from_float<T>(x[k]);
        store_pack(p + i, pack);
    } else {
        for (int k = 0; k < count; k++) p[i + k] = from_float<T>(x[k]);
    }
}

template <class P, class M, class G>
__global__ void adamw_kernel(float* exact, P* copy, M* m, M* v, const G* grad, int64_t n, AdamW o,
                             float correct1, float correct2) {
    const int64_t quad = int64_t(blockIdx.x) * blockDim.x + threadIdx.x, i = 4 * quad;
    if (i >= n) return;
    const int count = n - i < 4 ? int(n - i) : 4;
    float w[4] = {}, m4[4] = {}, v4[4] = {}, g[4] = {};
    load_four(w, exact, i, count);
    load_four(m4, m, i, count);
    load_four(v4, v, i, count);
    load_four(g, grad, i, count);
    for (int k = 0; k < 4; k++) {
        g[k] *= o.grad_scale;
        m4[k] = o.beta1 * m4[k] + (1.0f - o.beta1) * g[k];
        v4[k] = o.beta2 * v4[k] + (1.0f - o.beta2) * g[k] * g[k];
        w[k] -= o.lr * (m4[k] * correct1 / (sqrtf(v4[k] * correct2) + o.eps) + o.weight_decay * w[k]);
    }
    if constexpr (sizeof(M) == 2) {
        const auto bits = rounding_bits(n, quad, o.step);
        for (int k = 0; k < 4; k++) {
            m4[k] = round_stochastically(m4[k], bits[size_t(k)]);
            v4[k] = round_stochastically(v4[k], bits[size_t(k)] >> 16);
        }
    }
    store_four(m, i, count, m4);
    store_four(v, i, count, v4);
    store_four(exact, i, count, w);
    if (copy) store_four(copy, i, count, w);
}

// ---- launchers ----

void adamw(const Context& ctx, Tensor param, Tensor m, Tensor v, Tensor grad, const AdamW& o, Tensor master) {
    const int64_t n = param.size();
    const Tensor exact = master ? master : param;
    for (const Tensor& t : {param, m, v, grad, exact})
        CHECK(t.size() == n && t.contiguous() && aligned_for(t, 4),
              "AdamW: a tensor of (%lld, %lld) among such of %lld contiguous elements", (long long)t.rows,
              (long long)t.cols, (long long)n);
    CHECK(m.dtype == v.dtype, "AdamW: moments of type %s and %s", name_of(m.dtype), name_of(v.dtype));
    if (n == 0) return;
    // Factors, not divisors: a division is some ten instructions.
    const float correct1 = float(1 / (1 - std::pow(double(o.beta1), double(o.step))));
    const float correct2 = float(1 / (1 - std::pow(double(o.beta2), double(o.step))));
    with_type(param.dtype, "param", [&](auto p) {
        using P = decltype(p);
        with_type(m.dtype, "a moment", [&](auto mm) {
            using M = decltype(mm);
            with_type(grad.dtype, "grad", [&](auto g) {
                using G = decltype(g);
                launch(adamw_kernel<P, M, G>, ceil_div(n, 4 * 256), 256, 0, ctx.stream, exact.as<float>(),
                       master ? param.as<P>() : static_cast<P*>(nullptr), m.as<M>(), v.as<M>(),
                       static_cast<const G*>(grad.as<G>()), n, o, correct1, correct2);
            });
        });
    });
}

}  // namespace cuda
