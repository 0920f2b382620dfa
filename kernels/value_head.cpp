#include "kernels/value_head.h"

#include "kernels/parallel.h"

namespace cpu {

void value_head_forward(Tensor value, Tensor hidden, Tensor weight) {
    const int C = int(hidden.cols);
    float* out = vector_of<float>(value, hidden.rows);
    const Rows<const float> x = rows_of<const float>(hidden);
    const float* w = vector_of<float>(weight, C);
    parallel_for(hidden.rows, C,
                 [&](int64_t n) { ref::value_head_forward<float>(out + n, x.from(n), w, 1, C); });
}

void value_head_backward(Tensor dhidden, Tensor dweight, Tensor dvalue, Tensor hidden, Tensor weight) {
    const int N = int(hidden.rows), C = int(hidden.cols);
    const Rows<float> dx = rows_of<float>(dhidden);
    const Rows<const float> x = rows_of<const float>(hidden);
    const float *w = vector_of<float>(weight, C), *d = vector_of<float>(dvalue, N);
    float* dw = vector_of<float>(dweight, C);
    parallel_ranges(C, 64, 4 * N, [&](int64_t begin, int64_t end) {
        ref::value_head_backward<float>({dx.data + begin, dx.stride}, dw + begin, d,
                                        {x.data + begin, x.stride}, w + begin, N, int(end - begin));
    });
}

}  // namespace cpu
