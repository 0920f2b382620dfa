#include "kernels/reveal_block.h"

#include <algorithm>

int surely_revealed(const RevealRule& rule, int step, int n_masked) {
    if (rule.floor_schedule == 0 && step >= rule.steps) return n_masked;
    if (rule.remasking == Remasking::Factor && n_masked == 2) return 2;
    if (rule.remasking == Remasking::EntropyBounded || rule.remasking == Remasking::Factor) return 1;
    if (rule.fallback == Fallback::One) return 1;
    return rule.floor_schedule ? std::max(1, rule.block / rule.steps)
                               : reveal_count(rule.block, rule.steps, step);
}

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
                         const RevealRule& rule) {
    std::vector<int> sure;
    for (int i : positions) {
        const double c = comparable(confidence[size_t(i)]);
        if (rule.inclusive ? c >= rule.threshold : c > rule.threshold) sure.push_back(i);
    }
    const int k = std::min(rule.fallback == Fallback::One ? 1 : n, int(positions.size()));
    if (int(sure.size()) >= k) return sure;
    if (rule.fallback == Fallback::Leftmost) return first(positions, k);
    return first(by_confidence(positions, confidence), k);
}

std::vector<int> by_factor(const std::vector<int>& positions, std::span<const float> confidence,
                           const RevealRule& rule) {
    const std::vector<int> order = by_confidence(positions, confidence);
    const int n = int(order.size());
    int count = 0;
    while (count < n && !ends_factor(rule, count, n, comparable(confidence[size_t(order[size_t(count)])])))
        count++;
    return first(order, count);
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

namespace ref {

std::vector<int> reveal(std::span<const char> masked, std::span<const float> confidence,
                        std::span<const float> entropy, int n, const RevealRule& rule) {
    const std::vector<int> positions = masked_positions(masked);
    std::vector<int> chosen;
    switch (rule.remasking) {
        case Remasking::LowConfidenceStatic: chosen = first(by_confidence(positions, confidence), n); break;
        case Remasking::LowConfidenceDynamic: chosen = dynamic(positions, confidence, n, rule); break;
        case Remasking::Sequential: chosen = first(positions, n); break;
        case Remasking::Factor: chosen = by_factor(positions, confidence, rule); break;
        case Remasking::EntropyBounded:
            chosen = entropy_bounded(positions, entropy, rule.entropy_bound);
            break;
    }
    std::sort(chosen.begin(), chosen.end());
    return chosen;
}

std::vector<int> reveal_step(std::span<const char> masked, std::span<const float> confidence,
                             std::span<const float> entropy, int step, const RevealRule& rule) {
    if (rule.floor_schedule)
        return reveal(masked, confidence, entropy, std::max(1, rule.block / rule.steps), rule);
    if (step >= rule.steps) return masked_positions(masked);
    return reveal(masked, confidence, entropy, reveal_count(rule.block, rule.steps, step), rule);
}

}  // namespace ref

namespace cpu {

void reveal_blocks(const RevealRun& run) {
    RevealTarget* const targets = records_of<RevealTarget>(run.targets);
    const Sampled* sampled = records_of<Sampled>(run.sampled);
    SampleRow* rows = records_of<SampleRow>(run.rows);
    int *status = run.status.as<int>(), *token = run.token ? run.token.as<int>() : nullptr;
    bool goes_on = ++status[STEPS] < status[MOST];
    std::vector<char> masked;
    std::vector<float> confidence, entropy;
    for (int b = 0; b < status[N_BLOCKS]; b++) {
        RevealBlock& block = records_of<RevealBlock>(run.blocks)[b];
        const std::span<RevealTarget> mine(targets + block.first, size_t(block.count));
        masked.clear(), confidence.clear(), entropy.clear();
        for (int i = block.first; i < block.first + block.count; i++) {
            masked.push_back(targets[i].step == 0);
            confidence.push_back(sampled[i].confidence);
            entropy.push_back(sampled[i].entropy);
            rows[i].step++;
        }
        for (const int i : ref::reveal_step(masked, confidence, entropy, block.step++, block.rule)) {
            const Sampled& drawn = sampled[block.first + i];
            RevealTarget& t = mine[size_t(i)];
            t.step = status[STEPS], t.token = drawn.token;
            t.logprob = drawn.logprob, t.entropy = drawn.entropy;
            if (token) token[t.row] = drawn.token;
        }
        const std::span<const int> stops(run.stops.as<int>() + block.first_stop, size_t(block.n_stops));
        size_t n = 0;  // leading targets that are revealed, up to an end
        while (n < mine.size() && mine[n].step && !mine[n].ends &&
               std::find(stops.begin(), stops.end(), mine[n].token) == stops.end())
            n++;
        goes_on &= n < mine.size() && mine[n].step == 0;
    }
    status[RUNNING] = goes_on;
}

}  // namespace cpu
