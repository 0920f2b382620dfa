// reveal_block.h -- which masked positions of a block a denoising step reveals, decided where the candidates are drawn.
//
// With m the masked positions of a block, k = min(n, |m|) and order = m by confidence, highest first, then position:
//   low_confidence_static    order[0:k]
//   low_confidence_dynamic   A = {i in m : confidence_i > threshold};  A if |A| >= k else order[0:k]
//   sequential               the first k of m
//   entropy_bounded          m by entropy, lowest first, then position: the longest prefix whose sum stays below the bound, at
//                            least one, whatever n
//   factor                   the longest prefix of order whose r-th candidate has confidence >= 1 - factor / (r + 1), r = 1, 2, ...,
//                            whatever n; the first always, and the last of m with all before it (Fast-dLLM)
// n(step) = B / S, the remainder going to the first steps; once the S steps are used up, everything that is left.
//
// reveal_blocks() does it for all blocks of a run (ops.h) and says whether the run goes on: as long as every block keeps a mask
// and no sequence is at its end, the next step needs nothing from the host.
#pragma once
#include <span>
#include <vector>

#include "kernels/ops.h"

// n(step) of a block of B in S steps. 0 from step S on where S > B.
constexpr int reveal_count(int block, int steps, int step) {
    return block / steps + (step < block % steps ? 1 : 0);
}
// Whether the candidate with `rank` others of n_masked before it ends the prefix that factor reveals.
constexpr bool ends_factor(const RevealRule& rule, int rank, int n_masked, float confidence) {
    return rank > 0 && rank < n_masked - 1 && double(confidence) < 1 - rule.factor / (rank + 2);
}
// So many of n_masked positions a step reveals whatever the candidates are (at most: all of them).
int surely_revealed(const RevealRule& rule, int step, int n_masked);

namespace ref {

// Positions to reveal, ascending. masked[i], confidence[i], entropy[i] belong to position i of the block (the latter two are read
// only where masked).
std::vector<int> reveal(std::span<const char> masked, std::span<const float> confidence,
                        std::span<const float> entropy, int n, const RevealRule& rule);
// The same with n of the given step of a block; once the steps are used up, everything that is left.
std::vector<int> reveal_step(std::span<const char> masked, std::span<const float> confidence,
                             std::span<const float> entropy, int step, const RevealRule& rule);

}  // namespace ref

namespace cpu {
void reveal_blocks(const RevealRun& run);
}
