// objective.h -- what is maximised: TraceRL (Wang et al., arXiv 2509.06949), equation by equation.
//
// A response is trained through pairs (t, j): token j, predicted from the state t it was revealed from.
// tau(t) are the tokens revealed at t. rho_j = exp(logp_new - logp_old).
//
//   policy (Eq. 3)   J = sum_t norm(t) sum_{j in tau(t)} [ min(rho_j A_j, clip(rho_j, 1-eps_low, 1+eps_high) A_j)
//                                                          - beta k3_j ]          averaged over responses
//                    k3_j = exp(d) - 1 - d,   d = logp_old - logp_new, clamped to +-10: no gradient beyond
//   norm(t)          step: 1/|tau(t)| (the paper)    sequence: 1/|tau|    constant: 1/norm_length (the reference code)
//                    token: 1/(all pairs of the update), no average
//   loss             policy_loss + beta kl = -J
//
//   with a value model, V_j = value at token j in the state before its reveal, t = 1..S in order of the trace:
//                    r*_t = mean of r_j        V*_t = mean of V_j             over j in tau(t)
//                    R*_t = r*_t + gamma R*_{t+1}                             step-wise return
//                    delta_t = r*_t - V*_t + gamma V*_{t+1}
//                    A*_t = delta_t + gamma lambda A*_{t+1}                   step-wise advantage (GAE)
//                    R_j = r_j + gamma R*_{t+1}
//                    A_j = (r_j - V_j) + gamma V*_{t+1} + gamma lambda A*_{t+1}
//   value loss       sum_t norm(t) sum_{j in tau(t)} 0.5 max((V_j - R_j)^2, (clip(V_j, V_old +- eps) - R_j)^2)
//
// Everything here is on the host and in double; one response at a time.
#pragma once
#include <span>
#include <vector>

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

// norm(t), divided by the number of responses where they are averaged: the weight of every pair, one vector
// per sequence, pairs in the order of copies and targets. All sequences of one update.
std::vector<std::vector<double>> loss_weights(std::span<const Sequence> update, LossNorm norm,
                                              double norm_length);

// The sums of one response, already weighted.
struct PolicyLoss {
    double policy = 0, kl = 0;  // loss = policy + beta * kl
};
// dlogprob[i] = d loss / d logp_new[i]. All spans hold one number per pair.
PolicyLoss policy_loss(std::span<double> dlogprob, std::span<const double> logp_new,
                       std::span<const double> logp_old, std::span<const double> advantage,
                       std::span<const double> weight, const ObjectiveOptions& options);

// Returns R_j and advantages A_j of one response from rewards r_j and old values V_j, one number per pair.
// The copies of `sequence` are the steps t.
void step_returns(std::span<double> returns, std::span<double> advantages, std::span<const double> reward,
                  std::span<const double> value, const Sequence& sequence, double gamma, double lambda);

// A verifiable reward sits on all tokens of the last step. One number per pair.
std::vector<double> reward_at_end(const Sequence& sequence, double reward);

// dvalue[i] = d loss / d value[i]; returns the weighted loss of one response.
double value_loss(std::span<double> dvalue, std::span<const double> value, std::span<const double> value_old,
                  std::span<const double> returns, std::span<const double> weight, double value_clip);

// SFT: the weighted cross-entropy, sum of weight * -logp.
double cross_entropy(std::span<double> dlogprob, std::span<const double> logprob,
                     std::span<const double> weight);
