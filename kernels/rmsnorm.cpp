#include "kernels/rmsnorm.h"

#include "kernels/parallel.h"

namespace cpu {

void rmsnorm_forward(Tensor out, Tensor rstd, Tensor inp, Tensor weight, float eps) {
    const int C = int(inp.cols);
    const Rows<float> o = rows_of<float>(out);
    const Rows<const float> x = rows_of<const float>(inp);
    float* r = vector_of<float>(rstd, inp.rows);
    const float* w = vector_of<float>(weight, C);
    parallel_for(inp.rows, 2 * C,
                 [&](int64_t t) { ref::rmsnorm_forward<float>(o.from(t), r + t, x.from(t), w, 1, C, eps); });
}

void rmsnorm_backward(Tensor dinp, Tensor dweight, Tensor dout, Tensor rstd, Tensor inp, Tensor weight) {
    const int C = int(inp.cols), T = int(inp.rows);
    const Rows<float> dx = rows_of<float>(dinp);
    const Rows<const float> x = rows_of<const float>(inp), d = rows_of<const float>(dout);
    const float *r = vector_of<float>(rstd, T), *w = vector_of<float>(weight, C);
    float* dw = vector_of<float>(dweight, C);
    parallel_for(T, 4 * C, [&](int64_t t) {
        float dot = 0;
        for (int c = 0; c < C; c++) dot += d[t][c] * w[c] * x[t][c];
        const float scale = r[t] * r[t] * dot / float(C);
        for (int c = 0; c < C; c++) dx[t][c] += r[t] * (d[t][c] * w[c] - x[t][c] * scale);
    });
    parallel_ranges(C, 64, 2 * T, [&](int64_t begin, int64_t end) {
        for (int t = 0; t < T; t++)
            for (int64_t c = begin; c < end; c++) dw[c] += d[t][c] * x[t][c] * r[t];
    });
}

}  // namespace cpu
