#include "train/eval/scores.h"

#include <algorithm>
#include <cmath>
#include <map>

#include "utils/error.h"

Interval wilson_interval(double share, int64_t n) {
    if (n <= 0) return {};
    constexpr double Z = 1.959963984540054;  // the normal distribution's 97.5% point
    const double trials = double(n), z2 = Z * Z / trials;
    const double centre = share + z2 / 2,
                 half = Z * std::sqrt(share * (1 - share) / trials + z2 / (4 * trials));
    return {std::max((centre - half) / (1 + z2), 0.0), std::min((centre + half) / (1 + z2), 1.0)};
}

double pass_at_k(int n, int right, int k) {
    CHECK(k >= 1 && k <= n && right >= 0 && right <= n, "pass@%d of %d responses, %d right", k, n, right);
    double all_wrong = 1;  // C(n - right, k) / C(n, k), factor by factor
    for (int i = 0; i < k; i++) all_wrong *= double(std::max(n - right - i, 0)) / double(n - i);
    return 1 - all_wrong;
}

Scores score(const RolloutBatch& batch, std::span<const int> pass_at) {
    struct Tally {
        int n = 0, right = 0;
    };
    std::map<int, Tally> by_problem;
    for (const Response& r : batch.responses) {
        Tally& t = by_problem[r.problem];
        t.n++;
        t.right += r.right();
    }
    Scores out;
    out.stats = batch.stats();
    out.problems = int64_t(by_problem.size());
    out.responses = int64_t(batch.responses.size());
    for (const auto& [problem, t] : by_problem) out.samples = out.samples ? std::min(out.samples, t.n) : t.n;
    out.accuracy = wilson_interval(out.stats.accuracy, out.problems);
    for (const int k : pass_at) {
        if (k > out.samples) continue;
        double sum = 0;
        for (const auto& [problem, t] : by_problem) sum += pass_at_k(t.n, t.right, k);
        out.pass_at.emplace_back(k, sum / double(by_problem.size()));
    }
    return out;
}
