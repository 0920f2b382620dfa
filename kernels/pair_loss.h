// pair_loss.h -- the loss of one pair (state, token) and its derivative by the network's output: equations (3) and (4) of
// train/objective.h without their sums.
//
//   d = clamp(old - logprob, +-10)      rho = exp(-d)
//   policy   weight * (-surrogate + kl_beta k3)      surrogate = min(rho A, clip(rho, 1 - clip_low, 1 + clip_high) A)
//                                                    k3 = exp(d) - 1 - d
//   value    weight * 0.5 max((V - R)^2, (old + clamp(V - old, +-value_clip) - R)^2)
//
// The one definition: the host sums these terms for reports (train/objective.cpp), both devices turn outputs into gradients
// with them. In double, since a few thousand pairs cost nothing and the weights of an update are small. constexpr lets a
// kernel call them; std::clamp takes its limits by reference, so they are temporaries here: a device would look for a
// named constant in the host's memory.
#pragma once
#include <algorithm>
#include <cmath>

#include "kernels/ops.h"

// All before the pair's weight.
struct PolicyTerms {
    double surrogate, k3;  // loss = -surrogate + kl_beta * k3
    double dlogprob;       // d loss / d logprob
    double ratio;          // exp(logprob - old), not clamped
};
constexpr PolicyTerms policy_terms(double logprob, const LossPair& pair, double clip_low, double clip_high,
                                   double kl_beta) {
    const double A = pair.credit, raw = (pair.current ? logprob : pair.old) - logprob;
    const double d = std::clamp(raw, -10.0, 10.0);
    const double dd = raw == d ? -1 : 0;  // d d / d logprob
    const double rho = std::exp(-d);

    // The smaller of the plain and the clipped surrogate; the clipped one is flat where it clips.
    const double plain = rho * A, clipped = std::clamp(rho, 1 - clip_low, 1 + clip_high) * A;
    const double dsurrogate = plain <= clipped ? -plain * dd : 0;

    const double k3 = std::exp(d) - 1 - d;
    const double dk3 = (std::exp(d) - 1) * dd;
    return {std::min(plain, clipped), k3, -dsurrogate + kl_beta * dk3, std::exp(-raw)};
}

struct ValueTerms {
    double loss, dvalue;
};
constexpr ValueTerms value_terms(double value, const LossPair& pair, double value_clip) {
    const double R = pair.credit, old = pair.current ? value : pair.old;
    const double step = value - old, allowed = std::clamp(step, -value_clip, value_clip);
    // Inside the clip the value itself: old + step may be another by rounding, and the greater one by chance.
    const double clipped = step == allowed ? value : old + allowed;
    const double plain_error = (value - R) * (value - R), clipped_error = (clipped - R) * (clipped - R);
    return {0.5 * std::max(plain_error, clipped_error), plain_error >= clipped_error ? value - R : 0};
}

namespace cpu {
void policy_loss_backward(Tensor dlogprob, Tensor logprob, Tensor pairs, double clip_low, double clip_high,
                          double kl_beta);
void value_loss_backward(Tensor dvalue, Tensor value, Tensor pairs, double value_clip);
}  // namespace cpu
