#include "kernels/linear.h"

#include <algorithm>
#include <cstring>

#include "kernels/parallel.h"

namespace cpu {

constexpr int DEPTH = 256;  // of a block: a panel of so many rows stays in the second-level cache

// ---- forward

template <class W>
void matmul_block(const Simd& simd, float* out, int64_t out_row, const float* inp, int64_t inp_row,
                  const W* weight, int64_t weight_row, int M, int N, int K) {
    if (M <= simd.narrow_rows)
        return simd.narrow(out, out_row, inp, inp_row, weight, weight_row, sizeof(W), M, N, K);
    alignas(64) float packed[DEPTH * PANEL];
    for (int n = 0; n < N; n += PANEL) {
        const int width = std::min(PANEL, N - n);
        int k = 0;
        do {
            const int depth = std::min(DEPTH, K - k);
            const W* w = weight + n * weight_row + k;
            if constexpr (std::is_same_v<W, Bf16>)
                simd.transpose_bf16(packed, &w->bits, weight_row, width, depth);
            else
                simd.transpose(packed, w, weight_row, width, depth);
            simd.outer(out + n, out_row, inp + k, inp_row, 1, packed, PANEL, M, width, depth, k > 0);
            k += depth;
        } while (k < K);
    }
}
template void matmul_block(const Simd&, float*, int64_t, const float*, int64_t, const float*, int64_t, int,
                           int, int);
template void matmul_block(const Simd&, float*, int64_t, const float*, int64_t, const Bf16*, int64_t, int,
                           int, int);

constexpr int ROWS = 192;  // of one item
struct alignas(64) Tile {
    float data[ROWS * PANEL];
};

// Items are blocks of rows by panels of columns. Panels become narrower where there are fewer of them than
// threads.
template <class W>
static void forward(const Simd& simd, Tensor out, Tensor inp, Tensor weight, Tensor bias, Tensor residual) {
    const int64_t T = inp.rows, N = weight.rows, K = weight.cols;
    const Rows<float> o = rows_of<float>(out);
    const Rows<const float> x = rows_of<const float>(inp), r = rows_of<const float>(residual);
    const Rows<const W> w = rows_of<const W>(weight);
    const float* b = vector_of<float>(bias, N);
    int64_t width = PANEL, row_blocks = (T + ROWS - 1) / ROWS;
    while (width > 16 && (N + width - 1) / width * row_blocks < max_threads() && T < 32) width /= 2;
    const int64_t panels = (N + width - 1) / width;
    if (panels % max_threads() && panels * row_blocks < 4 * max_threads() && T >= 32)
        row_blocks = std::min(2 * max_threads() * row_blocks, T / 16);
    const int64_t rows = (T + row_blocks - 1) / std::max<int64_t>(row_blocks, 1);
    if (T == 0) return;
    parallel_for(panels * row_blocks, rows * std::min(width, N) * K / 16, [&](int64_t item) {
        Tile tile;
        float* sum = tile.data;
        const int64_t n = item / row_blocks * width, t0 = item % row_blocks * rows,
                      t1 = std::min(t0 + rows, T);
        const int columns = int(std::min(width, N - n));
        if (t0 >= t1) return;
        if (!b && !r)
            return matmul_block(simd, o[t0] + n, o.stride, x[t0], x.stride, w[n], w.stride, int(t1 - t0),
                                columns, int(K));
        matmul_block(simd, sum, PANEL, x[t0], x.stride, w[n], w.stride, int(t1 - t0), columns, int(K));
        for (int64_t t = t0; t < t1; t++)
            simd.add_bias(o[t] + n, sum + (t - t0) * PANEL, b ? b + n : nullptr, r ? r[t] + n : nullptr,
                          columns);
    });
}

void linear_forward(Context& context, Tensor out, Tensor inp, Tensor weight, Tensor bias, Tensor residual) {
    CHECK(inp.cols == weight.cols && out.cols == weight.rows && out.rows == inp.rows,
          "linear (%lld, %lld) = (%lld, %lld) x (%lld, %lld)^T", (long long)out.rows, (long long)out.cols,
          (long long)inp.rows, (long long)inp.cols, (long long)weight.rows, (long long)weight.cols);
    if (weight.dtype == DType::BF16)
        forward<Bf16>(context.simd, out, inp, weight, bias, residual);
    else
        forward<float>(context.simd, out, inp, weight, bias, residual);
}

// ---- backward

constexpr int STRIP = 48;
struct alignas(64) StripTile {
    float data[DEPTH * STRIP];
};

// out (M, N) += or = a^T b for a (D, M): a strip of columns of a is copied into rows of STRIP, which the panels of b then read
// from the cache instead of one cache line per row of a, each on a page of its own.
static void matmul_transposed(const Simd& simd, Rows<float> out, Rows<const float> a, Rows<const float> b,
                              int64_t M, int64_t N, int64_t D, bool accumulate) {
    // As many strips as every thread gets equally many of, equally wide.
    const int64_t threads = max_threads(), fewest = (M + STRIP - 1) / STRIP,
                  strips = fewest < threads ? fewest : (fewest + threads - 1) / threads * threads;
    const int64_t panels = (N + PANEL - 1) / PANEL;
    const int64_t parts = std::min(panels, (2 * threads + strips - 1) / strips);  // of a strip's panels
    parallel_for(strips * parts, STRIP * N / parts * D / 16, [&](int64_t item) {
        StripTile tile;
        const int64_t strip = item / parts, part = item % parts, m0 = M * strip / strips,
                      rows = M * (strip + 1) / strips - m0;
        const int64_t n0 = panels * part / parts * PANEL,
                      n1 = std::min(panels * (part + 1) / parts * PANEL, N);
        for (int64_t d0 = 0; d0 < D; d0 += DEPTH) {
            const int64_t depth = std::min<int64_t>(DEPTH, D - d0);
            for (int64_t d = 0; d < depth; d++)
                memcpy(tile.data + d * STRIP, a[d0 + d] + m0, size_t(rows) * sizeof(float));
            simd.outer(out[m0] + n0, out.stride, tile.data, 1, STRIP, b[d0] + n0, b.stride, int(rows),
                       int(n1 - n0), int(depth), accumulate || d0 > 0);
        }
    });
}

void matmul(const Simd& simd, Rows<float> out, const float* a, int64_t a_row, int64_t a_depth,
            Rows<const float> b, int64_t M, int64_t N, int64_t D, bool accumulate) {
    if (M == 0) return;
    if (a_row == 1 && N >= 4 * PANEL && D > 0)
        return matmul_transposed(simd, out, {a, a_depth}, b, M, N, D, accumulate);
    const int64_t panels = (N + PANEL - 1) / PANEL;
    const int64_t blocks =
        std::min((M + 5) / 6, std::max<int64_t>((M + 191) / 192, (2 * max_threads() + panels - 1) / panels));
    parallel_for(blocks * panels, M / blocks * std::min<int64_t>(N, PANEL) * D / 16, [&](int64_t item) {
        const int64_t n = item / blocks * PANEL, m0 = M * (item % blocks) / blocks,
                      m1 = M * (item % blocks + 1) / blocks;
        simd.outer(out[m0] + n, out.stride, a + m0 * a_row, a_row, a_depth, b.data + n, b.stride,
                   int(m1 - m0), int(std::min<int64_t>(PANEL, N - n)), int(D), accumulate);
    });
}

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
        matmul(context.simd, rows_of<float>(dinp), d.data, d.stride, 1, rows_of<const float>(weight), T, K, N,
               false);
    if (dweight)
        matmul(context.simd, rows_of<float>(dweight), d.data, 1, d.stride, rows_of<const float>(inp), N, K, T,
               true);
    if (float* db = vector_of<float>(dbias, N))
        parallel_ranges(N, 64, T, [&](int64_t begin, int64_t end) {
            for (int64_t t = 0; t < T; t++) context.simd.add(db + begin, d[t] + begin, 1, int(end - begin));
        });
}

}  // namespace cpu
