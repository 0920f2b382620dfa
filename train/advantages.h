// advantages.h -- how good each response was, compared with the others of its group.
#pragma once
#include <optional>
#include <span>
#include <vector>

#include "train/record.h"

// Groups whose accuracy (mean reward) is outside [low, high] teach little and are dropped.
struct KeepBand {
    bool all = false;  // keep every group whose rewards are not all equal
    double low = 0.2, high = 0.8;
};

// z-score of the reward inside each group: (reward - mean) / population standard deviation; nothing where the
// group is dropped: all rewards equal, or their mean outside the band (its edges are kept).
std::vector<std::optional<double>> group_advantages(std::span<const Record> records, const KeepBand& keep);
