// attention_backward_wgmma.cu -- span attention backward on Hopper's wgmma. See attention.h; tiles of attention_tiles.h.
//
// The scheme of attention_backward.cu: two kernels, each computing scores and dscores again, so that every gradient is
// summed by one block in one order, the heaviest blocks first.
//   dq      a block per query tile of 128 packed rows goes over its key tiles;                   dq += ds k
//   dk, dv  a block per pair of key tiles (128 slots) goes over its query tiles of 64 rows;      dv += p^T dout
//                                                                                                dk += ds^T q
// with p = exp(score - lse), ds = p (dout . v - D), D the row sums of dout * out; the scores' scale is applied to dq and
// dk once, at the end. Each of two warpgroups has 64 rows of the block's tile; they share the tiles that the block goes
// over, which come through three stages of shared memory by cp.async.
//
// A turn of the loop takes one visit. In dk, dv a warpgroup skips a visit whose rows see none of its slots: it only copies
// its share and finishes the product it still owes. Otherwise the visit's scores are issued first, then the product that
// the visit before still owes to dk or dq, then dout . v; the exponentials are computed while these run. In dk, dv the
// product of dv follows, and ds is computed while it runs. P and dS go from accumulators to the A operand of the next
// product in registers. At the end of a turn all products are waited for: if accumulators or operands were in use across
// it, ptxas could no longer tell their registers apart and would serialize the products (it says so). A turn has one
// barrier, between
//   the products that read the stage of two visits before (waited for)   and the copies that overwrite it,
//   the copies of this visit's stage (waited for)                        and the products that read it.
#include "kernels/attention_wgmma.cuh"

