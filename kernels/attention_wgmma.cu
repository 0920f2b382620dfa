// attention_wgmma.cu -- span attention forward of many rows on Hopper's wgmma. See attention.h; tiles of
// attention_tiles.h.
//
// A block computes query tiles of 128 packed rows, 64 for each of its two warpgroups, each for one key/value head,
// one after the other; there are as many blocks as multiprocessors. Queries live in registers. Keys and values of
// the key tiles come through a ring of stages by cp.async, without a pause between query tiles: while one's last
// visits are computed, the next one's first are copied. In a warpgroup the products run beside the softmax: scores
// of the next key tile and the output of the current one are issued together, and the next key tile's exponentials
// are computed while the latter runs; the two warpgroups overlap as well.
// The softmax is online, in base 2, and lazy: a row's base moves only when its maximum has outgrown it by 2^LAZY, so
// that the output is seldom scaled.
//   shared memory: q (ROWS, HD), then k and v (KEY_TILE, HD) for each stage
#include <algorithm>

#include "kernels/attention_wgmma.cuh"

namespace cuda {

constexpr int ROWS = 16 * WGMMA_WARPS, THREADS = WGMMA_WARPS * WARP, STAGES = 6, AHEAD = STAGES - 2;
constexpr float LAZY = 8;  // probabilities, and their sums, are at most 2^LAZY too large for a while

// ---- kernels ----

struct WgmmaForwardArguments {
    TileArguments in;
    DeviceRows<bf16> out;
    DeviceRows<float> lse;
};

// -infinity where a row does not see the slot. `seen` is of rows lane / 4 and lane / 4 + 8.
__device__ inline void hide_unseen(float (&s)[KEY_TILE / 8][4], const uint64_t (&seen)[2]) {
    const int column = int(threadIdx.x) % 4 * 2;
#pragma unroll
    for (int half = 0; half < 2; half++) {
        const uint64_t mine = seen[half] >> column;
#pragma unroll
        for (int j = 0; j < KEY_TILE / 8; j++)
#pragma unroll
            for (int r = 0; r < 2; r++)
                if (!(mine >> (j * 8 + r) & 1)) s[j][half * 2 + r] = -INFINITY;
    }
}

// Turns products q k into probabilities relative to the rows' bases m (in units of products; `to_base_2` makes them
// exponents) and adds them to l. `keep` is what the output so far is to be multiplied by.
__device__ inline void lazy_softmax(float (&s)[KEY_TILE / 8][4], float (&m)[2], float (&l)[2],
                                    float (&keep)[2], float to_base_2) {
#pragma unroll
    for (int half = 0; half < 2; half++) {  // rows lane / 4 and lane / 4 + 8
        const int h = half * 2;
        float left = s[0][h], right = s[0][h + 1];  // two chains each, of maxima and sums
#pragma unroll
        for (int j = 1; j < KEY_TILE / 8; j++) left = fmaxf(left, s[j][h]), right = fmaxf(right, s[j][h + 1]);
        float top = fmaxf(left, right);
#pragma unroll
        for (int x = 1; x < 4; x *= 2) top = fmaxf(top, __shfl_xor_sync(FULL_WARP, top, x));
        const bool moves = (top - m[half]) * to_base_2 > LAZY;
        const float base = moves ? top : m[half];
        const float shift = base == -INFINITY ? 0.0f : base * to_base_2;  // nothing seen so far: all are 0
        keep[half] = moves ? exp2_approx(m[half] * to_base_2 - shift) : 1.0f;
        m[half] = base;
        left = right = 0;
#pragma unroll
        for (int j = 0; j < KEY_TILE / 8; j++) {
            left += s[j][h] = exp2_approx(s[j][h] * to_base_2 - shift);
            right += s[j][h + 1] = exp2_approx(s[j][h + 1] * to_base_2 - shift);
        }
        l[half] = l[half] * keep[half] + (left + right);
    }
}

// The probabilities of a key tile as the A operand of their product with its values.
__device__ inline void as_operand(uint32_t (&p)[KEY_TILE / 16][4], const float (&s)[KEY_TILE / 8][4]) {
#pragma unroll
    for (int k = 0; k < KEY_TILE / 16; k++) accumulators_as_a(p[k], s[2 * k], s[2 * k + 1]);
}

// A query tile for one key/value head. There is none where end is 0.
struct WgmmaTile {
    int begin, end;  // tokens
    int first, n;    // visits
    int kv_head;
};

template <int HD>
__global__ void __launch_bounds__(THREADS, 1) attention_forward_wgmma_kernel(WgmmaForwardArguments arg) {
    DYNAMIC_SHARED_TILES(bf16, q_smem);
    constexpr int KEYS = KEY_TILE * HD;
    bf16* stages = q_smem + ROWS * HD;
    const int thread = int(threadIdx.x), lane = thread % WARP, warp = thread / WARP, warpgroup = warp / 4,
              row0 = warp * 16 + lane / 4;
    const float to_base_2 = arg.in.scale * LOG2_E;
    const PackedRows packed(arg.in.group);

    // Tiles are dealt out back and forth, the longest first, so that all blocks get as much.
    const auto tile_of = [&](int round) -> WgmmaTile {
        const int blocks = int(gridDim.x), block = int(blockIdx.x),
                  i = round * blocks + (round % 2 ? blocks - 1 - block : block), kv_heads = arg.in.kv_heads;
        if (i >= arg.in.tiles.n_pieces * kv_heads) return {};
        const AttentionTiles::Piece p = arg.in.tiles.pieces[i / kv_heads];
        return {p.begin, p.end, p.first_visit, p.end_visit - p.first_visit, i % kv_heads};
    };
    WgmmaTile now = tile_of(0), next = tile_of(1);
    int stage0 = 0;  // of this tile's first visit; the visits of all tiles go round the stages
    const auto k_tile = [&](int visit) { return stages + unsigned(stage0 + visit) % STAGES * 2 * KEYS; };
    const auto v_tile = [&](int visit) { return k_tile(visit) + KEYS; };
    // One group of copies: of this tile's visit, behind its last of the next tile's; empty behind those.
    const auto copy = [&](int visit) {
        const bool mine = visit < now.n;
        const int i = mine ? visit : visit - now.n, kv_head = mine ? now.kv_head : next.kv_head;
        if (i < (mine ? now.n : next.n)) {
            const int slot0 = arg.in.tiles.keys[(mine ? now.first : next.first) + i].tile * KEY_TILE;
            copy_slots_for_wgmma<HD, KEY_TILE, THREADS>(k_tile(visit), arg.in.k, slot0, arg.in.n_slots,
                                                        kv_head, thread);
            copy_slots_for_wgmma<HD, KEY_TILE, THREADS>(v_tile(visit), arg.in.v, slot0, arg.in.n_slots,
                                                        kv_head, thread);
        }
        cp_async_commit();
    };
    // A warp's own rows, which nobody else reads.
    const auto copy_queries = [&](const WgmmaTile& tile) {
        if (tile.n > 0)
            packed.copy<HD, ROWS, 16, WARP>(q_smem, arg.in.q, tile.begin,
                                            (tile.end - tile.begin) * packed.group, tile.kv_head, warp * 16,
                                            lane);
        cp_async_commit();
    };

    copy_queries(now);
    int ahead = 0;  // visits of this tile whose copies were issued before it began
    for (int round = 0; now.end > 0; round++) {
        const int n = now.n;
        for (int visit = ahead; visit < (n > 0 ? AHEAD : AHEAD - 1); visit++) copy(visit);
        AttentionSpans see[2];
#pragma unroll
        for (int half = 0; half < 2; half++) {
            const int t = now.begin + packed.token(row0 + half * 8);
            see[half] = t < now.end ? arg.in.see[t] : AttentionSpans{};
        }
        float o[HD / 8][4] = {}, m[2] = {-INFINITY, -INFINITY}, l[2] = {}, keep[2];
        if (n > 0) {
            float s[KEY_TILE / 8][4];
            uint32_t q[HD / 16][4], p[KEY_TILE / 16][4];
            const auto probabilities = [&](AttentionTiles::Visit keys) {
                if (!keys.full) {
                    uint64_t seen[2];
                    for (int half = 0; half < 2; half++)
                        seen[half] = visible_slots(see[half], keys.tile * KEY_TILE);
                    hide_unseen(s, seen);
                }
                lazy_softmax(s, m, l, keep, to_base_2);
            };
            cp_async_wait<1>();  // all but the fourth visit
            fence_proxy_async();
            __syncthreads();  // everybody's copies of three visits have arrived
            load_rows_as_a<HD, ROWS>(q, q_smem, warp * 16);
            warpgroup_fence(q);
            warpgroup_fence(s);
            wgmma_fence();
            issue_rows_product<HD, KEY_TILE>(s, q, k_tile(0), 0);
            wgmma_commit();
            wgmma_wait<0>();
            warpgroup_fence(s);
            probabilities(arg.in.tiles.keys[now.first]);
            as_operand(p, s);
            // The warpgroups take turns: the second issues the products of a visit when the first has its scores for it,
            // the first those of the next visit when the second has. So one computes exponentials while the other's are
            // multiplied.
            if (warpgroup == 1 && n > 1) named_barrier_sync(1, THREADS);  // the first one's turn is over
            for (int visit = 0; visit < n - 1; visit++) {
                const AttentionTiles::Visit keys = arg.in.tiles.keys[now.first + visit + 1];
                warpgroup_fence(s);
                warpgroup_fence(o);
                warpgroup_fence(p);
                wgmma_fence();
                issue_rows_product<HD, KEY_TILE>(s, q, k_tile(visit + 1), 0);
                wgmma_commit();
                wgmma_fence();
                issue_columns_product<HD, KEY_TILE>(o, p, v_tile(visit), 0);
                wgmma_commit();
                // Before the next copy: the fence may wait for all that is under way.
                cp_async_wait<AHEAD - 3>();  // visit + 2 has arrived
                fence_proxy_async();
                copy(visit + AHEAD);
                wgmma_wait<1>();
                warpgroup_fence(s);
                // The other warpgroup may go on to visit + 1: this one's copies of visit + 2 have arrived, and it is done
                // with visit - 1, whose stage the next copy overwrites.
                named_barrier_arrive(1 + warpgroup, THREADS);
                probabilities(keys);
                // Likewise the other one's. Sums of exponentials are never negative, but the compiler does not know that:
                // for the barrier's number it has to compute them before the waits, where otherwise it would do so after
                // them.
                named_barrier_sync(2 - warpgroup + 2 * int(l[0] + l[1] < 0), THREADS);
                wgmma_wait<0>();
                warpgroup_fence(o);
                warpgroup_fence(p);
                if (__ballot_sync(FULL_WARP, keep[0] != 1 || keep[1] != 1)) {
#pragma unroll
                    for (int i = 0; i < HD / 8; i++)
#pragma unroll
                        for (int r = 0; r < 4; r++) o[i][r] *= keep[r / 2];
                }
                as_operand(p, s);
            }
            if (warpgroup == 0 && n > 1) named_barrier_arrive(1, THREADS);  // its last turn
            warpgroup_fence(o);
            warpgroup_fence(p);
            wgmma_fence();
            issue_columns_product<HD, KEY_TILE>(o, p, v_tile(n - 1), 0);
            wgmma_commit();
            copy_queries(next);
            wgmma_wait<0>();
            warpgroup_fence(o);
        } else {
            copy_queries(next);
        }
#pragma unroll
        for (int half = 0; half < 2; half++) {
            for (int x = 1; x < 4; x *= 2) l[half] += __shfl_xor_sync(FULL_WARP, l[half], x);
            const float inverse = l[half] > 0 ? 1.0f / l[half] : 0.0f;
            const int row = row0 + half * 8, token = packed.token(row), t = now.begin + token,
                      head = now.kv_head * packed.group + row - token * packed.group;
            const bool there = t < now.end;
            if (lane % 4 == 0 && there)
                arg.lse[t][head] = l[half] > 0 ? (m[half] * to_base_2 + log2f(l[half])) * LN_2 : -INFINITY;
            store_row<HD>(arg.out[there ? t : now.begin] + head * HD, there, o, half, inverse);
        }
        stage0 = int(unsigned(stage0 + n) % STAGES);
        ahead = min(next.n, AHEAD - 1);
        now = next;
        next = tile_of(round + 2);
    }
    cp_async_wait<0>();  // groups behind the last visit are empty, but there
}

// ---- launchers ----

bool attention_on_wgmma(const Attention& a) { return device_has_wgmma() && (a.HD() == 64 || a.HD() == 128); }

template <int HD>
static void launch_forward(const Context& ctx, const WgmmaForwardArguments& arg) {
    launch_on_hopper(attention_forward_wgmma_kernel<HD>,
                     std::min(arg.in.tiles.n_pieces * arg.in.kv_heads, multiprocessors()), THREADS,
                     size_t(ROWS + 2 * STAGES * KEY_TILE) * HD * sizeof(bf16), ctx.stream, arg);
}

void attention_forward_wgmma(const Context& ctx, Tensor out, Tensor lse, const Attention& a,
                             const DeviceTiles& tiles) {
    CHECK(tiles.warps == WGMMA_WARPS && tiles.n_joins == 0,
          "attention on wgmma over tiles of %d warps, %d split", tiles.warps, tiles.n_joins);
    const WgmmaForwardArguments arg{
        .in = tile_arguments(a, tiles), .out = device_rows<bf16>(out), .lse = device_rows<float>(lse)};
    switch (a.HD()) {
        case 64: return launch_forward<64>(ctx, arg);
        case 128: return launch_forward<128>(ctx, arg);
        default: CHECK(false, "attention on wgmma of head size %d", a.HD());
    }
}

}  // namespace cuda
