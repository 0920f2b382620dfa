// reveal_block.h -- which masked rows of a block are revealed, decided on the device for all running sequences at once.
//
// The rules are those of generation (static, dynamic, sequential, entropy-bounded), and their reference is inference/reveal.h: with m
// the masked rows of a block and k = min(n, |m|)
//   Static          the k most confident of m, the earlier on ties
//   Dynamic         those above the threshold; where they are fewer than k, as Static
//   Sequential      the first k of m
//   EntropyBounded  m by entropy, the longest beginning whose sum stays below the bound, at least one
// A warp per block: a row's rank is counted, nothing is sorted. So a denoising step needs no round trip to the host.
#pragma once
#include <cstdint>

#include "kernels/ops.h"

enum class RevealRule : int { Static, Dynamic, Sequential, EntropyBounded };

// One sequence's block in a step.
struct RevealBlock {
    int first_row;  // of the rows that were sampled; the block's rows follow each other
    int rows;       // B, at most MOST_REVEAL_ROWS
    int n;          // n(step)
    RevealRule rule;
    double threshold;  // of Dynamic
    double bound;      // of EntropyBounded, in nats
};
constexpr int MOST_REVEAL_ROWS = 256;
