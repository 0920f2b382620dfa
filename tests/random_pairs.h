// random_pairs.h -- outputs and pairs of a loss, ratios within and beyond the clip and the clamp.
#pragma once
#include <vector>

#include "kernels/ops.h"
#include "utils/philox.h"

inline void random_pairs(std::vector<float>& output, std::vector<LossPair>& pairs, int n) {
    Rng rng(uint64_t(n), Stream::Noise, 79);
    for (int i = 0; i < n; i++) {
        const double spread = i % 7 == 0 ? 20 : i % 3 == 0 ? 1 : 0.1;
        output.push_back(-2 + rng.normal());
        pairs.push_back({.old = double(output.back()) + spread * double(rng.normal()),
                         .credit = i % 11 == 0 ? 0 : double(rng.normal()),
                         .weight = double(rng.uniform()),
                         .current = i % 5 == 0});
    }
}
