// reveal.h -- which masked positions of a block are revealed in a step: the remasking rules, as pure
// functions.
#pragma once
#include <span>
#include <vector>

#include "inference/options.h"

// n(step) = B / S, the remainder going to the first steps. 0 from step S on where S > B.
int reveal_count(int block, int steps, int step);

// Positions to reveal, ascending. masked[i], confidence[i], entropy[i] belong to position i of the block (the
// latter two are read only where masked); n is n(step). With m the masked positions, k = min(n, |m|) and
// order = m by confidence, highest first, then position:
//   low_confidence_static    order[0:k]
//   low_confidence_dynamic   A = {i in m : confidence_i > threshold};  A if |A| >= k else order[0:k]
//   sequential               the first k of m
//   entropy_bounded          m by entropy, lowest first, then position: the longest prefix whose sum stays
//   below eb_threshold,
//                            at least one, whatever n
std::vector<int> reveal(std::span<const char> masked, std::span<const float> confidence,
                        std::span<const float> entropy, int n, const GenerateOptions& options);

// The same with n of the given step of a block; once the steps are used up, everything that is left.
std::vector<int> reveal_step(std::span<const char> masked, std::span<const float> confidence,
                             std::span<const float> entropy, int step, const GenerateOptions& options);
