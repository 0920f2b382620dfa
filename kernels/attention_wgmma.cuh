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
// The same of the packed rows of a query tile; zeros past its last.
template <int HD, int ROWS, int THREADS>
__device__ inline void copy_queries_for_wgmma(bf16* tile, DeviceRows<const bf16> src, int begin, int end,
                                              int group, int kv_head, int thread) {
    constexpr int CHUNKS = HD / 8;
    static_assert(ROWS * CHUNKS % THREADS == 0, "every thread copies as many chunks");
#pragma unroll
    for (int n = 0; n < ROWS * CHUNKS / THREADS; n++) {
        const int i = n * THREADS + thread, row = i / CHUNKS, col = i % CHUNKS * 8, t = begin + row / group;
        const bool valid = t < end;
        cp_async_16(tile + tile_offset<ROWS>(row, col),
                    src[valid ? t : begin] + (kv_head * group + row % group) * HD + col, valid);
    }
}

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

}  // namespace cuda
