// pair_loss.h -- the losses of TraceRL's trained pairs, and their gradients, without leaving the device.
//
// The formulas, in double, are train/objective.h's: per pair i of one update
//   policy   d = clamp(logp_old - logp_new, +-10), rho = exp(-d)
//            surrogate = min(rho A, clamp(rho, 1 - low, 1 + high) A)         k3 = exp(d) - 1 - d
//            policy loss -= weight surrogate      kl += weight k3            dlogprob = d (policy + beta kl) / d logp_new
//   value    clipped = V_old + clamp(V - V_old, +-clip)
//            loss += weight max((V - R)^2, (clipped - R)^2) / 2              dvalue = d loss / d V
// One block goes over all pairs; sums in a fixed order, in double.
#pragma once

struct PolicyLossOptions {
    double clip_low = 0.2, clip_high = 0.2, kl_beta = 0.01;
};
