#include "kernels/pair_loss.h"

#include "kernels/parallel.h"
#include "kernels/view.h"

namespace cpu {

// d[i] = derivative(output[i], pair i)
template <class F>
static void for_pairs(Tensor d, Tensor output, Tensor pairs, const F& derivative) {
    constexpr int GRAIN = 256, WORK = 100;
    float* out = vector_of<float>(d, pairs.rows);
    const float* x = vector_of<float>(output, pairs.rows);
    const LossPair* pair = records_of<LossPair>(pairs);
    parallel_ranges(pairs.rows, GRAIN, WORK, [&](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; i++)
            out[i] = float(pair[i].weight * derivative(double(x[i]), pair[i]));
    });
}

void policy_loss_backward(Tensor dlogprob, Tensor logprob, Tensor pairs, double clip_low, double clip_high,
                          double kl_beta) {
    for_pairs(dlogprob, logprob, pairs, [=](double x, const LossPair& pair) {
        return policy_terms(x, pair, clip_low, clip_high, kl_beta).dlogprob;
    });
}

void value_loss_backward(Tensor dvalue, Tensor value, Tensor pairs, double value_clip) {
    for_pairs(dvalue, value, pairs,
              [=](double x, const LossPair& pair) { return value_terms(x, pair, value_clip).dvalue; });
}

}  // namespace cpu
