#include "kernels/adamw.h"

#include "kernels/parallel.h"

namespace cpu {

void adamw(Context& context, Tensor param, Tensor m, Tensor v, Tensor grad, const AdamW& o) {
    const int64_t n = param.size();
    float *p = vector_of<float>(param, n), *m1 = vector_of<float>(m, n), *m2 = vector_of<float>(v, n);
    const float* g = vector_of<float>(grad, n);
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
        context.simd.adamw(p + begin, m1 + begin, m2 + begin, g + begin, int(end - begin), step);
    });
}

}  // namespace cpu
