#include "kernels/linear.h"

#include <algorithm>

#include "kernels/matmul.h"
#include "kernels/packed_weight.h"
#include "kernels/parallel.h"

namespace cpu {

// ---- forward

constexpr int ROWS = 192;  // of one item
struct alignas(64) Sums {
    float data[ROWS * PANEL];
};

// Items are blocks of rows by panels of columns, narrower where there are fewer of them than threads.
template <class W>
static void small_product(const Simd& simd, Rows<float> out, Rows<const float> inp, Rows<const W> weight,
                          const float* bias, Rows<const float> residual, int64_t T, int64_t N, int64_t K) {
    int64_t width = PANEL, row_blocks = (T + ROWS - 1) / ROWS;
    while (width > 16 && (N + width - 1) / width * row_blocks < max_threads() && T < 32) width /= 2;
    const int64_t panels = (N + width - 1) / width;
    if (panels % max_threads() && panels * row_blocks < 4 * max_threads() && T >= 32)
        row_blocks = std::min(2 * max_threads() * row_blocks, T / 16);
    const int64_t rows = (T + row_blocks - 1) / std::max<int64_t>(row_blocks, 1);
    if (T == 0) return;
    parallel_for(panels * row_blocks, rows * std::min(width, N) * K / 16, [&](int64_t item) {
        Sums sums;
        const int64_t n = item / row_blocks * width, t0 = item % row_blocks * rows,
                      t1 = std::min(t0 + rows, T);
        const int columns = int(std::min(width, N - n));
        if (t0 >= t1) return;
        const bool apart = bias || residual;  // residual may be out itself
        matmul_block(simd, apart ? sums.data : out[t0] + n, apart ? PANEL : out.stride, inp[t0], inp.stride,
                     weight[n], weight.stride, int(t1 - t0), columns, int(K));
        for (int64_t t = t0; apart && t < t1; t++)
            simd.add_bias(out[t] + n, sums.data + (t - t0) * PANEL, bias ? bias + n : nullptr,
                          residual ? residual[t] + n : nullptr, columns);
    });
}

template <class W>
static void forward(Context& context, Tensor out, Tensor inp, Tensor weight, Tensor bias, Tensor residual) {
    const int64_t T = inp.rows, N = weight.rows, K = weight.cols;
    const Rows<float> o = rows_of<float>(out);
    const Rows<const float> x = rows_of<const float>(inp), r = rows_of<const float>(residual);
    const Rows<const W> w = rows_of<const W>(weight);
    const float* b = vector_of<float>(bias, N);
    if (T <= ROWS / 2 || T * N * K < WORTH_PACKING)
        small_product(context.simd, o, x, w, b, r, T, N, K);
    else
        matmul_transposed(context, o, x, w, b, r, T, N, K);
}

void linear_forward(Context& context, Tensor out, Tensor inp, Tensor weight, Tensor bias, Tensor residual) {
    CHECK(inp.cols == weight.cols && out.cols == weight.rows && out.rows == inp.rows,
          "linear (%lld, %lld) = (%lld, %lld) x (%lld, %lld)^T", (long long)out.rows, (long long)out.cols,
          (long long)inp.rows, (long long)inp.cols, (long long)weight.rows, (long long)weight.cols);
    if (packed_pays(weight, inp.rows)) return packed_forward(context.simd, out, inp, weight, bias, residual);
    if (weight.dtype == DType::BF16)
        forward<Bf16>(context, out, inp, weight, bias, residual);
    else
        forward<float>(context, out, inp, weight, bias, residual);
}

// ---- backward

void linear_backward(Context& context, Tensor dinp, Tensor dweight, Tensor dbias, Tensor dout, Tensor inp,
                     Tensor weight) {
    const int64_t T = dout.rows, N = dout.cols, K = dinp ? dinp.cols : dweight ? dweight.cols : 0;
    const Rows<const float> d = rows_of<const float>(dout);
    CHECK(!dinp || (dinp.rows == T && weight.rows == N && weight.cols == K),
          "dinp (%lld, %lld), weight (%lld, %lld), dout (%lld, %lld)", (long long)dinp.rows, (long long)K,
          (long long)weight.rows, (long long)weight.cols, (long long)T, (long long)N);
    CHECK(!dweight || (dweight.rows == N && inp.rows == T && inp.cols == K),
          "dweight (%lld, %lld), inp (%lld, %lld), dout (%lld, %lld)", (long long)dweight.rows, (long long)K,
          (long long)inp.rows, (long long)inp.cols, (long long)T, (long long)N);
    if (T == 0) return;
    if (dinp)
        matmul(context, rows_of<float>(dinp), d.data, d.stride, 1, rows_of<const float>(weight), T, K, N,
               false);
    if (dweight)
        matmul(context, rows_of<float>(dweight), d.data, 1, d.stride, rows_of<const float>(inp), N, K, T,
               true);
    if (float* db = vector_of<float>(dbias, N))
        parallel_ranges(N, 64, T, [&](int64_t begin, int64_t end) {
            for (int64_t t = 0; t < T; t++) context.simd.add(db + begin, d[t] + begin, 1, int(end - begin));
        });
}

}  // namespace cpu
