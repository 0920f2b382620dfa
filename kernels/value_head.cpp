#include "kernels/value_head.h"

#include "kernels/parallel.h"

namespace cpu {

void value_head_forward(Context& context, Tensor value, Tensor hidden, Tensor weight) {
    const int C = int(hidden.cols);
    float* out = vector_of<float>(value, hidden.rows);
    const Rows<const float> x = rows_of<const float>(hidden);
    const float* w = vector_of<float>(weight, C);
    parallel_for(hidden.rows, C / 8, [&](int64_t n) { out[n] = context.simd.dot(x[n], w, C); });
}

void value_head_backward(Context& context, Tensor dhidden, Tensor dweight, Tensor dvalue, Tensor hidden,
                         Tensor weight) {
    const int N = int(hidden.rows), C = int(hidden.cols);
    const Rows<float> dx = rows_of<float>(dhidden);
    const Rows<const float> x = rows_of<const float>(hidden);
    const float *w = vector_of<float>(weight, C), *d = vector_of<float>(dvalue, N);
    float* dw = vector_of<float>(dweight, C);
    parallel_ranges(C, 64, N / 2, [&](int64_t begin, int64_t end) {
        for (int n = 0; n < N; n++) {
            for (int64_t c = begin; c < end; c++) dx[n][c] = d[n] * w[c];
            context.simd.add(dw + begin, x[n] + begin, d[n], int(end - begin));
        }
    });
}

}  // namespace cpu
