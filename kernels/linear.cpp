#include "kernels/linear.h"

#include "kernels/parallel.h"

namespace cpu {

template <class W>
static void forward(Tensor out, Tensor inp, Tensor weight, Tensor bias, Tensor residual) {
    const int N = int(weight.rows), K = int(weight.cols);
    const Rows<float> o = rows_of<float>(out);
    const Rows<const float> x = rows_of<const float>(inp), r = rows_of<const float>(residual);
    const Rows<const W> w = rows_of<const W>(weight);
    const float* b = vector_of<float>(bias, N);
    parallel_ranges(N, 16, inp.rows * K, [&](int64_t begin, int64_t end) {
        ref::linear_forward<float, W>({o.data + begin, o.stride}, x, w.from(begin), b ? b + begin : nullptr,
                                      r ? Rows<const float>{r.data + begin, r.stride} : r, int(inp.rows),
                                      int(end - begin), K);
    });
}

void linear_forward(Tensor out, Tensor inp, Tensor weight, Tensor bias, Tensor residual) {
    CHECK(inp.cols == weight.cols && out.cols == weight.rows && out.rows == inp.rows,
          "linear (%lld, %lld) = (%lld, %lld) x (%lld, %lld)^T", (long long)out.rows, (long long)out.cols,
          (long long)inp.rows, (long long)inp.cols, (long long)weight.rows, (long long)weight.cols);
    if (weight.dtype == DType::BF16)
        forward<Bf16>(out, inp, weight, bias, residual);
    else
        forward<float>(out, inp, weight, bias, residual);
}

void linear_backward(Tensor dinp, Tensor dweight, Tensor dbias, Tensor dout, Tensor inp, Tensor weight) {
    const int T = int(dout.rows), N = int(dout.cols), K = int(dinp ? dinp.cols : dweight ? dweight.cols : 0);
    const Rows<const float> d = rows_of<const float>(dout), x = rows_of<const float>(inp),
                            w = rows_of<const float>(weight);
    const Rows<float> dx = rows_of<float>(dinp), dw = rows_of<float>(dweight);
    float* db = vector_of<float>(dbias, N);
    if (dx)
        parallel_for(T, int64_t(N) * K, [&](int64_t t) {
            for (int k = 0; k < K; k++) dx[t][k] = 0;
            for (int j = 0; j < N; j++)
                for (int k = 0; k < K; k++) dx[t][k] += d[t][j] * w[j][k];
        });
    if (dw || db)
        parallel_for(N, int64_t(T) * K, [&](int64_t j) {
            for (int t = 0; t < T; t++) {
                for (int k = 0; k < K && dw; k++) dw[j][k] += d[t][j] * x[t][k];
                if (db) db[j] += d[t][j];
            }
        });
}

}  // namespace cpu
