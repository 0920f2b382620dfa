#include "kernels/packed_weight.h"

#include <algorithm>
#include <cstring>

#include "kernels/parallel.h"
#include "kernels/view.h"

namespace cpu {

// Of 32 bits, of a row of a weight.
static int64_t words_of(Tensor weight) { return weight.cols * int64_t(size_of(weight.dtype)) / 4; }
static int64_t panels_of(Tensor weight) { return (weight.rows + PACKED_COLUMNS - 1) / PACKED_COLUMNS; }
// Of the copy, from the panel of row n on.
static const float* panel_at(Tensor weight, int64_t n) {
    return static_cast<const float*>(weight.packed) + n * words_of(weight);
}

Tensor packed_shape(Tensor weight) {
    const bool whole_words =
        weight.dtype == DType::F32 || (weight.dtype == DType::BF16 && weight.cols % 2 == 0);
    if (!whole_words || weight.bytes() > MOST_PACKED) return {};
    const int64_t columns = PACKED_COLUMNS * 4 / int64_t(size_of(weight.dtype));
    return {nullptr, panels_of(weight) * words_of(weight), columns, columns, weight.dtype};
}

void pack(const Simd& simd, Tensor packed, Tensor weight) {
    constexpr int DEPTH = 64;
    const Tensor shape = packed_shape(weight);
    CHECK(packed.rows == shape.rows && packed.cols == shape.cols && packed.dtype == shape.dtype &&
              packed.contiguous() && weight.contiguous(),
          "a copy (%lld, %lld) of a weight (%lld, %lld)", (long long)packed.rows, (long long)packed.cols,
          (long long)weight.rows, (long long)weight.cols);
    const int64_t words = words_of(weight);
    const float* from = static_cast<const float*>(weight.data);
    float* to = static_cast<float*>(packed.data);
    parallel_for(panels_of(weight), words * PACKED_COLUMNS / 4, [&](int64_t panel) {
        alignas(64) float tile[DEPTH * PANEL];
        const int64_t n = panel * PACKED_COLUMNS;
        const int rows = int(std::min<int64_t>(PACKED_COLUMNS, weight.rows - n));
        for (int64_t k = 0; k < words; k += DEPTH) {
            const int depth = int(std::min<int64_t>(DEPTH, words - k));
            simd.transpose(tile, from + n * words + k, words, rows, depth);
            for (int i = 0; i < depth; i++) {
                float* row = to + (panel * words + k + i) * PACKED_COLUMNS;
                memcpy(row, tile + i * PANEL, size_t(rows) * sizeof(float));
                memset(row + rows, 0, size_t(PACKED_COLUMNS - rows) * sizeof(float));
            }
        }
    });
}

bool packed_pays(Tensor weight, int64_t T) {
    constexpr int64_t MOST_BF16_ROWS = 64;
    return weight.packed && (weight.dtype == DType::F32 || T <= MOST_BF16_ROWS);
}

// Items are ranges of columns by blocks of rows; ranges become narrower where there are fewer items than threads.
void packed_forward(const Simd& simd, Tensor out, Tensor inp, Tensor weight, Tensor bias, Tensor residual) {
    constexpr int64_t ROWS = 64;
    const int64_t T = inp.rows, N = weight.rows, K = weight.cols;
    const Rows<float> o = rows_of<float>(out);
    const Rows<const float> x = rows_of<const float>(inp), r = rows_of<const float>(residual);
    const float* b = vector_of<float>(bias, N);
    // Twice the instructions: each waits for weights from the second cache, or the third; and what two threads share stays in
    // the second cache of both.
    const int64_t work = 2 * (T * N * K / 16), row_blocks = (T + ROWS - 1) / ROWS;
    int64_t width = 4 * PACKED_COLUMNS;
    const auto ranges = [&] { return (N + width - 1) / width; };
    while (work >= PARALLEL_WORK && width > PACKED_COLUMNS && ranges() * row_blocks < 2 * max_threads())
        width /= 2;
    if (T == 0) return;
    parallel_for(ranges() * row_blocks, work / (ranges() * row_blocks), [&](int64_t item) {
        const int64_t n = item / row_blocks * width, t = item % row_blocks * ROWS;
        simd.packed({.out = o[t] + n,
                     .out_row = o.stride,
                     .inp = x[t],
                     .inp_row = x.stride,
                     .panels = panel_at(weight, n),
                     .element = int(size_of(weight.dtype)),
                     .M = int(std::min(ROWS, T - t)),
                     .N = int(std::min(width, N - n)),
                     .K = int(K),
                     .bias = b ? b + n : nullptr,
                     .residual = r ? r[t] + n : nullptr,
                     .residual_row = r.stride});
    });
}

void packed_block(const Simd& simd, float* out, int64_t out_row, const float* inp, int64_t inp_row,
                  Tensor weight, int64_t n, int M, int N) {
    simd.packed({.out = out,
                 .out_row = out_row,
                 .inp = inp,
                 .inp_row = inp_row,
                 .panels = panel_at(weight, n),
                 .element = int(size_of(weight.dtype)),
                 .M = M,
                 .N = N,
                 .K = int(weight.cols)});
}

}  // namespace cpu
