#include "kernels/adamw.h"

#include <algorithm>

#include "kernels/parallel.h"
#include "kernels/stochastic_rounding.h"

namespace cpu {

namespace {

// Elements [begin, end) where the moments are BF16: piece by piece in fp32, then rounded as on every device.
void with_bf16_moments(const Simd& simd, float* exact, Bf16* m, Bf16* v, const float* grad, int64_t begin,
                       int64_t end, int64_t n, int64_t update, const Simd::AdamStep& step) {
    constexpr int PIECE = 256;
    float m32[PIECE], v32[PIECE];
    std::array<uint32_t, 4> bits{};
    for (int64_t b = begin; b < end; b += PIECE) {
        const int count = int(std::min<int64_t>(PIECE, end - b));
        for (int i = 0; i < count; i++) m32[i] = number(m[b + i]), v32[i] = number(v[b + i]);
        simd.adamw(exact + b, m32, v32, grad + b, count, step);
        for (int i = 0; i < count; i++) {
            const int64_t e = b + i;
            if (i == 0 || e % 4 == 0) bits = rounding_bits(n, e / 4, update);
            m[e] = to_bf16(round_stochastically(m32[i], bits[size_t(e % 4)]));
            v[e] = to_bf16(round_stochastically(v32[i], bits[size_t(e % 4)] >> 16));
        }
    }
}

}  // namespace

void adamw(Context& context, Tensor param, Tensor m, Tensor v, Tensor grad, const AdamW& o, Tensor master) {
    const int64_t n = param.size();
    float* exact = vector_of<float>(master ? master : param, n);
    const float* g = vector_of<float>(grad, n);
    CHECK(m.size() == n && v.size() == n && m.dtype == v.dtype, "AdamW: moments of %lld %s and %lld %s",
          (long long)m.size(), name_of(m.dtype), (long long)v.size(), name_of(v.dtype));
    const Simd::AdamStep step = {
        .grad_scale = o.grad_scale,
        .beta1 = o.beta1,
        .beta2 = o.beta2,
        .one_minus_beta1 = 1 - o.beta1,
        .one_minus_beta2 = 1 - o.beta2,
        .correct1 = float(1 - std::pow(double(o.beta1), double(o.step))),
        .correct2 = float(1 - std::pow(double(o.beta2), double(o.step))),
        .lr = o.lr,
        .eps = o.eps,
        .weight_decay = o.weight_decay,
    };
    parallel_ranges(n, 4096, 1, [&](int64_t begin, int64_t end) {
        if (m.dtype == DType::BF16)
            with_bf16_moments(context.simd, exact, m.as<Bf16>(), v.as<Bf16>(), g, begin, end, n, o.step,
                              step);
        else
            context.simd.adamw(exact + begin, m.as<float>() + begin, v.as<float>() + begin, g + begin,
                               int(end - begin), step);
        for (int64_t i = begin; master && i < end; i++)
            if (param.dtype == DType::BF16)
                param.as<Bf16>()[i] = to_bf16(exact[i]);
            else
                param.as<float>()[i] = exact[i];
    });
}

}  // namespace cpu
