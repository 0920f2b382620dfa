// attention_wgmma.cuh -- what the kernels of span attention on Hopper's wgmma share: copies into its tiles, its
// products over a whole tile. Query tiles, key tiles and masks are those of attention_tile.cuh; only how a tile lies in
// shared memory differs (tile_offset).
#pragma once
#include "kernels/attention_tile.cuh"
#include "kernels/device/wgmma.h"

namespace cuda {

constexpr int WARPGROUP_THREADS = 4 * WARP, WARPGROUP_ROWS = 64;

// Issues the copy of ROWS slots from slot0 on, of one key/value head, by threads 0..THREADS - 1, of which the caller
// is `thread`; zeros past the last slot.
template <int HD, int ROWS, int THREADS>
__device__ inline void copy_slots_for_wgmma(bf16* tile, DeviceRows<const bf16> src, int slot0, int n_slots,
                                            int kv_head, int thread) {
    constexpr int CHUNKS = HD / 8, STEP = THREADS / CHUNKS;  // rows that all threads copy at a time
    static_assert(THREADS % CHUNKS == 0 && ROWS % STEP == 0, "every thread copies one chunk of its rows");
    const int row0 = thread / CHUNKS, col = thread % CHUNKS * 8;
    const int left = n_slots - slot0;
    const bf16* from = src[slot0] + kv_head * HD + col;
    if (left >= ROWS) {
        from += row0 * src.stride;
#pragma unroll
        for (int row = 0; row < ROWS; row += STEP, from += STEP * src.stride)
            cp_async_16(tile + tile_offset<ROWS>(row + row0, col), from, true);
    } else {
#pragma unroll
        for (int row = 0; row < ROWS; row += STEP) {
            const bool valid = row + row0 < left;
            cp_async_16(tile + tile_offset<ROWS>(row + row0, col),
                        from + (valid ? row + row0 : 0) * src.stride, valid);
        }
    }
}

// The packed rows of a query tile: row m is head m % group of token m / group.
struct PackedRows {
    int group, reciprocal;
    __device__ explicit PackedRows(int group) : group(group), reciprocal((65535 + group) / group) {}
    // m / group, of m below 128 and groups of at most 64
    __device__ int token(int m) const { return m * reciprocal >> 16; }
    // Issues the copy of COUNT rows from row0 on of a tile of ROWS, which begins with token `begin` and has `rows` rows, by
    // threads 0..THREADS - 1, of which the caller is `thread`; zeros past the last.
    template <int HD, int ROWS, int COUNT, int THREADS>
    __device__ void copy(bf16* tile, DeviceRows<const bf16> src, int begin, int rows, int kv_head, int row0,
                         int thread) const {
        constexpr int CHUNKS = HD / 8, AT_ONCE = THREADS / CHUNKS;
        static_assert(THREADS % CHUNKS == 0 && COUNT % AT_ONCE == 0, "every thread copies as many chunks");
        const int col = thread % CHUNKS * 8;
        row0 += thread / CHUNKS;
        const bf16* first = src[begin] + unsigned(kv_head * group * HD + col);
        const int token_step = int(src.stride) - group * HD;
#pragma unroll
        for (int i = 0; i < COUNT / AT_ONCE; i++) {
            const int row = row0 + i * AT_ONCE;
            const bool valid = row < rows;
            cp_async_16(tile + tile_offset<ROWS>(row, col),
                        first + (valid ? token(row) * token_step + row * HD : 0), valid);
        }
    }
};

// A operand of a warp's 16 rows from row0, all HD columns, out of a tile of ROWS rows.
template <int HD, int ROWS>
__device__ inline void load_rows_as_a(uint32_t (&a)[HD / 16][4], const bf16* tile, int row0) {
    const int lane = int(threadIdx.x) % WARP;
#pragma unroll
    for (int k = 0; k < HD / 16; k++)
        ldmatrix_x4(a[k], tile + tile_offset<ROWS>(row0 + lane % 16, k * 16 + lane / 16 * 8));
}

// Issues d (64, 8 NT) = A B^T over HD, A in registers, B the rows from row0 on of a tile of ROWS rows.
template <int HD, int ROWS, int NT>
__device__ inline void issue_rows_product(float (&d)[NT][4], const uint32_t (&a)[HD / 16][4],
                                          const bf16* tile, int row0) {
    const uint64_t b = k_major_descriptor<ROWS>(tile, row0, 0);
#pragma unroll
    for (int k = 0; k < HD / 16; k++)  // 16 columns further, or to the next panel of 64
        wgmma(d, a[k], further(b, k / 4 * ROWS * 128 + k % 4 * 32), k > 0);
}
// Issues d (64, HD) += P (64, 16 K16) times the rows from row0 on of a tile of ROWS rows, P in registers.
template <int HD, int ROWS, int K16>
__device__ inline void issue_columns_product(float (&d)[HD / 8][4], const uint32_t (&p)[K16][4],
                                             const bf16* tile, int row0) {
    const uint64_t b = mn_major_descriptor<ROWS>(tile, row0, 0);
#pragma unroll
    for (int k = 0; k < K16; k++)  // 16 rows further
        wgmma<Major::MN>(d, p[k], further(b, k * 16 * 128), true);
}

// A thread's part of one of its two rows of accumulators, scaled, to where the row is (`to`, if `there`), 16 bytes at a time
// where it is aligned to them: the four lanes of a row exchange their pairs of columns first. The whole warp calls it.
template <int HD>
__device__ inline void store_row(bf16* to, bool there, const float (&acc)[HD / 8][4], int half, float scale) {
    const int lane = int(threadIdx.x) % 4;
    const bool aligned = reinterpret_cast<size_t>(to) % 16 == 0;
#pragma unroll
    for (int j0 = 0; j0 < HD / 8; j0 += 4) {
        uint32_t pair[4];  // columns 8 (j0 + i) + 2 lane, and the next; then 8 (j0 + lane) + 2 i
#pragma unroll
        for (int i = 0; i < 4; i++)
            pair[i] = pack_bf16(acc[j0 + i][half * 2] * scale, acc[j0 + i][half * 2 + 1] * scale);
#pragma unroll
        for (int x = 1; x < 4; x *= 2)
#pragma unroll
            for (int i = 0; i < 4; i++) {
                if (i & x) continue;
                const bool upper = lane & x;
                const uint32_t got = __shfl_xor_sync(FULL_WARP, upper ? pair[i] : pair[i + x], x);
                (upper ? pair[i] : pair[i + x]) = got;
            }
        if (!there) continue;
        bf16* chunk = to + (j0 + lane) * 8;
        if (aligned) {
            store_pack<4>(reinterpret_cast<uint32_t*>(chunk),
                          Pack<uint32_t, 4>{{pair[0], pair[1], pair[2], pair[3]}});
        } else {
#pragma unroll
            for (int i = 0; i < 4; i++)
                store_pack<1>(reinterpret_cast<uint32_t*>(chunk) + i, Pack<uint32_t, 1>{{pair[i]}});
        }
    }
}

}  // namespace cuda
