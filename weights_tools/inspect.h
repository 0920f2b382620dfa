// inspect.h -- `convert check` and `convert diff`: what lies in weight files, number by number.
#pragma once
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "weights_tools/weight_files.h"

struct NonFinite {
    std::string name;
    int64_t nan = 0, infinite = 0;
};
// The tensors with NaN or infinity in them. `progress` is told the bytes done so far.
std::vector<NonFinite> find_non_finite(const WeightFiles& weights,
                                       const std::function<void(uint64_t)>& progress);

struct TensorDifference {
    std::string name;
    std::string mismatch;  // why the numbers cannot be compared: only in one of them, or of another shape
    double largest = 0;    // max |a - b|; infinite where one is NaN and the other is not
    double relative = 0;   // |a - b| / |b|, Euclidean norms; 0 where both are zero, infinite where only b is
};
// One entry per tensor of either, in the order of a. Types may differ: numbers are compared.
std::vector<TensorDifference> compare(const WeightFiles& a, const WeightFiles& b,
                                      const std::function<void(uint64_t)>& progress);
