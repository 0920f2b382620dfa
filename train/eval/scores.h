// scores.h -- what a number of right and wrong responses says of a model.
#pragma once
#include <span>
#include <utility>
#include <vector>

#include "train/rollout.h"

struct Interval {
    double low = 0, high = 1;
};

// Wilson's 95% interval of a share, of which `share` of n independent trials were seen.
Interval wilson_interval(double share, int64_t n);

// The chance that at least one of k responses is right, unbiased from n responses of which `right` are
// (Chen et al., arXiv 2107.03374): 1 - C(n - right, k) / C(n, k). k is from 1 to n.
double pass_at_k(int n, int right, int k);

struct Scores {
    RolloutStats stats;  // means over all responses: the accuracy is avg@k
    int64_t problems = 0, responses = 0;
    int samples = 0;    // responses to each problem; the fewest where they differ
    Interval accuracy;  // Wilson's, of `problems` trials: the samples of one problem are not independent
    std::vector<std::pair<int, double>> pass_at;  // k, mean over problems
};

// pass_at: the k that are wanted; those above the number of samples are left out.
Scores score(const RolloutBatch& batch, std::span<const int> pass_at);
