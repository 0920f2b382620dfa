// objective.h -- what is maximised: TraceRL (Wang et al., arXiv 2509.06949), equation by equation.
//
// A response is trained through pairs (t, j): token j, predicted from the state t it was revealed from. tau(t) are the
// tokens revealed at t = 1..S, in order of the trace, after shrinkage (Section 4.1; masks.h). Equation numbers are the
// paper's; an equation without a number there has its section and a letter, in order. objective.cpp cites each where it
// is computed.
//
//   (1)    x_t masks every token with probability t            the noise of SFT and random masks: masks.h
//   (2)    E_t 1/t sum over the masked i of log p(x_i | x_t)   the diffusion bound: SFT's weight 1/t (masks.h), eval/likelihood.h
//
//   (3)    J = sum_t norm(t) sum_{j in tau(t)} [ min(rho_j A_j, clip(rho_j, 1-eps_low, 1+eps_high) A_j) - beta k3_j ]
//            averaged over responses          rho_j = exp(logp_new - logp_old)
//          norm(t)   step: 1/|tau(t)| (the paper)   sequence: 1/|tau|   constant: 1/norm_length (the reference code)
//                    token: 1/(all pairs of the update), no average
//          k3_j      exp(d) - 1 - d,  d = logp_old - logp_new: the divergence from the old policy (Section B.5); d is clamped
//                    to +-10, in rho_j too, and has no gradient beyond
//          A_j       the reward's z-score in its group, for every token (advantages.h), or with a value model (4.2f)
//
//   Section 4.2, V_j = value at token j in the state before its reveal, of the old value model:
//   (4.2a) r*_t = mean of r_j,   V*_t = mean of V_j            over j in tau(t)
//   (4.2b) R*_t = r*_t + gamma R*_{t+1}                        step-wise return, 0 after the last step
//   (4.2c) delta_t = r*_t - V*_t + gamma V*_{t+1}              TD residual
//   (4.2d) A*_t = delta_t + gamma lambda A*_{t+1}              step-wise advantage (GAE)
//   (4.2e) R_j = r_j + gamma R*_{t+1}                          a token's return       (A.1) is its explicit form
//   (4.2f) A_j = (r_j - V_j) + gamma V*_{t+1} + gamma lambda A*_{t+1}                 (A.2) is its explicit form
//   (4)    J_value = sum_t norm(t) sum_{j in tau(t)} 0.5 max((V_new - R_j)^2, (clip(V_new, V_j +- eps) - R_j)^2)
//            the paper's norm is 1/|tau|; here it is the one of (3)
//
// (A.1) and (A.2), equations (1) and (2) of the paper's Appendix A, are tested against the recursions in
// tests/test_objective.cpp. Section 4.3 (all blocks' l-th steps in one pass) is the packed layout, model/layout.h;
// Algorithm 1 (B.6) is tracerl.cpp.
//
// loss = policy_loss + beta kl = -J; the value loss is the value model's own. Everything here is on the host and in
// double, one response at a time. What one pair adds to (3) and (4), with its derivative, is in kernels/pair_loss.h,
// since a device computes it, too.
#pragma once
#include <span>
#include <vector>

#include "kernels/ops.h"
#include "model/layout.h"

enum class LossNorm { Step, Sequence, Token, Constant };

struct ObjectiveOptions {
    LossNorm loss_norm = LossNorm::Step;
    double norm_length = 0;  // of LossNorm::Constant, which needs one
    double kl_beta = 0.01;
    double clip_low = 0.2, clip_high = 0.2;
    // value model
    double gamma = 1, lambda = 1;
    double value_clip = 0.2;
};

// norm(t) of (3), divided by the number of responses where they are averaged: the weight of every pair, one
// vector per sequence, pairs in the order of copies and targets. All sequences of one update.
std::vector<std::vector<double>> loss_weights(std::span<const Sequence> update, LossNorm norm,
                                              double norm_length);

// The pairs of one response. credit: A_j or R_j; old: the old policy's log-probs or the old value model's values, empty
// where it is the one in training. Spans hold one number per pair.
std::vector<LossPair> loss_pairs(std::span<const double> old, std::span<const double> credit,
                                 std::span<const double> weight);

// The sums of one response, already weighted.
struct PolicyLoss {
    double policy = 0, kl = 0;  // loss = policy + beta * kl
    int64_t clipped = 0;        // pairs whose ratio is outside [1 - clip_low, 1 + clip_high]
    double max_ratio = 1;       // largest rho
};
// -(3)
PolicyLoss policy_loss(std::span<const double> logprob, std::span<const LossPair> pairs,
                       const ObjectiveOptions& options);

// (4.2a) to (4.2f): returns R_j and advantages A_j of one response from rewards r_j and old values V_j, one number per pair.
// The copies of `sequence` are the steps t.
void step_returns(std::span<double> returns, std::span<double> advantages, std::span<const double> reward,
                  std::span<const double> value, const Sequence& sequence, double gamma, double lambda);

// A verifiable reward sits on all tokens of the last step. One number per pair.
std::vector<double> reward_at_end(const Sequence& sequence, double reward);

// (4), the weighted loss of one response.
double value_loss(std::span<const double> value, std::span<const LossPair> pairs, double value_clip);

// SFT: the weighted cross-entropy of one sequence, sum of weight * -logp. Its derivative, -weight, is that of (3) on policy
// with A = 1, so its pairs are these; n divides the weights of all sequences.
double cross_entropy(std::span<const double> logprob, std::span<const LossPair> pairs);
std::vector<std::vector<LossPair>> cross_entropy_pairs(std::span<const std::vector<double>> weights,
                                                       double n);
