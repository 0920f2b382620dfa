// pair_loss.cu -- see pair_loss.h.
#include "kernels/cuda_kernels.h"
#include "kernels/pair_loss.h"

namespace cuda {

constexpr int THREADS = 256;
constexpr double MAX_LOG_RATIO = 10;

// ---- kernels ----

__device__ inline double clamp(double x, double low, double high) {
    return x < low ? low : x > high ? high : x;
}

__global__ void policy_loss_kernel(double* sums, float* dlogprob, const float* logp_new,
                                   const float* logp_old, const float* advantage, const float* weight, int n,
                                   PolicyLossOptions o) {
    double policy = 0, kl = 0;
    for (int i = int(threadIdx.x); i < n; i += THREADS) {
        const double raw = double(logp_old[i]) - double(logp_new[i]),
                     d = clamp(raw, -MAX_LOG_RATIO, MAX_LOG_RATIO);
        const double dd = raw == d ? -1 : 0;  // d d / d logp_new: nothing beyond the clamp
        const double rho = exp(-d), A = double(advantage[i]), w = double(weight[i]);
        const double plain = rho * A, clipped = clamp(rho, 1 - o.clip_low, 1 + o.clip_high) * A;
        const double dsurrogate =
            plain <= clipped ? -plain * dd : 0;  // the clipped one is flat where it clips
        policy -= w * (plain < clipped ? plain : clipped);
        kl += w * (exp(d) - 1 - d);
        dlogprob[i] = float(w * (-dsurrogate + o.kl_beta * (exp(d) - 1) * dd));
    }
    policy = block_sum(policy);
    kl = block_sum(kl);
    if (threadIdx.x == 0) sums[0] = policy, sums[1] = kl;
}

__global__ void value_loss_kernel(double* sum, float* dvalue, const float* value, const float* value_old,
                                  const float* returns, const float* weight, int n, double clip) {
    double loss = 0;
    for (int i = int(threadIdx.x); i < n; i += THREADS) {
        const double V = double(value[i]), old = double(value_old[i]), R = double(returns[i]),
                     w = double(weight[i]);
        const double clipped = old + clamp(V - old, -clip, clip);
        const double plain_error = (V - R) * (V - R), clipped_error = (clipped - R) * (clipped - R);
        loss += w * 0.5 * (plain_error > clipped_error ? plain_error : clipped_error);
        dvalue[i] = float(plain_error >= clipped_error ? w * (V - R) : 0);
    }
    loss = block_sum(loss);
    if (threadIdx.x == 0) *sum = loss;
}

// ---- launchers ----

void policy_loss(const Context& ctx, double* sums, float* dlogprob, const float* logp_new,
                 const float* logp_old, const float* advantage, const float* weight, int n,
                 const PolicyLossOptions& options) {
    launch(policy_loss_kernel, 1, THREADS, 0, ctx.stream, sums, dlogprob, logp_new, logp_old, advantage,
           weight, n, options);
}

void value_loss(const Context& ctx, double* sum, float* dvalue, const float* value, const float* value_old,
                const float* returns, const float* weight, int n, double clip) {
    launch(value_loss_kernel, 1, THREADS, 0, ctx.stream, sum, dvalue, value, value_old, returns, weight, n,
           clip);
}

}  // namespace cuda
