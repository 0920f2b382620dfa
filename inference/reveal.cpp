#include "inference/reveal.h"

#include <algorithm>

int reveal_count(int block, int steps, int step) { return block / steps + (step < block % steps ? 1 : 0); }

namespace {

std::vector<int> masked_positions(std::span<const char> masked) {
    std::vector<int> positions;
    for (size_t i = 0; i < masked.size(); i++)
        if (masked[i]) positions.push_back(int(i));
    return positions;
}

// A confidence that is not a number counts as the lowest, so that the order is always total.
float comparable(float confidence) { return confidence == confidence ? confidence : -1.0f; }

std::vector<int> first(std::vector<int> order, int n) {
    order.resize(std::min(order.size(), size_t(n)));
    return order;
}

std::vector<int> by_confidence(std::vector<int> positions, std::span<const float> confidence) {
    std::stable_sort(positions.begin(), positions.end(), [&](int a, int b) {
        return comparable(confidence[size_t(a)]) > comparable(confidence[size_t(b)]);
    });
    return positions;
}

std::vector<int> dynamic(const std::vector<int>& positions, std::span<const float> confidence, int n,
                         const GenerateOptions& options) {
    std::vector<int> sure;
    for (int i : positions) {
        const double c = comparable(confidence[size_t(i)]);
        if (options.threshold_inclusive ? c >= options.threshold : c > options.threshold) sure.push_back(i);
    }
    const int k = std::min(options.fallback == Fallback::One ? 1 : n, int(positions.size()));
    if (int(sure.size()) >= k) return sure;
    if (options.fallback == Fallback::Leftmost) return first(positions, k);
    return first(by_confidence(positions, confidence), k);
}

std::vector<int> entropy_bounded(std::vector<int> positions, std::span<const float> entropy, double bound) {
    std::stable_sort(positions.begin(), positions.end(),
                     [&](int a, int b) { return entropy[size_t(a)] < entropy[size_t(b)]; });
    double sum = 0;
    size_t count = 0;
    while (count < positions.size() && (sum += entropy[size_t(positions[count])]) < bound) count++;
    positions.resize(std::max<size_t>(count, std::min<size_t>(1, positions.size())));
    return positions;
}

}  // namespace

std::vector<int> reveal(std::span<const char> masked, std::span<const float> confidence,
                        std::span<const float> entropy, int n, const GenerateOptions& options) {
    const std::vector<int> positions = masked_positions(masked);
    std::vector<int> chosen;
    switch (options.remasking) {
        case Remasking::LowConfidenceStatic: chosen = first(by_confidence(positions, confidence), n); break;
        case Remasking::LowConfidenceDynamic: chosen = dynamic(positions, confidence, n, options); break;
        case Remasking::Sequential: chosen = first(positions, n); break;
        case Remasking::EntropyBounded:
            chosen = entropy_bounded(positions, entropy, options.eb_threshold);
            break;
    }
    std::sort(chosen.begin(), chosen.end());
    return chosen;
}

std::vector<int> reveal_step(std::span<const char> masked, std::span<const float> confidence,
                             std::span<const float> entropy, int step, const GenerateOptions& options) {
    const int S = options.steps_per_block();
    if (options.floor_schedule)
        return reveal(masked, confidence, entropy, std::max(1, options.block / S), options);
    if (step >= S) return masked_positions(masked);
    return reveal(masked, confidence, entropy, reveal_count(options.block, S, step), options);
}
