// simd_kernels.h -- the inner kernels of simd.h for vectors of SIMD_LANES floats. Included once by each
// simd_*.cpp.
//
// The vector type is GCC's extension; only what it cannot say (fused multiply-add, masks, shuffles) is
// written per instruction set. Nothing here may include a standard template (see simd.h). Compiled with
// -ffp-contract=off: where a multiply-add is fused is said, not left to the surroundings, so an element's
// bits do not depend on its place in a vector.
#include <math.h>
#include <stdint.h>
#include <string.h>
#ifdef __x86_64__
#include <immintrin.h>
#endif

#include "kernels/simd.h"
#include "kernels/simd_vectors.h"

namespace {

constexpr int COLUMNS = SIMD_COLUMNS;  // vectors of a register tile's width
constexpr int TILE_ROWS = 6;

// ---- matrix products

// x, in a register from here on. GCC would rather read a vector of b again for each of two or three rows: they then run
// at half the speed.
SIMD_INLINE Vec in_register(Vec x) {
#ifdef __x86_64__
    asm("" : "+v"(x));
#endif
    return x;
}

// One register tile of M rows by N vectors, of whose last one only `last` lanes exist where PARTIAL.
template <int M, int N, bool PARTIAL>
void tile(float* out, int64_t out_row, const float* a, int64_t a_row, int64_t a_depth, const float* b,
          int64_t b_row, int D, bool accumulate, int last) {
    const auto get = [last](const float* p, int j) {
        return PARTIAL && j == N - 1 ? load(p + j * LANES, last) : load(p + j * LANES);
    };
    Vec sum[M][N];
    for (int m = 0; m < M; m++)
        for (int j = 0; j < N; j++) sum[m][j] = accumulate ? get(out + m * out_row, j) : Vec{};
    for (int d = 0; d < D; d++) {
        if (d % 16 == 0)  // the next tile's rows
            for (int m = 0; m < M; m++) __builtin_prefetch(a + (m + M) * a_row, 0, 3);
        Vec bv[N];
        for (int j = 0; j < N; j++) bv[j] = in_register(get(b, j));
        for (int m = 0; m < M; m++) {
            const Vec am = all(a[m * a_row]);
            for (int j = 0; j < N; j++) sum[m][j] = fma(am, bv[j], sum[m][j]);
        }
        a += a_depth;
        b += b_row;
    }
    for (int m = 0; m < M; m++)
        for (int j = 0; j < N; j++) {
            float* p = out + m * out_row + j * LANES;
            if (PARTIAL && j == N - 1)
                store(p, sum[m][j], last);
            else
                store(p, sum[m][j]);
        }
}

typedef void (*Tile)(float*, int64_t, const float*, int64_t, int64_t, const float*, int64_t, int, bool, int);

template <int M>
Tile tile_of(int columns, bool partial) {
    if (columns == 1) return partial ? tile<M, 1, true> : tile<M, 1, false>;
    if (columns == 2) return partial ? tile<M, 2, true> : tile<M, 2, false>;
    if constexpr (COLUMNS > 2) {
        if (columns == 3) return partial ? tile<M, 3, true> : tile<M, 3, false>;
        return partial ? tile<M, 4, true> : tile<M, 4, false>;
    }
    return nullptr;
}

Tile tile_of(int rows, int columns, bool partial) {
    switch (rows) {
        case 1: return tile_of<1>(columns, partial);
        case 2: return tile_of<2>(columns, partial);
        case 3: return tile_of<3>(columns, partial);
        case 4: return tile_of<4>(columns, partial);
        case 5: return tile_of<5>(columns, partial);
        default: return tile_of<6>(columns, partial);
    }
}

// Depth in blocks whose strip of b (DEPTH by a tile's width) stays in the first two cache levels while the
// rows of a go by.
void outer(float* out, int64_t out_row, const float* a, int64_t a_row, int64_t a_depth, const float* b,
           int64_t b_row, int M, int N, int D, bool accumulate) {
    constexpr int DEPTH = 256, WIDTH = COLUMNS * LANES;
    const int tiles = (M + TILE_ROWS - 1) / TILE_ROWS;  // rows are split evenly: 8 as 4 + 4, not 6 + 2
    int d = 0;
    do {
        const int depth = D - d < DEPTH ? D - d : DEPTH;
        for (int n = 0; n < N; n += WIDTH) {
            const int width = N - n < WIDTH ? N - n : WIDTH, columns = (width + LANES - 1) / LANES,
                      last = width - (columns - 1) * LANES;
            for (int i = 0; i < tiles; i++) {
                const int m = int(int64_t(M) * i / tiles), rows = int(int64_t(M) * (i + 1) / tiles) - m;
                for (int j = 0; j < TILE_ROWS && i + 1 < tiles; j++)
                    for (int l = 0; l < width; l += 16)
                        __builtin_prefetch(out + (m + rows + j) * out_row + n + l, 1, 3);
                tile_of(rows, columns, last < LANES)(
                    out + m * out_row + n, out_row, a + m * a_row + d * a_depth, a_row, a_depth,
                    b + d * b_row + n, b_row, depth, accumulate || d > 0, last);
            }
        }
        d += depth;
    } while (d < D);
}

#if SIMD_LANES == 16
SIMD_INLINE Vec low_pairs(Vec a, Vec b) { return _mm512_unpacklo_ps(a, b); }
SIMD_INLINE Vec high_pairs(Vec a, Vec b) { return _mm512_unpackhi_ps(a, b); }
SIMD_INLINE Vec low_halves(Vec a, Vec b) { return (Vec)_mm512_unpacklo_pd((__m512d)a, (__m512d)b); }
SIMD_INLINE Vec high_halves(Vec a, Vec b) { return (Vec)_mm512_unpackhi_pd((__m512d)a, (__m512d)b); }
// Transposes LANES / 4 vectors of 128-bit lanes.
SIMD_INLINE void transpose_lanes(Vec* out, int out_step, const Vec* v, int step) {
    const Vec a = _mm512_shuffle_f32x4(v[0], v[step], 0x44),
              b = _mm512_shuffle_f32x4(v[2 * step], v[3 * step], 0x44);
    const Vec c = _mm512_shuffle_f32x4(v[0], v[step], 0xee),
              d = _mm512_shuffle_f32x4(v[2 * step], v[3 * step], 0xee);
    out[0] = _mm512_shuffle_f32x4(a, b, 0x88);
    out[out_step] = _mm512_shuffle_f32x4(a, b, 0xdd);
    out[2 * out_step] = _mm512_shuffle_f32x4(c, d, 0x88);
    out[3 * out_step] = _mm512_shuffle_f32x4(c, d, 0xdd);
}
#elif SIMD_LANES == 8
SIMD_INLINE Vec low_pairs(Vec a, Vec b) { return _mm256_unpacklo_ps(a, b); }
SIMD_INLINE Vec high_pairs(Vec a, Vec b) { return _mm256_unpackhi_ps(a, b); }
SIMD_INLINE Vec low_halves(Vec a, Vec b) { return (Vec)_mm256_unpacklo_pd((__m256d)a, (__m256d)b); }
SIMD_INLINE Vec high_halves(Vec a, Vec b) { return (Vec)_mm256_unpackhi_pd((__m256d)a, (__m256d)b); }
SIMD_INLINE void transpose_lanes(Vec* out, int out_step, const Vec* v, int step) {
    out[0] = _mm256_permute2f128_ps(v[0], v[step], 0x20);
    out[out_step] = _mm256_permute2f128_ps(v[0], v[step], 0x31);
}
#else
SIMD_INLINE Vec low_pairs(Vec a, Vec b) { return __builtin_shufflevector(a, b, 0, 4, 1, 5); }
SIMD_INLINE Vec high_pairs(Vec a, Vec b) { return __builtin_shufflevector(a, b, 2, 6, 3, 7); }
SIMD_INLINE Vec low_halves(Vec a, Vec b) { return __builtin_shufflevector(a, b, 0, 1, 4, 5); }
SIMD_INLINE Vec high_halves(Vec a, Vec b) { return __builtin_shufflevector(a, b, 2, 3, 6, 7); }
SIMD_INLINE void transpose_lanes(Vec* out, int, const Vec* v, int) { out[0] = v[0]; }
#endif

// A tile is LANES rows of LANES 32-bit elements, transposed in two steps. First the 128-bit lanes: of rows `part`,
// part + 4, part + 8, ... (four elements each) lane l comes to row `part` of a block v[4 l ...]. Whole cache lines
// are read at once: rows a power of two apart fall into one cache set. The rows `ahead` bytes on are prefetched:
// where rows are short, as in a head of C = 256, the hardware does not recognise the streams.
constexpr int PARTS = 4, BLOCKS = LANES / PARTS;
template <class Width>
SIMD_INLINE void load_part(Vec* v, int part, const char* const* row, int64_t offset, Width width,
                           int64_t ahead) {
    Vec lines[BLOCKS];
    for (int l = 0; l < BLOCKS; l++) {
        const char* p = row[part + PARTS * l] + offset;
        lines[l] = load(reinterpret_cast<const float*>(p), width);
        __builtin_prefetch(p + ahead, 0, 2);
        if (LANES == 16) __builtin_prefetch(p + 256, 0, 3);  // from the second cache to the first
    }
    transpose_lanes(v + part, PARTS, lines, 1);
}
// Then 4 by 4 inside the lanes: block b holds columns 4 b to 4 b + 3.
SIMD_INLINE void columns_of(Vec* column, const Vec* block) {
    const Vec a = low_pairs(block[0], block[1]), b = low_pairs(block[2], block[3]);
    const Vec c = high_pairs(block[0], block[1]), d = high_pairs(block[2], block[3]);
    column[0] = low_halves(a, b);
    column[1] = high_halves(a, b);
    column[2] = low_halves(c, d);
    column[3] = high_halves(c, d);
}
template <class Width>
SIMD_INLINE void transpose_tile(Vec* column, const char* const* row, int64_t offset, Width width,
                                int64_t ahead) {
    Vec v[LANES];
    for (int part = 0; part < PARTS; part++) load_part(v, part, row, offset, width, ahead);
    for (int b = 0; b < BLOCKS; b++) columns_of(column + PARTS * b, v + PARTS * b);
}

// How many of n 32-bit elements lie before the first whole vector of memory: matrices in a mapped file begin
// anywhere, and lines that are met half take two accesses.
SIMD_INLINE int before_aligned(const void* data, int n) {
    const uintptr_t place = reinterpret_cast<uintptr_t>(data);
    const int lead = place % 4 ? 0 : int(-(place / 4) % LANES);
    return lead < n ? lead : n;
}
// for_vectors, beginning with a partial vector of `lead`.
template <class F>
SIMD_INLINE void for_vectors_after(int lead, int n, F f) {
    if (lead) f(0, lead);
    for_vectors(n - lead, [&](int i, auto w) { f(lead + i, w); });
}

// The pointers of LANES rows from n0 on; beyond n the last one again.
SIMD_INLINE void row_pointers(const char** row, const void* weight, int64_t row_bytes, int n0, int n) {
    for (int i = 0; i < LANES; i++)
        row[i] = static_cast<const char*>(weight) + (n0 + i < n ? n0 + i : n - 1) * row_bytes;
}

void transpose(float* packed, const float* weight, int64_t weight_row, int n, int K) {
    for (int n0 = 0; n0 < n; n0 += LANES) {
        const char* row[LANES];
        row_pointers(row, weight, weight_row * 4, n0, n);
        const int64_t ahead = weight_row * 4 * LANES;
        const int rows = n - n0 < LANES ? n - n0 : LANES;
        for_vectors_after(before_aligned(row[0], K), K, [&](int k, auto w) {
            Vec column[LANES];
            transpose_tile(column, row, int64_t(k) * 4, w, ahead);
            for (int i = 0; i < w; i++) {
                float* p = packed + int64_t(k + i) * PANEL + n0;
                if (rows == LANES)
                    store(p, column[i]);
                else
                    store(p, column[i], rows);
            }
        });
    }
}

// A bf16 is the upper half of a float, and two of them are transposed as one 32-bit element.
SIMD_INLINE Vec even_halves(Vec x) { return (Vec)((IVec)x << 16); }
SIMD_INLINE Vec odd_halves(Vec x) { return (Vec)((IVec)x & int32_t(0xffff0000u)); }

void transpose_bf16(float* packed, const uint16_t* weight, int64_t weight_row, int n, int K) {
    for (int n0 = 0; n0 < n; n0 += LANES) {
        const char* row[LANES];
        row_pointers(row, weight, weight_row * 2, n0, n);
        const int64_t ahead = weight_row * 2 * LANES;
        const int rows = n - n0 < LANES ? n - n0 : LANES;
        for_vectors_after(before_aligned(row[0], K / 2), K / 2, [&](int pair, auto w) {
            Vec column[LANES];
            transpose_tile(column, row, int64_t(pair) * 4, w, ahead);
            for (int i = 0; i < w; i++) {
                float* p = packed + int64_t(2 * (pair + i)) * PANEL + n0;
                const Vec even = even_halves(column[i]), odd = odd_halves(column[i]);
                if (rows == LANES)
                    store(p, even), store(p + PANEL, odd);
                else
                    store(p, even, rows), store(p + PANEL, odd, rows);
            }
        });
        for (int i = 0; i < rows && K % 2; i++) {
            const uint32_t bits = uint32_t(weight[(n0 + i) * weight_row + K - 1]) << 16;
            memcpy(&packed[int64_t(K - 1) * PANEL + n0 + i], &bits, 4);
        }
    }
}

// The product of a few rows: tiles of weights are transposed in registers and used there, so that the weights
// pass by once and nothing is packed. While a tile's columns are multiplied, the lanes of the next one are
// transposed. Up to LANES weight rows, `n` of them real.
template <int M, bool BF16>
void narrow_tiles(float* out, int64_t out_row, const float* inp, int64_t inp_row, const char* const* row,
                  int64_t ahead, int n, int K) {
    Vec sum[M];
    for (int m = 0; m < M; m++) sum[m] = Vec{};
    const auto add = [&](int k, Vec column) {
        for (int m = 0; m < M; m++) sum[m] = fma(all(inp[m * inp_row + k]), column, sum[m]);
    };
    const auto accumulate = [&](int i, Vec column) {  // i: of 32-bit elements
        if (!BF16) return add(i, column);
        add(2 * i, even_halves(column));
        add(2 * i + 1, odd_halves(column));
    };
    const auto partial_tile = [&](int i, int width) {
        Vec column[LANES];
        transpose_tile(column, row, int64_t(i) * 4, width, ahead);
        for (int j = 0; j < width; j++) accumulate(i + j, column[j]);
    };
    const int words = BF16 ? K / 2 : K, lead = before_aligned(row[0], words),
              end = lead + (words - lead) / LANES * LANES;
    if (lead) partial_tile(0, lead);
    if (lead < end) {
        Vec v[LANES];
        for (int part = 0; part < PARTS; part++) load_part(v, part, row, int64_t(lead) * 4, Full(), ahead);
        for (int i = lead; i < end; i += LANES) {
            const int64_t next = i + LANES < end ? i + LANES : i;  // after the last tile: any
            Vec next_v[LANES];
#pragma GCC unroll 4  // whole: else v and next_v are arrays in memory
            for (int b = 0; b < BLOCKS; b++) {
                Vec column[PARTS];
                columns_of(column, v + PARTS * b);
                for (int part = b * PARTS / BLOCKS; part < (b + 1) * PARTS / BLOCKS; part++)
                    load_part(next_v, part, row, next * 4, Full(), ahead);
                for (int j = 0; j < PARTS; j++) accumulate(i + PARTS * b + j, column[j]);
            }
            for (int j = 0; j < LANES; j++) v[j] = next_v[j];
        }
    }
    if (end < words) partial_tile(end, words - end);
    if (BF16 && K % 2) {
        float last[LANES];
        for (int i = 0; i < LANES; i++) {
            uint16_t half;
            memcpy(&half, row[i] + int64_t(K - 1) * 2, 2);
            const uint32_t bits = uint32_t(half) << 16;
            memcpy(&last[i], &bits, 4);
        }
        add(K - 1, load(last));
    }
    for (int m = 0; m < M; m++) {
        if (n == LANES)
            store(out + m * out_row, sum[m]);
        else
            store(out + m * out_row, sum[m], n);
    }
}

typedef void (*NarrowTiles)(float*, int64_t, const float*, int64_t, const char* const*, int64_t, int, int);
template <bool BF16>
constexpr NarrowTiles NARROW_TILES[] = {
    narrow_tiles<1, BF16>, narrow_tiles<2, BF16>, narrow_tiles<3, BF16>, narrow_tiles<4, BF16>,
#if SIMD_LANES == 16  // a tile and eight sums fit the registers
    narrow_tiles<5, BF16>, narrow_tiles<6, BF16>, narrow_tiles<7, BF16>, narrow_tiles<8, BF16>,
#endif
};

void narrow(float* out, int64_t out_row, const float* inp, int64_t inp_row, const void* weight,
            int64_t weight_row, int element, int M, int N, int K) {
    constexpr int MOST = sizeof NARROW_TILES<false> / sizeof NARROW_TILES<false>[0];
    const NarrowTiles* tiles = element == 2 ? NARROW_TILES<true> : NARROW_TILES<false>;
    const int groups = (M + MOST - 1) / MOST;  // of rows, equally many where that goes: 9 as 5 + 4, not 8 + 1
    for (int n = 0; n < N; n += LANES) {
        const char* row[LANES];
        row_pointers(row, weight, weight_row * element, n, N);
        const int64_t ahead = weight_row * element * LANES;
        const int width = N - n < LANES ? N - n : LANES;
        for (int i = 0; i < groups; i++) {
            const int m = M * i / groups, rows = M * (i + 1) / groups - m;
            tiles[rows - 1](out + m * out_row + n, out_row, inp + m * inp_row, inp_row, row, ahead, width, K);
        }
    }
}

}  // namespace
#include "kernels/simd_packed.h"
namespace {

void add_bias(float* out, const float* inp, const float* bias, const float* residual, int n) {
    for_vectors(n, [&](int i, auto w) {
        Vec x = load(inp + i, w);
        if (bias) x += load(bias + i, w);
        if (residual) x += load(residual + i, w);
        store(out + i, x, w);
    });
}

void add(float* out, const float* inp, float scale, int n) {
    for_vectors(
        n, [&](int i, auto w) { store(out + i, fma(all(scale), load(inp + i, w), load(out + i, w)), w); });
}

void multiply(float* x, float scale, int n) {
    for_vectors(n, [&](int i, auto w) { store(x + i, load(x + i, w) * all(scale), w); });
}

// ---- softmax

float max_element(const float* x, int n) {
    Vec max = all(-INFINITY);
    for_vectors(n, [&](int i, auto w) { max = max_of(max, keep(load(x + i, w), w, -INFINITY)); });
    return max_lanes(max);
}

void softmax_stats(float* max, float* sum, float* weighted, const float* x, float scale, int n) {
    const float top = max_element(x, n);
    Vec s = {}, sx = {};
    for_vectors(n, [&](int i, auto w) {
        const Vec y = (load(x + i, w) - all(top)) * all(scale), e = keep(exp_of(y), w, 0);
        s += e;
        sx = fma(e, y, sx);
    });
    *max = top;
    *sum = sum_lanes(s);
    *weighted = sum_lanes(sx);
}

float exp_row(float* out, const float* x, float shift, float scale, int n) {
    Vec sum = {};
    for_vectors(n, [&](int i, auto w) {
        const Vec e = exp_of((load(x + i, w) - all(shift)) * all(scale));
        sum += keep(e, w, 0);
        store(out + i, e, w);
    });
    return sum_lanes(sum);
}

void softmax_backward(float* score, float* dp, float lse, float D, int n) {
    for_vectors(n, [&](int i, auto w) {
        const Vec p = exp_of(load(score + i, w) - all(lse));
        store(dp + i, p * (load(dp + i, w) - all(D)), w);
        store(score + i, p, w);
    });
}

// ---- rows

float dot(const float* a, const float* b, int n) {
    Vec sum[4] = {};  // four chains, to hide the latency of an addition
    int i = 0;
    for (; i + 4 * LANES <= n; i += 4 * LANES)
        for (int j = 0; j < 4; j++) sum[j] = fma(load(a + i + j * LANES), load(b + i + j * LANES), sum[j]);
    for_vectors(n - i, [&](int k, auto w) { sum[0] = fma(load(a + i + k, w), load(b + i + k, w), sum[0]); });
    return sum_lanes((sum[0] + sum[1]) + (sum[2] + sum[3]));
}

float rmsnorm(float* out, const float* inp, const float* weight, float eps, int n) {
    const float rstd = 1 / sqrtf(dot(inp, inp, n) / float(n) + eps);
    for_vectors(
        n, [&](int i, auto w) { store(out + i, load(inp + i, w) * all(rstd) * load(weight + i, w), w); });
    return rstd;
}

void rmsnorm_backward(float* dinp, float* dweight, const float* dout, float rstd, const float* inp,
                      const float* weight, int n) {
    Vec sum = {};
    for_vectors(
        n, [&](int i, auto w) { sum = fma(load(dout + i, w) * load(weight + i, w), load(inp + i, w), sum); });
    const float scale = rstd * rstd * sum_lanes(sum) / float(n);
    for_vectors(n, [&](int i, auto w) {
        const Vec x = load(inp + i, w), d = load(dout + i, w);
        if (dweight) store(dweight + i, fma(d * x, all(rstd), load(dweight + i, w)), w);
        store(dinp + i, fma(all(rstd), d * load(weight + i, w) - x * all(scale), load(dinp + i, w)), w);
    });
}

void multiply_add(float* out, const float* a, const float* b, float scale, int n) {
    for_vectors(n, [&](int i, auto w) {
        store(out + i, fma(load(a + i, w) * load(b + i, w), all(scale), load(out + i, w)), w);
    });
}

void rope(float* out, const float* inp, float scale, const float* weight, const float* table, float sign,
          int HD) {
    const int half = HD / 2;
    for_vectors(half, [&](int i, auto w) {
        Vec a = load(inp + i, w), b = load(inp + half + i, w);
        if (weight) a = a * all(scale) * load(weight + i, w), b = b * all(scale) * load(weight + half + i, w);
        const Vec c = load(table + i, w), s = load(table + half + i, w) * all(sign);
        store(out + i, a * c - b * s, w);
        store(out + half + i, b * c + a * s, w);
    });
}

SIMD_INLINE Vec sigmoid(Vec x) { return all(1) / (all(1) + exp_of(-x)); }

void swiglu(float* out, const float* gate, const float* up, int n) {
    for_vectors(n, [&](int i, auto w) {
        const Vec g = load(gate + i, w);
        store(out + i, g * sigmoid(g) * load(up + i, w), w);
    });
}

void swiglu_backward(float* dgate, float* dup, const float* dout, const float* gate, const float* up, int n) {
    for_vectors(n, [&](int i, auto w) {
        const Vec g = load(gate + i, w), u = load(up + i, w), d = load(dout + i, w), s = sigmoid(g);
        store(dgate + i, d * u * (s + g * s * (all(1) - s)), w);
        store(dup + i, d * g * s, w);
    });
}

void adamw(float* param, float* m, float* v, const float* grad, int n, const Simd::AdamStep& o) {
    for_vectors(n, [&](int i, auto w) {
        const Vec g = all(o.grad_scale) * load(grad + i, w), p = load(param + i, w);
        const Vec m1 = all(o.beta1) * load(m + i, w) + all(o.one_minus_beta1) * g;
        const Vec v1 = all(o.beta2) * load(v + i, w) + all(o.one_minus_beta2) * g * g;
        store(m + i, m1, w);
        store(v + i, v1, w);
        const Vec step =
            m1 / all(o.correct1) / (sqrt_of(v1 / all(o.correct2)) + all(o.eps)) + all(o.weight_decay) * p;
        store(param + i, p - all(o.lr) * step, w);
    });
}

}  // namespace

extern const Simd SIMD_TABLE;
const Simd SIMD_TABLE = {
    .name = SIMD_NAME,
    .lanes = LANES,
    .narrow_rows = LANES == 16 ? 64 : 4,
    .outer = outer,
    .transpose = transpose,
    .transpose_bf16 = transpose_bf16,
    .narrow = narrow,
    .packed = packed,
    .add_bias = add_bias,
    .add = add,
    .multiply = multiply,
    .softmax_stats = softmax_stats,
    .max = max_element,
    .exp = exp_row,
    .softmax_backward = softmax_backward,
    .dot = dot,
    .rmsnorm = rmsnorm,
    .rmsnorm_backward = rmsnorm_backward,
    .multiply_add = multiply_add,
    .rope = rope,
    .swiglu = swiglu,
    .swiglu_backward = swiglu_backward,
    .adamw = adamw,
};
