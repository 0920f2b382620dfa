// pair_loss.cu -- see pair_loss.h. A thread per pair.
#include "kernels/cuda_kernels.h"
#include "kernels/pair_loss.h"

namespace cuda {

constexpr int THREADS = 128;

// ---- kernels ----

__global__ void policy_loss_backward_kernel(float* dlogprob, const float* logprob, const LossPair* pair,
                                            int N, double clip_low, double clip_high, double kl_beta) {
    const int i = int(blockIdx.x * blockDim.x + threadIdx.x);
    if (i >= N) return;
    dlogprob[i] = float(pair[i].weight *
                        policy_terms(double(logprob[i]), pair[i], clip_low, clip_high, kl_beta).dlogprob);
}

__global__ void value_loss_backward_kernel(float* dvalue, const float* value, const LossPair* pair, int N,
                                           double value_clip) {
    const int i = int(blockIdx.x * blockDim.x + threadIdx.x);
    if (i >= N) return;
    dvalue[i] = float(pair[i].weight * value_terms(double(value[i]), pair[i], value_clip).dvalue);
}

// ---- launchers ----

// Of as many pairs as there are outputs and derivatives.
static int checked_pairs(Tensor d, Tensor output, Tensor pairs) {
    CHECK(d.size() == pairs.rows && output.size() == pairs.rows && d.contiguous() && output.contiguous(),
          "losses of %lld pairs: %lld outputs, %lld derivatives", (long long)pairs.rows,
          (long long)output.size(), (long long)d.size());
    return int(pairs.rows);
}

void policy_loss_backward(const Context& ctx, Tensor dlogprob, Tensor logprob, Tensor pairs, double clip_low,
                          double clip_high, double kl_beta) {
    const int N = checked_pairs(dlogprob, logprob, pairs);
    if (N == 0) return;
    launch(policy_loss_backward_kernel, ceil_div(N, THREADS), THREADS, 0, ctx.stream, dlogprob.as<float>(),
           static_cast<const float*>(logprob.as<float>()),
           static_cast<const LossPair*>(records_of<LossPair>(pairs)), N, clip_low, clip_high, kl_beta);
}

void value_loss_backward(const Context& ctx, Tensor dvalue, Tensor value, Tensor pairs, double value_clip) {
    const int N = checked_pairs(dvalue, value, pairs);
    if (N == 0) return;
    launch(value_loss_backward_kernel, ceil_div(N, THREADS), THREADS, 0, ctx.stream, dvalue.as<float>(),
           static_cast<const float*>(value.as<float>()),
           static_cast<const LossPair*>(records_of<LossPair>(pairs)), N, value_clip);
}

}  // namespace cuda