namespace cuda {

namespace {

constexpr int GROUPS = 2, THREADS = GROUPS * WARPGROUP_THREADS, STAGES = 3;
constexpr int PAIR_SLOTS = GROUPS * KEY_TILE;        // of a block of dk, dv
constexpr int VISIT_ROWS = 64;                       // query rows it takes at a time
constexpr int QUERY_ROWS = GROUPS * WARPGROUP_ROWS;  // of a block of dq
static_assert(QUERY_ROWS == 16 * WGMMA_WARPS);

__device__ inline int stage_after(int stage) { return stage + 1 < STAGES ? stage + 1 : 0; }
__device__ inline int stage_before(int stage) { return stage > 0 ? stage - 1 : STAGES - 1; }

// blockIdx.x in a way that the compiler cannot know: what a kernel's end needs is made again from it. Kept, it would take
// registers from the products.
__device__ inline int block_again() { return __shfl_sync(FULL_WARP, int(blockIdx.x), 0); }

// Issues d (64, 8 NT) = A B^T over HD: A the rows from a_row0 on of a tile, B all rows of a tile.
template <int HD, int A_ROWS, int NT>
__device__ inline void issue_tiles_product(float (&d)[NT][4], const bf16* a_tile, int a_row0,
                                           const bf16* b_tile) {
    const uint64_t a = k_major_descriptor<A_ROWS>(a_tile, a_row0, 0),
                   b = k_major_descriptor<8 * NT>(b_tile, 0, 0);
#pragma unroll
    for (int k = 0; k < HD / 16; k++)  // 16 columns further, or to the next panel of 64
        wgmma(d, further(a, k / 4 * A_ROWS * 128 + k % 4 * 32), further(b, k / 4 * 8 * NT * 128 + k % 4 * 32),
              k > 0);
}

// A thread's part of one of its two rows, scaled, to partial results.
template <int NT>
__device__ inline void store_part(float* row, const float (&acc)[NT][4], int half, float scale) {
    const int column = int(threadIdx.x) % 4 * 2;
#pragma unroll
    for (int j = 0; j < NT; j++)
        store_pack<2>(row + j * 8 + column,
                      Pack<float, 2>{{acc[j][half * 2] * scale, acc[j][half * 2 + 1] * scale}});
}

// Of row `row` of partial results (parts, 2, PAIR_SLOTS, HD): dk, then dv.
template <int HD>
__device__ inline size_t part_offset(int part, int row) {
    return (size_t(part) * 2 * PAIR_SLOTS + size_t(row)) * HD;
}

// ---- dk, dv ----

// What the rows of a staged query tile need beside q and dout.
struct alignas(16) VisitRows {
    float lse[VISIT_ROWS];  // times log2(e); rows that are not there: infinity
    float D[VISIT_ROWS];
    // Of a warpgroup's 64 slots the first 32 and the others. Written where it needs a mask: visit.seen, and not full.
    uint32_t seen[GROUPS][2][VISIT_ROWS];
    KeyPairs::Visit visit;  // comes a turn before all else
};

template <int HD>
constexpr size_t DKV_SHARED =
    size_t(2 * PAIR_SLOTS + 2 * STAGES * VISIT_ROWS) * HD * sizeof(bf16) + STAGES * sizeof(VisitRows);

template <int HD>
__global__ void __launch_bounds__(THREADS, 1)
    attention_dkv_wgmma_kernel(BackwardArguments arg, DeviceKeyPairs pairs, float* parts) {
    DYNAMIC_SHARED_TILES(bf16, smem);
    constexpr int TILE = VISIT_ROWS * HD;
    bf16 *k_smem = smem, *v_smem = k_smem + PAIR_SLOTS * HD, *q_smem = v_smem + PAIR_SLOTS * HD,
         *dout_smem = q_smem + STAGES * TILE;
    VisitRows* rows_smem = reinterpret_cast<VisitRows*>(dout_smem + STAGES * TILE);
    const int kv_head = int(blockIdx.x) % arg.in.kv_heads;
    const auto piece_of = [&](int block) { return pairs.pieces[block / arg.in.kv_heads]; };
    const KeyPairs::Piece piece = piece_of(int(blockIdx.x));
    const KeyPairs::Visit* visits = pairs.visits;
    const int thread = int(threadIdx.x), wg = __shfl_sync(FULL_WARP, thread / WARPGROUP_THREADS, 0),
              warp = thread / WARP % 4, lane = thread % WARP, slot0 = piece.pair * PAIR_SLOTS + wg * KEY_TILE;
    const PackedRows packed(arg.in.group);

    // Whether the visit's rows see any of the warpgroup's slots, and whether they see them all.
    const auto concerns = [&](const KeyPairs::Visit& visit) { return visit.seen >> wg & 1; };
    const auto full_of = [&](const KeyPairs::Visit& visit) { return visit.full >> wg & 1; };
    const auto copy_stage = [&](int stage) {
        const KeyPairs::Visit& visit = rows_smem[stage].visit;
        const int n = (visit.end - visit.begin) * packed.group;
        packed.copy<HD, VISIT_ROWS, VISIT_ROWS, THREADS>(q_smem + stage * TILE, arg.in.q, visit.begin, n,
                                                         kv_head, 0, thread);
        packed.copy<HD, VISIT_ROWS, VISIT_ROWS, THREADS>(dout_smem + stage * TILE, arg.dout, visit.begin, n,
                                                         kv_head, 0, thread);
        cp_async_commit();
    };
    const auto write_rows = [&](int stage) {
        VisitRows& to = rows_smem[stage];
        const KeyPairs::Visit& visit = to.visit;
        const int n = (visit.end - visit.begin) * packed.group, row = thread % VISIT_ROWS;
        const int token = packed.token(row), t = visit.begin + token,
                  head = kv_head * packed.group + row - token * packed.group;
        if (thread % WARPGROUP_THREADS < VISIT_ROWS) {
            if (full_of(visit) || !concerns(visit)) return;
            const uint64_t seen = row < n ? visible_slots(arg.in.see[t], slot0) : 0;
            to.seen[wg][0][row] = uint32_t(seen), to.seen[wg][1][row] = uint32_t(seen >> 32);
        } else if (wg == 0) {
            to.lse[row] = row < n ? arg.lse[t][head] * LOG2_E : INFINITY;
        } else {
            to.D[row] = row < n ? arg.row_sums[t][head] : 0.0f;
        }
    };

    float dk[HD / 8][4], dv[HD / 8][4];
#pragma unroll
    for (int j = 0; j < HD / 8; j++)
#pragma unroll
        for (int r = 0; r < 4; r++) dk[j][r] = dv[j][r] = 0;
    warpgroup_fence(dk);
    warpgroup_fence(dv);

    if (piece.first_visit < piece.end_visit) {
        // transposed: rows are slots, columns query rows
        float p[VISIT_ROWS / 8][4], ds[VISIT_ROWS / 8][4];
        uint32_t p_regs[VISIT_ROWS / 16][4], ds_regs[VISIT_ROWS / 16][4];
        const float scale = arg.in.scale * LOG2_E;
        const auto issue_scores = [&](int stage) {
            warpgroup_forget(p);
            wgmma_fence();
            issue_tiles_product<HD, PAIR_SLOTS>(p, k_smem, wg * KEY_TILE, q_smem + stage * TILE);
            wgmma_commit();
        };
        const auto probabilities = [&](const VisitRows& rows, bool full) {
            const int bit = warp % 2 * 16 + lane / 4;
#pragma unroll
            for (int j = 0; j < VISIT_ROWS / 8; j++) {
                const int row = j * 8 + lane % 4 * 2;
                const Pack<float, 2> lse = load_pack<2>(rows.lse + row);
                Pack<uint32_t, 2> seen{{~0u, ~0u}};
                if (!full) seen = load_pack<2>(rows.seen[wg][warp / 2] + row);
#pragma unroll
                for (int r = 0; r < 4; r++) {
                    const float x = exp2_approx(p[j][r] * scale - lse.v[r % 2]);
                    p[j][r] = full || (seen.v[r % 2] >> (bit + r / 2 * 8) & 1) ? x : 0.0f;
                }
            }
        };

        const int last = piece.end_visit - 1;
        int visit = piece.first_visit, stage = 0;
        copy_slots_for_wgmma<HD, PAIR_SLOTS, THREADS>(k_smem, arg.in.k, piece.pair * PAIR_SLOTS,
                                                      arg.in.n_slots, kv_head, thread);
        copy_slots_for_wgmma<HD, PAIR_SLOTS, THREADS>(v_smem, arg.in.v, piece.pair * PAIR_SLOTS,
                                                      arg.in.n_slots, kv_head, thread);
        if (thread < 2) rows_smem[thread].visit = visits[min(visit + thread, last)];
        __syncthreads();  // the first visits are there
        copy_stage(0);
        write_rows(0);
        // owed: the visit before concerned the warpgroup, and its product of dk is still to be issued
        bool concerned = concerns(rows_smem[0].visit), owed = false;
        const auto copy_next = [&] {
            if (thread == 0)
                cp_async_16(&rows_smem[stage_before(stage)].visit, visits + min(visit + 2, last), true);
            copy_stage(stage_after(stage));
        };
        const auto issue_owed_dk = [&](int stage) {
            warpgroup_fence(ds_regs);
            warpgroup_fence(dk);
            wgmma_fence();
            issue_columns_product<HD, VISIT_ROWS>(dk, ds_regs, q_smem + stage * TILE, 0);
        };
        const auto finish_dk = [&](int stage) {
            issue_owed_dk(stage);
            wgmma_commit();
            wgmma_wait<0>();
            warpgroup_fence(dk);
        };
        const auto take = [&] {
            issue_scores(stage);
            if (visit < last) copy_next();
            if (owed) issue_owed_dk(stage_before(stage));
            warpgroup_forget(ds);
            wgmma_fence();
            issue_tiles_product<HD, PAIR_SLOTS>(ds, v_smem, wg * KEY_TILE, dout_smem + stage * TILE);
            wgmma_commit();
            if (visit < last) write_rows(stage_after(stage));

            const VisitRows& rows = rows_smem[stage];
            wgmma_wait<1>();  // for the scores
            warpgroup_fence(p);
            if (full_of(rows.visit))
                probabilities(rows, true);
            else
                probabilities(rows, false);
#pragma unroll
            for (int e = 0; e < VISIT_ROWS / 16; e++) accumulators_as_a(p_regs[e], p[2 * e], p[2 * e + 1]);
            warpgroup_fence(p_regs);
            warpgroup_fence(dv);
            wgmma_fence();
            issue_columns_product<HD, VISIT_ROWS>(dv, p_regs, dout_smem + stage * TILE, 0);
            wgmma_commit();
            wgmma_wait<1>();  // for dout . v, and the product that read ds_regs
            warpgroup_fence(ds);
#pragma unroll
            for (int j = 0; j < VISIT_ROWS / 8; j++) {
                const Pack<float, 2> D = load_pack<2>(rows.D + j * 8 + lane % 4 * 2);
#pragma unroll
                for (int r = 0; r < 4; r++) {
                    const uint32_t pair = p_regs[j / 2][j % 2 * 2 + r / 2];
                    ds[j][r] =
                        __uint_as_float(r % 2 ? pair & 0xffff0000u : pair << 16) * (ds[j][r] - D.v[r % 2]);
                }
            }
#pragma unroll
            for (int e = 0; e < VISIT_ROWS / 16; e++) accumulators_as_a(ds_regs[e], ds[2 * e], ds[2 * e + 1]);
            wgmma_wait<0>();  // for the product that read p_regs
            warpgroup_fence(dv);
        };
        const auto pass_by = [&] {  // no row sees any of the warpgroup's slots
            if (visit < last) {
                copy_next();
                write_rows(stage_after(stage));
            }
            if (owed) finish_dk(stage_before(stage));
        };
        while (visit <= last) {
            cp_async_wait<0>();
            fence_proxy_async();
            __syncthreads();  // this stage is there, the one to be overwritten has been read
            if (concerned)
                take();
            else
                pass_by();
            owed = concerned;
            stage = stage_after(stage);
            concerned = concerns(rows_smem[stage].visit);
            visit++;
        }
        if (owed) finish_dk(stage_before(stage));
        warpgroup_fence(dv);
    }
    const KeyPairs::Piece mine = piece_of(block_again());
#pragma unroll
    for (int half = 0; half < 2; half++) {
        const int row = wg * KEY_TILE + warp * 16 + lane / 4 + half * 8, slot = mine.pair * PAIR_SLOTS + row;
        if (mine.part >= 0) {
            float* part = parts + part_offset<HD>(mine.part * arg.in.kv_heads + kv_head, row);
            store_part(part, dk, half, arg.in.scale);
            store_part(part + PAIR_SLOTS * HD, dv, half, 1.0f);
        } else {
            const bool there = slot < arg.in.n_slots;
            const int to = there ? slot : 0;
            store_row<HD>(arg.dk[to] + kv_head * HD, there, dk, half, arg.in.scale);
            store_row<HD>(arg.dv[to] + kv_head * HD, there, dv, half, 1.0f);
        }
    }
}

// The sums of a split pair's parts, in order.
template <int HD>
__global__ void __launch_bounds__(THREADS)
    attention_dkv_join_kernel(BackwardArguments arg, DeviceKeyPairs pairs, const float* parts) {
    const int kv_head = int(blockIdx.x) % arg.in.kv_heads;
    const KeyPairs::Join join = pairs.joins[int(blockIdx.x) / arg.in.kv_heads];
    const int pack = int(blockIdx.y) * THREADS + int(threadIdx.x), row = pack / (HD / 2),
              col = pack % (HD / 2) * 2,
              slot = join.pair * PAIR_SLOTS + row % PAIR_SLOTS;  // of dk, then of dv
    if (slot >= arg.in.n_slots) return;
    Pack<float, 2> sum{};
    for (int part = join.first_part; part < join.end_part; part++) {
        const Pack<float, 2> x =
            load_pack<2>(parts + part_offset<HD>(part * arg.in.kv_heads + kv_head, row) + col);
        sum.v[0] += x.v[0], sum.v[1] += x.v[1];
    }
    bf16* to = (row < PAIR_SLOTS ? arg.dk : arg.dv)[slot] + kv_head * HD + col;
    store_pack<2>(to, Pack<bf16, 2>{{from_float<bf16>(sum.v[0]), from_float<bf16>(sum.v[1])}});
}

// ---- dq ----

template <int HD>
constexpr size_t DQ_SHARED =
    size_t(2 * QUERY_ROWS + 2 * STAGES * KEY_TILE) * HD * sizeof(bf16) + QUERY_ROWS * sizeof(AttentionSpans);

template <int HD>
__global__ void __launch_bounds__(THREADS, 1) attention_dq_wgmma_kernel(BackwardArguments arg) {
    DYNAMIC_SHARED_TILES(bf16, smem);
    constexpr int TILE = KEY_TILE * HD;
    bf16 *q_smem = smem, *dout_smem = q_smem + QUERY_ROWS * HD, *k_smem = dout_smem + QUERY_ROWS * HD,
         *v_smem = k_smem + STAGES * TILE;
    AttentionSpans* see_smem = reinterpret_cast<AttentionSpans*>(v_smem + STAGES * TILE);  // by token
    const int kv_head = int(blockIdx.x) % arg.in.kv_heads;
    const auto tile_of = [&](int block) {
        return arg.in.tiles.query_tiles[arg.in.tiles.pieces[block / arg.in.kv_heads].query_tile];
    };
    const AttentionTiles::QueryTile tile = tile_of(int(blockIdx.x));
    const AttentionTiles::Visit* visits = arg.in.tiles.keys;
    const int thread = int(threadIdx.x), warp = thread / WARP, lane = thread % WARP;

    const PackedRows packed(arg.in.group);
    const int row0 = warp * 16 + lane / 4, rows = (tile.end - tile.begin) * packed.group;
    float lse[2], D[2];  // of rows row0 and row0 + 8
#pragma unroll
    for (int half = 0; half < 2; half++) {
        const int row = row0 + half * 8, token = packed.token(row), t = tile.begin + token,
                  head = kv_head * packed.group + row - token * packed.group;
        lse[half] = row < rows ? arg.lse[t][head] * LOG2_E : INFINITY;
        D[half] = row < rows ? arg.row_sums[t][head] : 0.0f;
    }
    float dq[HD / 8][4];
#pragma unroll
    for (int j = 0; j < HD / 8; j++)
#pragma unroll
        for (int r = 0; r < 4; r++) dq[j][r] = 0;
    warpgroup_fence(dq);

    if (tile.first_visit < tile.end_visit) {
        float p[KEY_TILE / 8][4], ds[KEY_TILE / 8][4];
        uint32_t q_regs[HD / 16][4], dout_regs[HD / 16][4], ds_regs[KEY_TILE / 16][4];
        const float scale = arg.in.scale * LOG2_E;
        const auto copy_stage = [&](int key_tile, int stage) {
            copy_slots_for_wgmma<HD, KEY_TILE, THREADS>(k_smem + stage * TILE, arg.in.k, key_tile * KEY_TILE,
                                                        arg.in.n_slots, kv_head, thread);
            copy_slots_for_wgmma<HD, KEY_TILE, THREADS>(v_smem + stage * TILE, arg.in.v, key_tile * KEY_TILE,
                                                        arg.in.n_slots, kv_head, thread);
            cp_async_commit();
        };

        if (thread < QUERY_ROWS)
            see_smem[thread] =
                tile.begin + thread < tile.end ? arg.in.see[tile.begin + thread] : AttentionSpans{};
        packed.copy<HD, QUERY_ROWS, QUERY_ROWS, THREADS>(q_smem, arg.in.q, tile.begin, rows, kv_head, 0,
                                                         thread);
        packed.copy<HD, QUERY_ROWS, QUERY_ROWS, THREADS>(dout_smem, arg.dout, tile.begin, rows, kv_head, 0,
                                                         thread);
        const int last = tile.end_visit - 1;
        AttentionTiles::Visit now = visits[tile.first_visit], next = visits[min(tile.first_visit + 1, last)];
        copy_stage(now.tile, 0);
        const auto take = [&](int visit, int stage, auto is_first) {
            cp_async_wait<0>();
            fence_proxy_async();
            __syncthreads();  // this stage is there (and the spans), the one to be overwritten has been read
            if constexpr (is_first) {
                load_rows_as_a<HD, QUERY_ROWS>(q_regs, q_smem, warp * 16);
                load_rows_as_a<HD, QUERY_ROWS>(dout_regs, dout_smem, warp * 16);
                warpgroup_fence(q_regs);
                warpgroup_fence(dout_regs);
            }
            warpgroup_forget(p);
            wgmma_fence();
            issue_rows_product<HD, KEY_TILE>(p, q_regs, k_smem + stage * TILE, 0);
            wgmma_commit();
            if (visit < last) copy_stage(next.tile, stage_after(stage));
            warpgroup_forget(ds);
            wgmma_fence();
            issue_rows_product<HD, KEY_TILE>(ds, dout_regs, v_smem + stage * TILE, 0);
            wgmma_commit();
            if constexpr (!is_first) {
                warpgroup_fence(ds_regs);
                warpgroup_fence(dq);
                wgmma_fence();
                issue_columns_product<HD, KEY_TILE>(dq, ds_regs, k_smem + stage_before(stage) * TILE, 0);
            }
            wgmma_commit();  // at first an empty group

            wgmma_wait<2>();  // for q . k
            warpgroup_fence(p);
#pragma unroll
            for (int j = 0; j < KEY_TILE / 8; j++)
#pragma unroll
                for (int r = 0; r < 4; r++) p[j][r] = exp2_approx(p[j][r] * scale - lse[r / 2]);
            if (!now.full) {
                uint64_t seen[2];
#pragma unroll
                for (int half = 0; half < 2; half++)
                    seen[half] =
                        visible_slots(see_smem[packed.token(row0 + half * 8)], now.tile * KEY_TILE) >>
                        lane % 4 * 2;
#pragma unroll
                for (int j = 0; j < KEY_TILE / 8; j++)
#pragma unroll
                    for (int r = 0; r < 4; r++) p[j][r] = seen[r / 2] >> (j * 8 + r % 2) & 1 ? p[j][r] : 0.0f;
            }
            wgmma_wait<1>();  // for dout . v
            warpgroup_fence(ds);
#pragma unroll
            for (int j = 0; j < KEY_TILE / 8; j++)
#pragma unroll
                for (int r = 0; r < 4; r++) ds[j][r] = p[j][r] * (ds[j][r] - D[r / 2]);
            wgmma_wait<0>();  // for the product that read ds_regs
            warpgroup_fence(ds_regs);
#pragma unroll
            for (int e = 0; e < KEY_TILE / 16; e++) accumulators_as_a(ds_regs[e], ds[2 * e], ds[2 * e + 1]);
            now = next, next = visits[min(visit + 2, last)];
        };
        take(tile.first_visit, 0, std::true_type());
        int stage = 0;
        for (int visit = tile.first_visit + 1; visit <= last; visit++) {
            stage = stage_after(stage);
            take(visit, stage, std::false_type());
        }
        warpgroup_fence(ds_regs);
        warpgroup_fence(dq);
        wgmma_fence();
        issue_columns_product<HD, KEY_TILE>(dq, ds_regs, k_smem + stage * TILE, 0);
        wgmma_commit();
        wgmma_wait<0>();
        warpgroup_fence(dq);
    }
    const int block = block_again();
    const AttentionTiles::QueryTile mine = tile_of(block);
#pragma unroll
    for (int half = 0; half < 2; half++) {
        const int row = row0 + half * 8, token = packed.token(row),
                  head = block % arg.in.kv_heads * packed.group + row - token * packed.group;
        const bool there = mine.begin + token < mine.end;
        store_row<HD>(arg.dq[there ? mine.begin + token : mine.begin] + head * HD, there, dq, half,
                      arg.in.scale);
    }
}

// ---- launchers ----

template <int HD>
void launch_backward(const Context& ctx, const BackwardArguments& arg, const DeviceKeyPairs& pairs) {
    const unsigned kv_heads = unsigned(arg.in.kv_heads);
    launch_on_hopper(attention_dq_wgmma_kernel<HD>, unsigned(arg.in.tiles.n_query_tiles) * kv_heads, THREADS,
                     DQ_SHARED<HD>, ctx.stream, arg);
    float* parts = ctx.workspace.take<float>(size_t(pairs.parts) * kv_heads * 2 * PAIR_SLOTS * HD);
    launch_on_hopper(attention_dkv_wgmma_kernel<HD>, unsigned(pairs.n_pieces) * kv_heads, THREADS,
                     DKV_SHARED<HD>, ctx.stream, arg, pairs, parts);
    if (pairs.n_joins)
        launch(attention_dkv_join_kernel<HD>,
               dim3(unsigned(pairs.n_joins) * kv_heads, 2 * PAIR_SLOTS * HD / 2 / THREADS), THREADS, 0,
               ctx.stream, arg, pairs, static_cast<const float*>(parts));
}

}  // namespace

size_t pair_part_bytes(const Attention& a) { return size_t(2 * PAIR_SLOTS * a.HD()) * sizeof(float); }

void attention_backward_wgmma(const Context& ctx, Tensor dq, Tensor dk, Tensor dv, Tensor row_sums,
                              Tensor dout, Tensor lse, const Attention& a, const DeviceTiles& tiles,
                              const DeviceKeyPairs& pairs) {
    CHECK(tiles.warps == WGMMA_WARPS, "attention backward on wgmma over tiles of %d warps", tiles.warps);
    const BackwardArguments arg =
        backward_arguments(dq, dk, dv, row_sums, dout, lse, tile_arguments(a, tiles));
    if (a.HD() == 64)
        launch_backward<64>(ctx, arg, pairs);
    else
        launch_backward<128>(ctx, arg, pairs);
}

}  // namespace cuda
