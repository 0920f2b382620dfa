#include "train/advantages.h"

#include <algorithm>
#include <cmath>
#include <map>

#include "utils/error.h"

// The z-scores of one group, or nothing.
static std::optional<std::vector<double>> standardise(const std::vector<double>& reward,
                                                      const KeepBand& keep) {
    double mean = 0;
    for (const double r : reward) mean += r / double(reward.size());
    constexpr double EDGE = 1e-9;  // a mean of 0.2 is inside [0.2, 0.8] however it was rounded
    // Nor are rewards that differ by their rounding (means over tokens) better or worse than each other.
    const auto [worst, best] = std::minmax_element(reward.begin(), reward.end());
    const bool all_equal = *best - *worst <= EDGE * std::max(std::abs(*best), std::abs(*worst));
    if (all_equal || (!keep.all && (mean < keep.low - EDGE || mean > keep.high + EDGE))) return std::nullopt;
    double variance = 0;
    for (const double r : reward) variance += (r - mean) * (r - mean) / double(reward.size());
    if (variance == 0) return std::nullopt;  // it underflowed
    std::vector<double> out;
    for (const double r : reward) out.push_back((r - mean) / std::sqrt(variance));
    return out;
}

std::vector<std::optional<double>> group_advantages(std::span<const Record> records, const KeepBand& keep) {
    std::map<int64_t, std::vector<size_t>> groups;
    for (size_t i = 0; i < records.size(); i++) groups[records[i].group].push_back(i);
    std::vector<std::optional<double>> out(records.size());
    for (const auto& [group, members] : groups) {
        std::vector<double> reward;
        for (const size_t i : members) {
            CHECK(records[i].reward.has_value(), "record %zu of group %lld has no reward", i,
                  (long long)group);
            reward.push_back(*records[i].reward);
        }
        if (const auto z = standardise(reward, keep))
            for (size_t k = 0; k < members.size(); k++) out[members[k]] = (*z)[k];
    }
    return out;
}
