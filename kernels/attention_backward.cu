// attention_backward.cu -- span attention backward on tensor cores. See attention.h; tiles of attention_tiles.h.
//
// Two kernels, each computing scores and dscores again, so that every gradient is summed by one block in one order:
//   dq      a block per query tile (64 packed rows, 4 warps of 16) goes over its key tiles;   dq += ds k
//   dk, dv  a block per key tile (64 slots, 4 warps of 16) goes over its query tiles;         dv += p^T dout
//                                                                                             dk += ds^T q
// with p = exp(score - lse), ds = p (dout . v - D) scale, D the row sums of dout * out. The tiles a block goes over come
// through two stages of shared memory by cp.async. dk and dv take 32 rows of a query tile at a time, to stay within the
// registers.
//   shared memory: 2 resident tiles and 2 x 2 staged ones of (64, HD) bf16; for dk, dv also lse, D and masks of a tile's rows
#include "kernels/attention_tile.cuh"

namespace cuda {

constexpr int ROWS = 64, THREADS = 128;
constexpr int HALF = 32;  // of a tile that is gone over, taken at a time: more would not fit in the registers

// ---- kernels ----

template <int HD>
__global__ void __launch_bounds__(THREADS, 2) attention_dq_tiles_kernel(BackwardArguments arg) {
    DYNAMIC_SHARED(bf16, smem);
    constexpr int TILE = ROWS * HD;
    bf16 *q_smem = smem, *dout_smem = smem + TILE, *k_smem = smem + 2 * TILE, *v_smem = smem + 4 * TILE;
    const int lane = int(threadIdx.x % WARP), warp = int(threadIdx.x / WARP), kv_head = int(blockIdx.y);
    const AttentionTiles::QueryTile tile = arg.in.tiles.query_tiles[blockIdx.x];

    AttentionSpans see[2];
    int t[2], head[2];
    float lse[2], D[2];
    for (int half = 0; half < 2; half++) {
        const int row = warp * 16 + lane / 4 + half * 8;
        t[half] = tile.begin + row / arg.in.group, head[half] = kv_head * arg.in.group + row % arg.in.group;
        const bool valid = t[half] < tile.end;
        see[half] = valid ? arg.in.see[t[half]] : AttentionSpans{};
        lse[half] = valid ? arg.lse[t[half]][head[half]] : 0.0f;
        D[half] = valid ? arg.row_sums[t[half]][head[half]] : 0.0f;
    }
    if (tile.first_visit < tile.end_visit) {
        copy_queries<HD, ROWS>(q_smem, arg.in.q, tile.begin, tile.end, arg.in.group, kv_head);
        copy_queries<HD, ROWS>(dout_smem, arg.dout, tile.begin, tile.end, arg.in.group, kv_head);
        copy_visit<HD>(k_smem, v_smem, 0, arg.in, tile.first_visit, kv_head);
    }

    float dq[HD / 8][4] = {};
    for (int visit = tile.first_visit, stage = 0; visit < tile.end_visit; visit++, stage ^= 1) {
        const bool more = visit + 1 < tile.end_visit;
        if (more) copy_visit<HD>(k_smem, v_smem, stage ^ 1, arg.in, visit + 1, kv_head);
        wait_for_stage(more);
        __syncthreads();  // everybody's copies of this stage have arrived
        const int base = arg.in.tiles.keys[visit].tile * KEY_TILE, column = lane % 4 * 2;
        uint64_t seen[2];
        for (int half = 0; half < 2; half++) seen[half] = visible_slots(see[half], base);
#pragma unroll 1
        for (int key0 = 0; key0 < KEY_TILE; key0 += HALF) {
            float s[HALF / 8][4], ds[HALF / 8][4];
            multiply_rows<HD>(s, q_smem, warp * 16, k_smem + stage * TILE, key0);
            multiply_rows<HD>(ds, dout_smem, warp * 16, v_smem + stage * TILE, key0);
            for (int j = 0; j < HALF / 8; j++)
                for (int r = 0; r < 4; r++) {
                    const int half = r / 2;
                    const bool visible = seen[half] >> (key0 + j * 8 + column + r % 2) & 1;
                    const float p = visible ? exp2f((s[j][r] * arg.in.scale - lse[half]) * LOG2_E) : 0.0f;
                    ds[j][r] = p * (ds[j][r] - D[half]) * arg.in.scale;
                }
            add_product<HD>(dq, ds, k_smem + stage * TILE, key0);
        }
        __syncthreads();  // everybody is done with this stage before it is overwritten
    }
    for (int half = 0; half < 2; half++) {
        if (t[half] >= tile.end) continue;
        for (int i = 0; i < HD / 8; i++)
            store_pack<2>(
                arg.dq[t[half]] + head[half] * HD + i * 8 + lane % 4 * 2,
                Pack<bf16, 2>{{from_float<bf16>(dq[i][half * 2]), from_float<bf16>(dq[i][half * 2 + 1])}});
    }
}

// What the rows of a staged query tile need beside q and dout.
struct RowData {
    uint64_t seen;  // slots of the block's key tile
    float lse, D;
};

template <int HD>
__global__ void __launch_bounds__(THREADS, 2) attention_dkv_tiles_kernel(BackwardArguments arg) {
    DYNAMIC_SHARED(bf16, smem);
    constexpr int TILE = ROWS * HD;
    bf16 *k_smem = smem, *v_smem = smem + TILE, *q_smem = smem + 2 * TILE, *dout_smem = smem + 4 * TILE;
    RowData* rows_smem = reinterpret_cast<RowData*>(smem + 6 * TILE);  // (2, ROWS)
    const int lane = int(threadIdx.x % WARP), warp = int(threadIdx.x / WARP), kv_head = int(blockIdx.y);
    const int slot0 = int(blockIdx.x) * KEY_TILE;
    const int first = arg.in.tiles.first_query[blockIdx.x], last = arg.in.tiles.first_query[blockIdx.x + 1];

    const auto copy_rows_of = [&](int visit, int stage) {
        const AttentionTiles::QueryTile tile = arg.in.tiles.query_tiles[arg.in.tiles.queries[visit].tile];
        copy_queries<HD, ROWS>(q_smem + stage * TILE, arg.in.q, tile.begin, tile.end, arg.in.group, kv_head);
        copy_queries<HD, ROWS>(dout_smem + stage * TILE, arg.dout, tile.begin, tile.end, arg.in.group,
                               kv_head);
        cp_async_commit();
        const int row = int(threadIdx.x), t = tile.begin + row / arg.in.group,
                  head = kv_head * arg.in.group + row % arg.in.group;
        if (row < ROWS)
            rows_smem[stage * ROWS + row] = t < tile.end ? RowData{visible_slots(arg.in.see[t], slot0),
                                                                   arg.lse[t][head], arg.row_sums[t][head]}
                                                         : RowData{0, 0, 0};
    };
    if (first < last) {
        copy_slots<HD, KEY_TILE>(k_smem, arg.in.k, slot0, arg.in.n_slots, kv_head);
        copy_slots<HD, KEY_TILE>(v_smem, arg.in.v, slot0, arg.in.n_slots, kv_head);
        copy_rows_of(first, 0);
    }

    float dk[HD / 8][4] = {}, dv[HD / 8][4] = {};
    for (int visit = first, stage = 0; visit < last; visit++, stage ^= 1) {
        if (visit + 1 < last) copy_rows_of(visit + 1, stage ^ 1);
        wait_for_stage(visit + 1 < last);
        __syncthreads();  // everybody's copies of this stage, and its row data, have arrived
        const bf16 *q_tile = q_smem + stage * TILE, *dout_tile = dout_smem + stage * TILE;
#pragma unroll 1
        for (int row0 = 0; row0 < ROWS; row0 += HALF) {
            float p[HALF / 8][4], ds[HALF / 8][4];  // transposed: rows are slots, columns query rows
            multiply_rows<HD>(p, k_smem, warp * 16, q_tile, row0);
            multiply_rows<HD>(ds, v_smem, warp * 16, dout_tile, row0);
            for (int j = 0; j < HALF / 8; j++)
                for (int r = 0; r < 4; r++) {
                    const RowData& row = rows_smem[stage * ROWS + row0 + j * 8 + lane % 4 * 2 + r % 2];
                    const bool visible = row.seen >> (warp * 16 + lane / 4 + r / 2 * 8) & 1;
                    p[j][r] = visible ? exp2f((p[j][r] * arg.in.scale - row.lse) * LOG2_E) : 0.0f;
                    ds[j][r] = p[j][r] * (ds[j][r] - row.D) * arg.in.scale;
                }
            add_product<HD>(dv, p, dout_tile, row0);
            add_product<HD>(dk, ds, q_tile, row0);
        }
        __syncthreads();  // everybody is done with this stage before it is overwritten
    }
    for (int half = 0; half < 2; half++) {
        const int slot = slot0 + warp * 16 + lane / 4 + half * 8;
        if (slot >= arg.in.n_slots) continue;
        for (int i = 0; i < HD / 8; i++) {
            const int c = kv_head * HD + i * 8 + lane % 4 * 2;
            store_pack<2>(arg.dk[slot] + c, Pack<bf16, 2>{{from_float<bf16>(dk[i][half * 2]),
                                                           from_float<bf16>(dk[i][half * 2 + 1])}});
            store_pack<2>(arg.dv[slot] + c, Pack<bf16, 2>{{from_float<bf16>(dv[i][half * 2]),
                                                           from_float<bf16>(dv[i][half * 2 + 1])}});
        }
    }
}

// ---- launchers ----

template <int HD>
static void launch_backward(const Context& ctx, const BackwardArguments& arg, int kv_heads) {
    const size_t tiles = size_t(6) * ROWS * HD * sizeof(bf16);
    launch(attention_dq_tiles_kernel<HD>, dim3(unsigned(arg.in.tiles.n_query_tiles), unsigned(kv_heads)),
           THREADS, tiles, ctx.stream, arg);
    launch(attention_dkv_tiles_kernel<HD>, dim3(unsigned(arg.in.tiles.n_key_tiles), unsigned(kv_heads)),
           THREADS, tiles + 2 * ROWS * sizeof(RowData), ctx.stream, arg);
}

void attention_backward_tiles(const Context& ctx, Tensor dq, Tensor dk, Tensor dv, Tensor row_sums,
                              Tensor dout, Tensor lse, const Attention& a, const DeviceTiles& tiles) {
    CHECK(tiles.warps == 4, "attention backward over tiles of %d warps", tiles.warps);
    const BackwardArguments arg =
        backward_arguments(dq, dk, dv, row_sums, dout, lse, tile_arguments(a, tiles));
    switch (a.HD()) {
        case 32: return launch_backward<32>(ctx, arg, a.kv_heads);
        case 64: return launch_backward<64>(ctx, arg, a.kv_heads);
        case 128: return launch_backward<128>(ctx, arg, a.kv_heads);
        default: CHECK(false, "tiled attention of head size %d", a.HD());
    }
}

}  // namespace cuda
