#include "kernels/sum_of_squares.h"

#include <algorithm>

#include "kernels/parallel.h"

namespace cpu {

double sum_of_squares(Tensor t) {
    constexpr int RANGES = 256, GRAIN = 4096;
    const int64_t n = t.size();
    const float* x = vector_of<float>(t, n);
    double total = 0, sum[RANGES];
    for (int64_t at = 0; at < n; at += int64_t(RANGES) * GRAIN) {
        const int64_t count = std::min<int64_t>(n - at, int64_t(RANGES) * GRAIN);
        parallel_ranges(count, GRAIN, 2, [&](int64_t begin, int64_t end) {
            sum[begin / GRAIN] = ref::sum_of_squares(x + at + begin, end - begin);
        });
        for (int64_t r = 0; r * GRAIN < count; r++) total += sum[r];
    }
    return total;
}

}  // namespace cpu
