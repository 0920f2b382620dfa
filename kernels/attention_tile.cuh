// attention_tile.cuh -- what the tensor-core kernels of span attention share: tiles in shared memory, fragments, masks.
//
// A tile is (rows, HD) bf16, its 16-byte chunks XOR-swizzled so that the 8 rows of an ldmatrix fall into different
// banks. A query tile packs the query heads of one key/value head: row m is head m % group of token m / group.
#pragma once
#include "kernels/cuda_kernels.h"
#include "kernels/device/ptx.h"

namespace cuda {

constexpr float LOG2_E = 1.4426950408889634f, LN_2 = 0.6931471805599453f;

// What every kernel over tiles reads.
struct TileArguments {
    DeviceRows<const bf16> q, k, v;
    const AttentionSpans* see;
    DeviceTiles tiles;
    int group, kv_heads, n_slots;
    float scale;
};
inline TileArguments tile_arguments(const Attention& a, const DeviceTiles& tiles) {
    return {.q = device_rows<const bf16>(a.q),
            .k = device_rows<const bf16>(a.k),
            .v = device_rows<const bf16>(a.v),
            .see = reinterpret_cast<const AttentionSpans*>(a.see.as<int>()),
            .tiles = tiles,
            .group = a.group(),
            .kv_heads = a.kv_heads,
            .n_slots = int(a.k.rows),
            .scale = 1.0f / sqrtf(float(a.HD()))};
}

// And what those of the backward pass read and write beside.
struct BackwardArguments {
    TileArguments in;
    DeviceRows<bf16> dq, dk, dv;
    DeviceRows<const float> row_sums, lse;
    DeviceRows<const bf16> dout;
};
inline BackwardArguments backward_arguments(Tensor dq, Tensor dk, Tensor dv, Tensor row_sums, Tensor dout,
                                            Tensor lse, const TileArguments& in) {
    return {.in = in,
            .dq = device_rows<bf16>(dq),
            .dk = device_rows<bf16>(dk),
            .dv = device_rows<bf16>(dv),
            .row_sums = device_rows<const float>(row_sums),
            .lse = device_rows<const float>(lse),
            .dout = device_rows<const bf16>(dout)};
}

// Element offset of (row, col) in a tile; col is a multiple of 8, a chunk's first.
template <int HD>
__device__ inline int swizzle(int row, int col) {
    constexpr int CHUNKS = HD / 8;
    const int chunk = col / 8, turn = CHUNKS >= 8 ? row % 8 : row / 2 % 4;
    return row * HD + (chunk ^ turn) * 8;
}

// A operand (16 rows from row0, 16 columns from col0) of mma: matrices (rows 0-7, k 0-7), (8-15, 0-7), (0-7,
// 8-15), (8-15, 8-15).
template <int HD>
__device__ inline void load_a(uint32_t (&a)[4], const bf16* tile, int row0, int col0) {
    const int lane = int(threadIdx.x % WARP);
    ldmatrix_x4(a, tile + swizzle<HD>(row0 + lane % 16, col0 + lane / 16 * 8));
}
// B operands of two mma whose n are the tile's rows n0..n0+7 and n0+8..n0+15, k its columns from k0.
template <int HD>
__device__ inline void load_b_rows(uint32_t (&b)[2][2], const bf16* tile, int n0, int k0) {
    const int lane = int(threadIdx.x % WARP);
    uint32_t r[4];
    ldmatrix_x4(r, tile + swizzle<HD>(n0 + lane % 8 + lane / 16 * 8, k0 + lane / 8 % 2 * 8));
    b[0][0] = r[0], b[0][1] = r[1], b[1][0] = r[2], b[1][1] = r[3];
}
// B operands of two mma whose k are the tile's rows from k0, n its columns n0..n0+7 and n0+8..n0+15.
template <int HD>
__device__ inline void load_b_columns(uint32_t (&b)[2][2], const bf16* tile, int k0, int n0) {
    const int lane = int(threadIdx.x % WARP);
    uint32_t r[4];
    ldmatrix_x4<TRANSPOSED>(r, tile + swizzle<HD>(k0 + lane % 16, n0 + lane / 16 * 8));
    b[0][0] = r[0], b[0][1] = r[1], b[1][0] = r[2], b[1][1] = r[3];
}
// Accumulators of two neighbouring 16x8 tiles as the A operand of the next product.
__device__ inline void accumulators_as_a(uint32_t (&a)[4], const float (&left)[4], const float (&right)[4]) {
    a[0] = pack_bf16(left[0], left[1]), a[1] = pack_bf16(left[2], left[3]);
    a[2] = pack_bf16(right[0], right[1]), a[3] = pack_bf16(right[2], right[3]);
}

// Issues the copy of ROWS slots from slot0 on, of one key/value head, by THREADS threads of which this is `thread`;
// zeros past the last slot.
template <int HD, int ROWS, int THREADS = 128>
__device__ inline void copy_slots(bf16* tile, DeviceRows<const bf16> src, int slot0, int n_slots, int kv_head,
                                  unsigned thread = threadIdx.x) {
    constexpr int CHUNKS = HD / 8, STEP = THREADS / CHUNKS;  // of rows: a thread keeps its columns
    static_assert(THREADS % CHUNKS == 0 && ROWS % STEP == 0);
    const int row0 = int(thread / CHUNKS), col = int(thread % CHUNKS * 8);
    const bf16* from = src[slot0 + row0] + kv_head * HD + col;
    const int64_t step = STEP * src.stride;
    if (slot0 + ROWS <= n_slots) {
        for (int i = 0; i < ROWS; i += STEP, from += step)
            cp_async_16(tile + swizzle<HD>(row0 + i, col), from, true);
    } else {
#pragma unroll 1
        for (int i = 0; i < ROWS; i += STEP, from += step) {
            const bool valid = slot0 + row0 + i < n_slots;
            cp_async_16(tile + swizzle<HD>(row0 + i, col), valid ? from : src.data, valid);
        }
    }
}
// The same of the packed rows of a query tile, by the whole block of 128 threads; zeros past its last.
template <int HD, int ROWS>
__device__ inline void copy_queries(bf16* tile, DeviceRows<const bf16> src, int begin, int end, int group,
                                    int kv_head) {
    constexpr unsigned CHUNKS = HD / 8;
    for (unsigned i = threadIdx.x; i < ROWS * CHUNKS; i += blockDim.x) {
        const int row = int(i / CHUNKS), col = int(i % CHUNKS * 8),
                  token = int(unsigned(row) / unsigned(group));
        const bool valid = begin + token < end;
        cp_async_16(tile + swizzle<HD>(row, col),
                    src[valid ? begin + token : begin] + (kv_head * group + row - token * group) * HD + col,
                    valid);
    }
}

// Issues the copy of a visit's keys and values into one of two stages.
template <int HD>
__device__ inline void copy_visit(bf16* k_stages, bf16* v_stages, int stage, const TileArguments& in,
                                  int visit, int kv_head) {
    const int slot0 = in.tiles.keys[visit].tile * KEY_TILE, at = stage * KEY_TILE * HD;
    copy_slots<HD, KEY_TILE>(k_stages + at, in.k, slot0, in.n_slots, kv_head);
    copy_slots<HD, KEY_TILE>(v_stages + at, in.v, slot0, in.n_slots, kv_head);
    cp_async_commit();
}
// Of two stages under way, or one: until this thread's copies of the first have arrived.
__device__ inline void wait_for_stage(bool two) {
    if (two)
        cp_async_wait<1>();
    else
        cp_async_wait<0>();
}

// acc (16 rows, 8 N columns) = A (rows row0.. of a_tile) B^T (rows n0.. of b_tile), over HD
template <int HD, int N>
__device__ inline void multiply_rows(float (&acc)[N][4], const bf16* a_tile, int row0, const bf16* b_tile,
                                     int n0) {
    for (int j = 0; j < N; j++)
        for (int r = 0; r < 4; r++) acc[j][r] = 0;
    for (int c = 0; c < HD / 16; c++) {
        uint32_t a[4];
        load_a<HD>(a, a_tile, row0, c * 16);
        for (int j = 0; j < N; j += 2) {
            uint32_t b[2][2];
            load_b_rows<HD>(b, b_tile, n0 + j * 8, c * 16);
            mma_m16n8k16(acc[j], a, b[0]);
            mma_m16n8k16(acc[j + 1], a, b[1]);
        }
    }
}
// acc (16 rows, HD) += P (16 rows, 8 N) times rows k0.. of tile
template <int HD, int N>
__device__ inline void add_product(float (&acc)[HD / 8][4], const float (&p)[N][4], const bf16* tile,
                                   int k0) {
    for (int e = 0; e < N / 2; e++) {
        uint32_t a[4];
        accumulators_as_a(a, p[2 * e], p[2 * e + 1]);
        for (int i = 0; i < HD / 8; i += 2) {
            uint32_t b[2][2];
            load_b_columns<HD>(b, tile, k0 + e * 16, i * 8);
            mma_m16n8k16(acc[i], a, b[0]);
            mma_m16n8k16(acc[i + 1], a, b[1]);
        }
    }
}

// Bit i: slot base + i is seen, for KEY_TILE slots.
__device__ inline uint64_t visible_slots(const AttentionSpans& see, int base) {
    uint64_t bits = 0;
    for (int r = 0; r < 3; r++) {
        const int begin = max(see.begin[r] - base, 0), end = min(see.end[r] - base, KEY_TILE);
        if (begin < end) bits |= (~uint64_t(0) >> (KEY_TILE - (end - begin))) << begin;
    }
    return bits;
}

}  // namespace cuda
