#include "kernels/rmsnorm.h"

#include "kernels/parallel.h"

namespace cpu {

void rmsnorm_forward(Context& context, Tensor out, Tensor rstd, Tensor inp, Tensor weight, float eps) {
    const int C = int(inp.cols);
    const Rows<float> o = rows_of<float>(out);
    const Rows<const float> x = rows_of<const float>(inp);
    float* r = vector_of<float>(rstd, inp.rows);
    const float* w = vector_of<float>(weight, C);
    parallel_for(inp.rows, C / 4, [&](int64_t t) { r[t] = context.simd.rmsnorm(o[t], x[t], w, eps, C); });
}

void rmsnorm_backward(Context& context, Tensor dinp, Tensor dweight, Tensor dout, Tensor rstd, Tensor inp,
                      Tensor weight) {
    const int C = int(inp.cols), T = int(inp.rows);
    const Rows<float> dx = rows_of<float>(dinp);
    const Rows<const float> x = rows_of<const float>(inp), d = rows_of<const float>(dout);
    const float *r = vector_of<float>(rstd, T), *w = vector_of<float>(weight, C);
    float* dw = vector_of<float>(dweight, C);
    parallel_for(T, C / 2,
                 [&](int64_t t) { context.simd.rmsnorm_backward(dx[t], nullptr, d[t], r[t], x[t], w, C); });
    parallel_ranges(C, 64, T / 4, [&](int64_t begin, int64_t end) {
        for (int t = 0; t < T; t++)
            context.simd.multiply_add(dw + begin, d[t] + begin, x[t] + begin, r[t], int(end - begin));
    });
}

}  // namespace cpu
