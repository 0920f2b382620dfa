#include "kernels/matmul.h"

#include <algorithm>
#include <cstring>
#include <type_traits>

#include "kernels/parallel.h"

namespace cpu {

constexpr int DEPTH = 256;  // of a block: a panel of so many rows stays in the second-level cache

template <class W>
static void transpose(const Simd& simd, float* packed, const W* weight, int64_t weight_row, int n, int K) {
    if constexpr (std::is_same_v<W, Bf16>)
        simd.transpose_bf16(packed, &weight->bits, weight_row, n, K);
    else
        simd.transpose(packed, weight, weight_row, n, K);
}

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
            transpose(simd, packed, weight + n * weight_row + k, weight_row, width, depth);
            simd.outer(out + n, out_row, inp + k, inp_row, 1, packed, PANEL, M, width, depth, k > 0);
            k += depth;
        } while (k < K);
    }
}
template void matmul_block(const Simd&, float*, int64_t, const float*, int64_t, const float*, int64_t, int,
                           int, int);
template void matmul_block(const Simd&, float*, int64_t, const float*, int64_t, const Bf16*, int64_t, int,
                           int, int);

// ---- many rows: Goto's scheme
//
// b is packed once for all rows and threads: some columns at a time, PANEL by PANEL and each DEPTH by DEPTH, 4 MiB at most,
// in the third-level cache. An item is ROWS by some panels of out, which stay in a core's second-level cache with the
// ROWS x DEPTH of a that meet them, while the packed panels go by; the register tile's rows of a and out are in the first.

constexpr int ROWS = 192, STRIP = 48, TILE_ROWS = 6;
constexpr int64_t GROUP = 1 << 20,
                  GROUP_SLICES = 4;  // floats packed at a time, and DEPTHs of them where a sum may be split

namespace {

struct Product {
    Rows<float> out;
    const float* a;
    int64_t a_row, a_depth, M, N, D;
    bool accumulate;
    const float* bias = nullptr;
    Rows<const float> residual = {};

    // The sums of a block are made apart, over all the depth: residual may be out itself.
    bool sums_apart() const { return bias || residual; }
    // a lies in columns, which are copied in strips. One row, or one column, lies as rows do.
    bool in_strips() const { return a_row == 1 && a_depth != 1; }
};

// Columns [begin, begin + columns) of b and `slices` DEPTHs of its rows from depth `first * DEPTH` on: packed, or where they lie.
struct Group {
    int64_t begin, columns, D, first, slices;
    float* packed;
    Rows<const float> b = {};  // where nothing is packed

    int64_t panels() const { return (columns + PANEL - 1) / PANEL; }
    int width(int64_t panel) const { return int(std::min<int64_t>(PANEL, columns - panel * PANEL)); }
    int64_t depth_begin(int64_t slice) const { return (first + slice) * DEPTH; }
    int depth(int64_t slice) const { return int(std::min<int64_t>(DEPTH, D - depth_begin(slice))); }
    float* pack(int64_t panel, int64_t slice) const {
        return packed + (panel * slices + slice) * DEPTH * PANEL;
    }
    Rows<const float> at(int64_t panel, int64_t slice) const {
        if (packed) return {pack(panel, slice), PANEL};
        return {b[depth_begin(slice)] + begin + panel * PANEL, b.stride};
    }
};

struct alignas(64) Block {
    float data[ROWS * DEPTH];  // of a in strips, or of sums
};

}  // namespace

// A block of a (M, D) that lies in columns, in strips of 48: the register tile then finds its six of a depth in one cache
// line and those of the next beside it, not each on a page of its own.
static void pack_strips(float* packed, const float* a, int64_t a_depth, int M, int D) {
    for (int m = 0; m < M; m += STRIP)
        for (int d = 0; d < D; d++) {
            const float* from = a + d * a_depth + m;
            float* to = packed + m * D + d * STRIP;
            for (int i = 0; i < STRIP; i += 16) __builtin_prefetch(from + 4 * a_depth + i);
            if (M - m >= STRIP)
                memcpy(to, from, sizeof(float) * STRIP);  // of a size the compiler knows: no call
            else
                memcpy(to, from, sizeof(float) * size_t(M - m));
        }
}

