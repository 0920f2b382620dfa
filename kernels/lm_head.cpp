#include "kernels/lm_head.h"

#include "kernels/parallel.h"

namespace cpu {

static const int* checked_targets(Tensor target, int64_t N, int64_t V) {
    const int* t = vector_of<int>(target, N);
    for (int64_t n = 0; n < N; n++)
        CHECK(t[n] >= 0 && t[n] < V, "target %d, the vocabulary has %lld", t[n], (long long)V);
    return t;
}

template <class W>
static void logprob_rows(Tensor logprob, Tensor lse, Tensor entropy, Tensor hidden, Tensor weight,
                         const int* target) {
    const int N = int(hidden.rows), C = int(hidden.cols), V = int(weight.rows);
    float *p = vector_of<float>(logprob, N), *l = vector_of<float>(lse, N), *e = vector_of<float>(entropy, N);
    const Rows<const float> x = rows_of<const float>(hidden);
    const Rows<const W> w = rows_of<const W>(weight);
    parallel_for(N, int64_t(V) * C, [&](int64_t n) {
        ref::head_logprob<float, W>(p + n, l + n, e ? e + n : nullptr, x.from(n), w, target + n, 1, C, V);
    });
}

void head_logprob(Tensor logprob, Tensor lse, Tensor entropy, Tensor hidden, Tensor weight, Tensor target) {
    const int* t = checked_targets(target, hidden.rows, weight.rows);
    if (weight.dtype == DType::BF16)
        logprob_rows<Bf16>(logprob, lse, entropy, hidden, weight, t);
    else
        logprob_rows<float>(logprob, lse, entropy, hidden, weight, t);
}

void head_backward(Tensor dhidden, Tensor dweight, Tensor dlogprob, Tensor lse, Tensor hidden, Tensor weight,
                   Tensor target) {
    const int N = int(hidden.rows), C = int(hidden.cols), V = int(weight.rows);
    const int* t = checked_targets(target, N, V);
    ref::head_backward<float>(rows_of<float>(dhidden), rows_of<float>(dweight), vector_of<float>(dlogprob, N),
                              vector_of<float>(lse, N), rows_of<const float>(hidden),
                              rows_of<const float>(weight), t, N, C, V);
}

}  // namespace cpu
