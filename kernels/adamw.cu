// adamw.cu -- see adamw.h. One thread per neighbouring elements whose moments are 16 bytes each; four of them share one block of
// random bits. Moments, gradient and copy are each F32 or BF16.
#include <cmath>

#include "kernels/cuda_kernels.h"
#include "kernels/stochastic_rounding.h"

namespace cuda {

// ---- kernels ----

// Elements [i, i + count) of p; all of them in packs of up to 16 bytes.
template <int EACH, class T>
__device__ inline void load_some(float (&out)[EACH], const T* p, int64_t i, int count) {
    constexpr int PACK = EACH < int(16 / sizeof(T)) ? EACH : int(16 / sizeof(T));
    if (count == EACH) {
        for (int e = 0; e < EACH; e += PACK) {
            const Pack<T, PACK> pack = load_pack<PACK>(p + i + e);
            for (int k = 0; k < PACK; k++) out[e + k] = to_float(pack.v[k]);
        }
    } else {
        for (int k = 0; k < count; k++) out[k] = to_float(p[i + k]);
    }
}
template <int EACH, class T>
__device__ inline void store_some(T* p, int64_t i, int count, const float (&x)[EACH]) {
    constexpr int PACK = EACH < int(16 / sizeof(T)) ? EACH : int(16 / sizeof(T));
    if (count == EACH) {
        for (int e = 0; e < EACH; e += PACK) {
            Pack<T, PACK> pack;
            for (int k = 0; k < PACK; k++) pack.v[k] = from_float<T>(x[e + k]);
            store_pack(p + i + e, pack);
        }
    } else {
        for (int k = 0; k < count; k++) p[i + k] = from_float<T>(x[k]);
    }
}

template <class P, class M, class G>
__global__ void adamw_kernel(float* exact, P* copy, M* m, M* v, const G* grad, int64_t n, AdamW o,
                             float correct1, float correct2) {
    constexpr int EACH = 16 / sizeof(M);
    const int64_t i = EACH * (int64_t(blockIdx.x) * blockDim.x + threadIdx.x);
    if (i >= n) return;
    const int count = n - i < EACH ? int(n - i) : EACH;
    float w[EACH] = {}, m_[EACH] = {}, v_[EACH] = {}, g[EACH] = {};
    load_some(w, exact, i, count);
    load_some(m_, m, i, count);
    load_some(v_, v, i, count);
    load_some(g, grad, i, count);
    for (int k = 0; k < EACH; k++) {
        g[k] *= o.grad_scale;
        m_[k] = o.beta1 * m_[k] + (1.0f - o.beta1) * g[k];
        v_[k] = o.beta2 * v_[k] + (1.0f - o.beta2) * g[k] * g[k];
        w[k] -= o.lr * (m_[k] / correct1 / (sqrtf(v_[k] / correct2) + o.eps) + o.weight_decay * w[k]);
    }
    if constexpr (sizeof(M) == 2)
        for (int quad = 0; quad < EACH / 4; quad++) {
            const auto bits = rounding_bits(n, i / 4 + quad, o.step);
            for (int k = 0; k < 4; k++) {
                m_[quad * 4 + k] = round_stochastically(m_[quad * 4 + k], bits[size_t(k)]);
                v_[quad * 4 + k] = round_stochastically(v_[quad * 4 + k], bits[size_t(k)] >> 16);
            }
        }
    store_some(m, i, count, m_);
    store_some(v, i, count, v_);
    store_some(exact, i, count, w);
    if (copy) store_some(copy, i, count, w);
}

// ---- launchers ----

void adamw(const Context& ctx, Tensor param, Tensor m, Tensor v, Tensor grad, const AdamW& o, Tensor master) {
    const int64_t n = param.size();
    const Tensor exact = master ? master : param;
    for (const Tensor& t : {param, m, v, grad, exact})
        CHECK(t.size() == n && t.contiguous() && reinterpret_cast<uintptr_t>(t.data) % 16 == 0,
              "AdamW: a tensor of (%lld, %lld) among such of %lld contiguous elements", (long long)t.rows,
              (long long)t.cols, (long long)n);
    CHECK(m.dtype == v.dtype, "AdamW: moments of type %s and %s", name_of(m.dtype), name_of(v.dtype));
    if (n == 0) return;
    const float correct1 = float(1 - std::pow(double(o.beta1), double(o.step)));
    const float correct2 = float(1 - std::pow(double(o.beta2), double(o.step)));
    with_type(param.dtype, "param", [&](auto p) {
        using P = decltype(p);
        with_type(m.dtype, "a moment", [&](auto mm) {
            using M = decltype(mm);
            with_type(grad.dtype, "grad", [&](auto g) {
                using G = decltype(g);
                launch(adamw_kernel<P, M, G>, ceil_div(n, int(16 / sizeof(M)) * 256), 256, 0, ctx.stream,
                       exact.as<float>(), master ? param.as<P>() : static_cast<P*>(nullptr), m.as<M>(),
                       v.as<M>(), static_cast<const G*>(grad.as<G>()), n, o, correct1, correct2);
            });
        });
    });
}

}  // namespace cuda