static void multiply(const Simd& simd, const Product& p, const Group& g) {
    if (p.M == 0) return;
    const bool apart = p.sums_apart();
    const int64_t wanted = 2 * max_threads(), tiles = (p.M + TILE_ROWS - 1) / TILE_ROWS, panels = g.panels(),
                  most_panels = apart ? DEPTH / PANEL : panels;
    int64_t row_blocks = (p.M + ROWS - 1) / ROWS;
    const int64_t column_blocks = std::min(
        panels, std::max((panels + most_panels - 1) / most_panels, (wanted + row_blocks - 1) / row_blocks));
    if (row_blocks * column_blocks < wanted)
        row_blocks = std::min(tiles, (wanted + column_blocks - 1) / column_blocks);
    const int64_t work = p.M / row_blocks * g.columns / column_blocks * g.slices * DEPTH / 16;
    parallel_for(row_blocks * column_blocks, work, [&](int64_t item) {
        Block block;
        const int64_t i = item / column_blocks, j = item % column_blocks;
        const int64_t m0 = tiles * i / row_blocks * TILE_ROWS,
                      m1 = std::min(tiles * (i + 1) / row_blocks * TILE_ROWS, p.M);
        const int64_t p0 = panels * j / column_blocks, p1 = panels * (j + 1) / column_blocks;
        const int M = int(m1 - m0);
        const Rows<float> out = apart ? Rows<float>{block.data, DEPTH}
                                      : Rows<float>{p.out[m0] + g.begin + p0 * PANEL, p.out.stride};
        for (int64_t s = 0; s < g.slices; s++) {
            const int depth = g.depth(s);
            const bool accumulate = p.accumulate || g.first + s > 0;
            const float* a = p.a + m0 * p.a_row + g.depth_begin(s) * p.a_depth;
            if (p.in_strips()) pack_strips(block.data, a, p.a_depth, M, depth);
            for (int64_t panel = p0; panel < p1; panel++) {
                float* o = out.data + (panel - p0) * PANEL;
                const Rows<const float> b = g.at(panel, s);
                if (!p.in_strips())
                    simd.outer(o, out.stride, a, p.a_row, p.a_depth, b.data, b.stride, M, g.width(panel),
                               depth, accumulate);
                for (int m = 0; p.in_strips() && m < M; m += STRIP)
                    simd.outer(o + m * out.stride, out.stride, block.data + m * depth, 1, STRIP, b.data,
                               b.stride, std::min(STRIP, M - m), g.width(panel), depth, accumulate);
            }
        }
        const int64_t n = g.begin + p0 * PANEL;
        for (int m = 0; apart && m < M; m++)
            simd.add_bias(p.out[m0 + m] + n, out[m], p.bias ? p.bias + n : nullptr,
                          p.residual ? p.residual[m0 + m] + n : nullptr,
                          int(std::min(p1 * PANEL, g.columns) - p0 * PANEL));
    });
}

// pack(group) fills group.packed.
template <class Pack>
static void in_groups(Context& context, const Product& p, const Pack& pack) {
    const int64_t slices = (p.D + DEPTH - 1) / DEPTH,
                  chunks = p.sums_apart() ? 1 : (slices + GROUP_SLICES - 1) / GROUP_SLICES;
    for (int64_t c = 0; c < chunks; c++) {
        const int64_t first = slices * c / chunks, count = slices * (c + 1) / chunks - first;
        const int64_t columns = std::max<int64_t>(1, GROUP / (count * DEPTH * PANEL)) * PANEL;
        for (int64_t begin = 0; begin < p.N; begin += columns) {
            Group g{begin, std::min(columns, p.N - begin), p.D, first, count, nullptr};
            g.packed = context.packed(size_t(g.panels() * count * DEPTH * PANEL));
            pack(g);
            multiply(context.simd, p, g);
        }
    }
}

template <class W>
void matmul_transposed(Context& context, Rows<float> out, Rows<const float> inp, Rows<const W> weight,
                       const float* bias, Rows<const float> residual, int64_t M, int64_t N, int64_t K) {
    in_groups(context, {out, inp.data, inp.stride, 1, M, N, K, false, bias, residual}, [&](const Group& g) {
        parallel_for(g.panels() * g.slices, DEPTH * PANEL / 4, [&](int64_t item) {
            const int64_t panel = item / g.slices, s = item % g.slices;
            transpose(context.simd, g.pack(panel, s), weight[g.begin + panel * PANEL] + g.depth_begin(s),
                      weight.stride, g.width(panel), g.depth(s));
        });
    });
}
template void matmul_transposed(Context&, Rows<float>, Rows<const float>, Rows<const float>, const float*,
                                Rows<const float>, int64_t, int64_t, int64_t);
template void matmul_transposed(Context&, Rows<float>, Rows<const float>, Rows<const Bf16>, const float*,
                                Rows<const float>, int64_t, int64_t, int64_t);

void matmul(Context& context, Rows<float> out, const float* a, int64_t a_row, int64_t a_depth,
            Rows<const float> b, int64_t M, int64_t N, int64_t D, bool accumulate) {
    const Product product{out, a, a_row, a_depth, M, N, D, accumulate};
    if (M * N * D < WORTH_PACKING || M < ROWS / 2)
        return multiply(context.simd, product,
                        {0, N, D, 0, std::max<int64_t>(1, (D + DEPTH - 1) / DEPTH), nullptr, b});
    in_groups(context, product, [&](const Group& g) {
        parallel_for(g.slices * DEPTH, g.columns / 8, [&](int64_t row) {
            const int64_t s = row / DEPTH, d = row % DEPTH;
            for (int64_t panel = 0; d < g.depth(s) && panel < g.panels(); panel++)
                memcpy(g.pack(panel, s) + d * PANEL, b[g.depth_begin(s) + d] + g.begin + panel * PANEL,
                       sizeof(float) * size_t(g.width(panel)));
        });
    });
}

}  // namespace cpu
