#include "kernels/reveal_block.h"

#include <algorithm>

int surely_revealed(const RevealRule& rule, int step, int n_masked) {
    if (is_last_step(rule, step)) return n_masked;
    if (rule.remasking == Remasking::Origin) return 0;
    if (rule.remasking == Remasking::Factor && n_masked == 2) return 2;
    if (rule.remasking == Remasking::EntropyBounded || rule.remasking == Remasking::Factor) return 1;
    const bool one = rule.remasking == Remasking::LowConfidenceDynamic && rule.fallback == Fallback::One;
    const int n = reveal_count(rule, step, n_masked);
    return one ? std::min(n, 1) : n;
}

namespace {

std::vector<int> positions_where(size_t n, const auto& holds) {
    std::vector<int> positions;
    for (size_t i = 0; i < n; i++)
        if (holds(i)) positions.push_back(int(i));
    return positions;
}

// How many of `order`, from its beginning, Remasking::Factor reveals.
size_t before_end(const std::vector<int>& order, std::span<const float> confidence, const RevealRule& rule) {
    const int n = int(order.size());
    int count = 0;
    while (count < n && !ends_factor(rule, count, n, confidence[size_t(order[size_t(count)])])) count++;
    return size_t(count);
}

// How many of `order`, from its beginning, before the sum of their entropies reaches the bound; at least 1.
size_t below_bound(const std::vector<int>& order, std::span<const float> entropy, double bound) {
    double sum = 0;
    size_t count = 0;
    while (count < order.size() && (sum += entropy[size_t(order[count])]) < bound) count++;
    return std::max<size_t>(count, 1);
}

}  // namespace

namespace ref {

std::vector<int> reveal(std::span<const char> masked, std::span<const float> confidence,
                        std::span<const float> entropy, int n, const RevealRule& rule,
                        std::span<const double> u) {
    std::vector<int> order = positions_where(masked.size(), [&](size_t i) { return masked[i] != 0; });
    if (rule.remasking == Remasking::LowConfidenceDynamic) {
        const std::vector<int> sure = positions_where(
            masked.size(), [&](size_t i) { return masked[i] && is_sure(rule, confidence[i]); });
        if (rule.fallback == Fallback::One) n = std::min(n, 1);
        if (sure.size() >= std::min(order.size(), size_t(n))) return sure;
    }
    std::vector<double> score(masked.size());
    for (const int i : order)
        score[size_t(i)] = reveal_score(rule, confidence[size_t(i)], entropy[size_t(i)],
                                        has_random_order(rule) ? u[size_t(i)] : 0);
    std::stable_sort(order.begin(), order.end(),
                     [&](int a, int b) { return score[size_t(a)] > score[size_t(b)]; });
    const size_t count = rule.remasking == Remasking::EntropyBounded
                             ? below_bound(order, entropy, rule.entropy_bound)
                         : rule.remasking == Remasking::Factor ? before_end(order, confidence, rule)
                                                               : size_t(n);
    order.resize(std::min(order.size(), count));
    std::sort(order.begin(), order.end());
    return order;
}

std::vector<int> reveal_step(std::span<const char> masked, std::span<const float> confidence,
                             std::span<const float> entropy, int step, const RevealRule& rule,
                             std::span<const double> u) {
    const auto is_masked = [&](size_t i) { return masked[i] != 0; };
    if (is_last_step(rule, step)) return positions_where(masked.size(), is_masked);
    if (rule.remasking == Remasking::Origin) {
        const double share = double(timestep_share(rule, step));
        return positions_where(masked.size(), [&](size_t i) { return is_masked(i) && u[i] < share; });
    }
    const int n_masked = int(positions_where(masked.size(), is_masked).size());
    return reveal(masked, confidence, entropy, reveal_count(rule, step, n_masked), rule, u);
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
    std::vector<double> u;
    for (int b = 0; b < status[N_BLOCKS]; b++) {
        RevealBlock& block = records_of<RevealBlock>(run.blocks)[b];
        const std::span<RevealTarget> mine(targets + block.first, size_t(block.count));
        masked.clear(), confidence.clear(), entropy.clear(), u.clear();
        for (int i = block.first; i < block.first + block.count; i++) {
            masked.push_back(targets[i].step == 0);
            confidence.push_back(sampled[i].confidence);
            entropy.push_back(sampled[i].entropy);
            if (has_random_order(block.rule)) u.push_back(order_uniform(rows[i]));
            rows[i].step++;
        }
        for (const int i : ref::reveal_step(masked, confidence, entropy, block.step++, block.rule, u)) {
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
