#include "kernels/adamw.h"

#include "kernels/parallel.h"

namespace cpu {

void adamw(Tensor param, Tensor m, Tensor v, Tensor grad, const AdamW& options) {
    const int64_t n = param.size();
    float *p = vector_of<float>(param, n), *m1 = vector_of<float>(m, n), *m2 = vector_of<float>(v, n);
    const float* g = vector_of<float>(grad, n);
    parallel_ranges(n, 4096, 8, [&](int64_t begin, int64_t end) {
        ref::adamw<float>(p + begin, m1 + begin, m2 + begin, g + begin, end - begin, options);
    });
}

}  // namespace cpu
