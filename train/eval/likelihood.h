// likelihood.h -- how probable a model finds a given answer.
//
// An autoregressive model's log-probability is exact. A diffusion model has a lower bound, the mean over the
// orders in which the n tokens of a block (or of the whole answer, under full attention) may be revealed, one
// by one. Written over the set S of those that are masked, all equally likely among their size:
//
//   log p(x) >= mean over l = 1..n, S with |S| = l, of  n/l sum_{i in S} log p(x_i | x without S)
//
// which is the diffusion bound (Eq. 2 of arXiv 2509.06949, times |x|) with the noise level's own variance taken out.
// Block models: the sum over blocks, each given the ones before it; the rest of the last block stays masked, as in
// generation. Where a block has few enough sets all of them are taken, otherwise as many as asked for are drawn, their
// sizes stratified.
#pragma once
#include "model/transformer.h"
#include "train/masks.h"

// The states of one answer. log-likelihood = sum over pairs (copy, target) of weight * log p.
struct AnswerStates {
    Sequence sequence;
    std::vector<double> weight;  // one per pair, in the order of copies and targets
    int tokens = 0;              // of the answer
    bool drawn = false;          // some sets were drawn: the figure is an estimate
};

// A pure function; `sets` are drawn for every block that has more.
AnswerStates likelihood_states(const std::vector<int>& prompt, const std::vector<int>& answer,
                               const MaskShape& shape, int sets, Rng& rng);
AnswerStates causal_states(const std::vector<int>& prompt, const std::vector<int>& answer);

// The network, forward only: log-likelihoods of any number of answers.
class AnswerScorer {
  public:
    // block: 0 for full attention. Plans passes of up to max_rows rows in `arena`, which the caller allocates.
    AnswerScorer(Ops& ops, const ModelConfig& config, const Parameters& weights, int block, int max_rows,
                 Arena& arena);
    // Throws Error(NoMemory) where one state alone takes more than max_rows rows.
    std::vector<double> log_likelihoods(std::span<const AnswerStates> answers);

  private:
    std::vector<float> logprobs(std::span<const Sequence> micro_batch);
    Ops& ops_;
    const ModelConfig& config_;
    const Parameters& weights_;
    int block_, max_rows_;
    KvCache cache_;
    Transformer network_;
    Tensor target_, output_, lse_;  // (1, max_rows)
};
