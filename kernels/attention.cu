// attention.cu -- span attention forward on tensor cores. See attention.h; tiles of attention_tiles.h.
//
// A block of four warps computes a piece of a query tile for one key/value head. A tile has 64, 32 or 16 packed rows,
// 16 to a warp; so the four warps are 1, 2 or 4 groups, which share out the 64 slots of every key tile. Prefill and
// training fill 64 rows; the tile of a decoding sequence has few, and its further warps are there to keep more loads in
// flight. A group copies its own slots of the keys and values, in two stages by cp.async, and skips those that no row
// sees. Scores, probabilities and the output live in registers; each group has an online softmax (in base 2) of its own;
// at the end the groups are joined in shared memory, in order. Where there are too few tiles for the device, their keys
// are cut into pieces, whose results a second kernel joins.
//   shared memory: q (rows, HD), k and v (2, KEY_TILE, HD) each; at the end the warps' results instead
#include <algorithm>
#include <type_traits>

#include "kernels/attention_tile.cuh"
#include "kernels/device/wgmma.h"

namespace cuda {

constexpr int WARPS = 4, THREADS = WARPS * WARP;

// ---- kernels ----

struct ForwardArguments {
    TileArguments in;
    DeviceRows<bf16> out;
    DeviceRows<float> lse;
    float *part_out, *part_lse;  // (parts, kv_heads, rows of a tile, HD) and without HD
    int rows;                    // of a tile
    __device__ int64_t part_row(int part, int kv_head, int row) const {
        return (int64_t(part) * in.kv_heads + kv_head) * rows + row;
    }
};

// What 16 rows, of which a lane has two, have gathered from the keys so far: the output before its division by l.
template <int HD>
struct RowSums {
    float o[HD / 8][4] = {}, m[2] = {-INFINITY, -INFINITY}, l[2] = {};
};

// Turns scores (in base 2) into probabilities relative to the new maximum, and brings the sums to it.
template <int HD, int N>
__device__ inline void online_softmax(float (&s)[N][4], RowSums<HD>& rows) {
    for (int half = 0; half < 2; half++) {  // rows lane / 4 and lane / 4 + 8
        float top = rows.m[half];
        for (int j = 0; j < N; j++) top = fmaxf(top, fmaxf(s[j][half * 2], s[j][half * 2 + 1]));
        for (int x = 1; x < 4; x *= 2) top = fmaxf(top, __shfl_xor_sync(FULL_WARP, top, x));
        const float base = top == -INFINITY ? 0.0f : top;  // nothing seen so far: all exponentials are 0
        const float keep = exp2f(rows.m[half] - base);
        rows.m[half] = top;
        float sum = 0;
        for (int j = 0; j < N; j++)
            for (int r = half * 2; r < half * 2 + 2; r++) sum += s[j][r] = exp2f(s[j][r] - base);
        rows.l[half] = rows.l[half] * keep + sum;
        for (int i = 0; i < HD / 8; i++) rows.o[i][half * 2] *= keep, rows.o[i][half * 2 + 1] *= keep;
    }
}

// The sums of a block's groups, of the same rows over different keys, as shared memory holds them at the end.
template <int HD, int ROWS>
struct GroupSums {
    static constexpr int GROUPS = WARPS * 16 / ROWS;
    static constexpr int PITCH = HD + 8;  // a warp's stores of several rows do not meet in a bank
    float o[GROUPS * ROWS][PITCH], m[GROUPS * ROWS], l[GROUPS * ROWS];

    __device__ void put(int first_row, const RowSums<HD>& rows) {
        const int lane = int(threadIdx.x % WARP);
        for (int half = 0; half < 2; half++) {
            const int row = first_row + lane / 4 + half * 8;
            float sum = rows.l[half];
            for (int x = 1; x < 4; x *= 2) sum += __shfl_xor_sync(FULL_WARP, sum, x);
            for (int i = 0; i < HD / 8; i++)
                store_pack<2>(o[row] + i * 8 + lane % 4 * 2,
                              Pack<float, 2>{{rows.o[i][half * 2], rows.o[i][half * 2 + 1]}});
            if (lane % 4 == 0) m[row] = rows.m[half], l[row] = sum;
        }
    }
};

// The whole warp calls it for one row: to the output, or to the piece's part.
template <int HD, int ROWS>
__device__ inline void store_row(const ForwardArguments& arg, const GroupSums<HD, ROWS>& sums, int row,
                                 int part, int t, int kv_head) {
    constexpr int GROUPS = GroupSums<HD, ROWS>::GROUPS;
    const int lane = int(threadIdx.x % WARP), head = kv_head * arg.in.group + row % arg.in.group;
    float top = -INFINITY, weight[GROUPS], sum = 0;
    for (int g = 0; g < GROUPS; g++) top = fmaxf(top, sums.m[g * ROWS + row]);
    for (int g = 0; g < GROUPS; g++) {
        weight[g] = top == -INFINITY ? 0.0f : exp2f(sums.m[g * ROWS + row] - top);
        sum += weight[g] * sums.l[g * ROWS + row];
    }
    const float inverse = sum > 0 ? 1.0f / sum : 0.0f;
    const int64_t part_row = part >= 0 ? arg.part_row(part, kv_head, row) : 0;
    for (int i = 0; i < HD; i += WARP * 2) {
        const int c = i + lane * 2;
        if (c >= HD) break;  // half of the lanes, at head size 32
        float a = 0, b = 0;
        for (int g = 0; g < GROUPS; g++) {
            const Pack<float, 2> o = load_pack<2>(sums.o[g * ROWS + row] + c);
            a += weight[g] * o.v[0], b += weight[g] * o.v[1];
        }
        a *= inverse, b *= inverse;
        if (part >= 0)
            store_pack<2>(arg.part_out + part_row * HD + c, Pack<float, 2>{{a, b}});
        else
            store_pack<2>(arg.out[t] + head * HD + c,
                          Pack<bf16, 2>{{from_float<bf16>(a), from_float<bf16>(b)}});
    }
    const float lse = sum > 0 ? (top + log2f(sum)) * LN_2 : -INFINITY;
    if (lane == 0) (part >= 0 ? arg.part_lse[part_row] : arg.lse[t][head]) = lse;
}

// Of the warps that share keys.
template <int ROW_WARPS>
__device__ inline void group_barrier() {
    if constexpr (ROW_WARPS == 1)
        __syncwarp();
    else
        named_barrier_sync(1 + int(threadIdx.x / (ROW_WARPS * WARP)), ROW_WARPS * WARP);
}

template <int HD, int ROW_WARPS>
__global__ void __launch_bounds__(THREADS, ROW_WARPS == WARPS ? 2 : 3)
    attention_forward_tiles_kernel(ForwardArguments arg) {
    griddepcontrol_launch_dependents();
    griddepcontrol_wait();
    DYNAMIC_SHARED(bf16, smem);
    constexpr int ROWS = 16 * ROW_WARPS, GROUP_THREADS = ROW_WARPS * WARP, GROUPS = WARPS / ROW_WARPS;
    constexpr int KEYS = KEY_TILE / GROUPS, TILE = KEY_TILE * HD;
    using Mask = std::conditional_t<KEYS <= 32, uint32_t, uint64_t>;  // of a group's slots in a key tile
    constexpr Mask ALL = Mask(~uint64_t(0) >> (64 - KEYS));
    bf16 *q_smem = smem, *k_smem = smem + ROWS * HD, *v_smem = k_smem + 2 * TILE;
    const int lane = int(threadIdx.x % WARP), warp = int(threadIdx.x / WARP);
    const int row0 = warp % ROW_WARPS * 16, key0 = warp / ROW_WARPS * KEYS;
    const unsigned at = blockIdx.x / unsigned(arg.in.kv_heads);
    const int kv_head =
        int(blockIdx.x - at * unsigned(arg.in.kv_heads));  // neighbours read what lies side by side
    const AttentionTiles::Piece piece = arg.in.tiles.pieces[at];
    if (piece.query_tile < 0) return;  // the whole block
    const AttentionTiles::QueryTile tile = arg.in.tiles.query_tiles[piece.query_tile];
    const auto visit_at = [&](int i) {
        return i < piece.end_visit ? arg.in.tiles.keys[i] : AttentionTiles::Visit{};
    };
    AttentionTiles::Visit visit = visit_at(piece.first_visit), later = visit_at(piece.first_visit + 1);

    // A lane keeps the spans of one token, of the whole tile where that has no more tokens than a warp has lanes.
    const int first_token = ROWS <= WARP ? 0 : row0 / arg.in.group, token = tile.begin + first_token + lane;
    const bool valid = token < tile.end;
    const AttentionSpans see = valid ? arg.in.see[token] : AttentionSpans{};
    int lane_of[2];  // that keeps the token of a row
    for (int half = 0; half < 2; half++)
        lane_of[half] = int(unsigned(row0 + lane / 4 + half * 8) / unsigned(arg.in.group)) - first_token;

    copy_queries<HD, ROWS>(q_smem, arg.in.q, tile.begin, tile.end, arg.in.group, kv_head);
    cp_async_commit();
    Mask mask = 0, next_mask = 0;  // what the lane's token sees of the group's part of visits i and i + 1
    RowSums<HD> rows;
    for (int i = piece.first_visit - 2, stage = 0; i < piece.end_visit; i++, stage ^= 1) {
        if (i >= piece.first_visit) {
            cp_async_wait<1>();
            if (ROW_WARPS == WARPS || i == piece.first_visit)
                __syncthreads();  // everybody's copies of the queries, or of this stage, have arrived
            else
                group_barrier<ROW_WARPS>();  // the group's copies of this stage have arrived
            Mask seen[2], any = 0;
            for (int half = 0; half < 2; half++)
                any |= seen[half] = __shfl_sync(FULL_WARP, mask, lane_of[half]);
            if (__ballot_sync(FULL_WARP, any != 0)) {
                float s[KEYS / 8][4];
                multiply_rows<HD>(s, q_smem, row0, k_smem + stage * TILE, key0);
                const int column = lane % 4 * 2;
                for (int j = 0; j < KEYS / 8; j++)
                    for (int r = 0; r < 4; r++)
                        s[j][r] = seen[r / 2] >> (j * 8 + column + r % 2) & 1
                                      ? s[j][r] * (arg.in.scale * LOG2_E)
                                      : -INFINITY;
                online_softmax<HD>(s, rows);
                add_product<HD>(rows.o, s, v_smem + stage * TILE, key0);
            }
            group_barrier<ROW_WARPS>();  // the group is done with this stage before it is overwritten
        }
        mask = next_mask, next_mask = 0;
        if (i + 2 < piece.end_visit) {
            const int slot0 = visit.tile * KEY_TILE + key0, at = stage * TILE + key0 * HD;
            if (valid) next_mask = visit.full ? ALL : Mask(visible_slots(see, slot0)) & ALL;
            if (ROW_WARPS == WARPS || __ballot_sync(FULL_WARP, next_mask != 0)) {
                const unsigned thread = threadIdx.x % GROUP_THREADS;
                copy_slots<HD, KEYS, GROUP_THREADS>(k_smem + at, arg.in.k, slot0, arg.in.n_slots, kv_head,
                                                    thread);
                copy_slots<HD, KEYS, GROUP_THREADS>(v_smem + at, arg.in.v, slot0, arg.in.n_slots, kv_head,
                                                    thread);
            }
            visit = later, later = visit_at(i + 4);
        }
        cp_async_commit();
    }
    cp_async_wait<0>();  // the last are empty, but a tile that sees nothing leaves its queries under way
    static_assert(sizeof(GroupSums<HD, ROWS>) <= size_t(ROWS + 4 * KEY_TILE) * HD * sizeof(bf16));
    auto& sums = *reinterpret_cast<GroupSums<HD, ROWS>*>(smem);
    __syncthreads();  // everybody is done with queries, keys and values before the sums take their place
    sums.put(warp * 16, rows);
    __syncthreads();  // the sums are complete before others read them
    for (int row = warp; row < ROWS; row += WARPS) {
        const int t = tile.begin + row / arg.in.group;
        if (t < tile.end) store_row<HD, ROWS>(arg, sums, row, piece.part, t, kv_head);
    }
}

// Joins the partial results of a split tile: weights exp(lse_part - lse). A warp per row, without barriers: a lane adds
// up what it copied itself, four columns of every part or of every second or fourth. A row behind the tile's last reads
// what nobody wrote, so that the others need not wait for the tile, and is not stored.
constexpr int JOINED = 20;  // parts of a row that are under way together
template <int HD>
__global__ void __launch_bounds__(THREADS) attention_join_kernel(ForwardArguments arg) {
    griddepcontrol_launch_dependents();
    griddepcontrol_wait();
    DYNAMIC_SHARED(float, smem);
    constexpr int LANES = HD / 4, TOGETHER = WARP / LANES;  // of a part's row; parts in a step of the warp
    static_assert(JOINED <= WARP && JOINED % TOGETHER == 0);
    const int lane = int(threadIdx.x % WARP), warp = int(threadIdx.x / WARP);
    const int side = lane / LANES, column = lane % LANES * 4;
    const int kv_head = int(blockIdx.y), row = int(blockIdx.z) * WARPS + warp;
    const AttentionTiles::Join join = arg.in.tiles.joins[blockIdx.x];
    if (join.query_tile < 0) return;  // the whole block
    const AttentionTiles::QueryTile tile = arg.in.tiles.query_tiles[join.query_tile];
    const int64_t next = int64_t(arg.in.kv_heads) * arg.rows;  // part's same row
    const int64_t begin = arg.part_row(join.first_part, kv_head, row);
    const float *lse_at = arg.part_lse + begin + lane * next,
                *out_at = arg.part_out + (begin + side * next) * HD + column;
    float* out_smem = smem + (warp * JOINED * LANES + lane) * 4;
    float top = -INFINITY, sum = 0, o[4] = {};
    for (int first = join.first_part; first < join.end_part; first += JOINED, lse_at += JOINED * next) {
        const int parts = min(join.end_part - first, JOINED);
        const float lse = lane < parts ? *lse_at : -INFINITY;  // a lane finds the weight of one part
#pragma unroll 4
        for (int i = 0; i * TOGETHER < parts; i++, out_at += TOGETHER * next * HD)
            if (i * TOGETHER + side < parts) cp_async_16(out_smem + i * WARP * 4, out_at, true);
        cp_async_commit();
        const float highest = fmaxf(top, warp_max(lse)), base = highest == -INFINITY ? 0.0f : highest;
        const float keep = expf(top - base), weight = expf(lse - base);
        top = highest, sum = sum * keep + warp_sum(weight);
        for (float& x : o) x *= keep;
        cp_async_wait<0>();
#pragma unroll 4
        for (int i = 0; i * TOGETHER < parts; i++) {
            const int p = i * TOGETHER + side;
            const float w = __shfl_sync(FULL_WARP, weight, p);
            if (p >= parts) continue;
            const Pack<float, 4> part = load_pack<4>(out_smem + i * WARP * 4);
            for (int c = 0; c < 4; c++) o[c] += w * part.v[c];
        }
    }
    for (float& x : o)
        for (int other = LANES; other < WARP; other *= 2) x += __shfl_xor_sync(FULL_WARP, x, other);
    const int t = tile.begin + row / arg.in.group, head = kv_head * arg.in.group + row % arg.in.group;
    if (t >= tile.end) return;  // the whole warp
    const float inverse = sum > 0 ? 1.0f / sum : 0.0f;
    if (side == 0)
        for (int c = 0; c < 4; c += 2)
            store_pack<2>(
                arg.out[t] + head * HD + column + c,
                Pack<bf16, 2>{{from_float<bf16>(o[c] * inverse), from_float<bf16>(o[c + 1] * inverse)}});
    if (lane == 0) arg.lse[t][head] = sum > 0 ? top + logf(sum) : -INFINITY;
}

// ---- launchers ----

bool attention_on_tensor_cores(const Attention& a, std::initializer_list<Tensor> read,
                               std::initializer_list<Tensor> written) {
    const auto rows_at = [](int64_t elements) {
        return
            [elements](const Tensor& t) { return aligned_for(t, int(elements)) && t.stride % elements == 0; };
    };
    const int HD = a.HD();
    return a.q.dtype == DType::BF16 && (HD == 32 || HD == 64 || HD == 128) && a.group() <= 16 &&
           std::all_of(read.begin(), read.end(), rows_at(8)) &&
           std::all_of(written.begin(), written.end(), rows_at(2));
}

template <int HD, int ROW_WARPS>
static void launch_forward(const Context& ctx, ForwardArguments arg) {
    constexpr int ROWS = 16 * ROW_WARPS;
    const size_t rows = size_t(arg.in.tiles.parts) * size_t(arg.in.kv_heads) * ROWS;
    arg.rows = ROWS;
    arg.part_out = ctx.workspace.take<float>(rows * HD);
    arg.part_lse = ctx.workspace.take<float>(rows);
    launch_next(ctx, attention_forward_tiles_kernel<HD, ROW_WARPS>,
                dim3(unsigned(arg.in.tiles.n_pieces) * unsigned(arg.in.kv_heads)), THREADS,
                size_t(ROWS + 4 * KEY_TILE) * HD * sizeof(bf16), arg);
    if (arg.in.tiles.n_joins)
        launch_next(ctx, attention_join_kernel<HD>,
                    dim3(unsigned(arg.in.tiles.n_joins), unsigned(arg.in.kv_heads), ROWS / WARPS), THREADS,
                    WARPS * JOINED * HD * sizeof(float), arg);
}

template <int HD>
static void launch_forward_rows(const Context& ctx, const ForwardArguments& arg) {
    switch (arg.in.tiles.warps) {
        case 1: return launch_forward<HD, 1>(ctx, arg);
        case 2: return launch_forward<HD, 2>(ctx, arg);
        case 4: return launch_forward<HD, 4>(ctx, arg);
        default: CHECK(false, "attention tiles of %d warps", arg.in.tiles.warps);
    }
}

void attention_forward_tiles(const Context& ctx, Tensor out, Tensor lse, const Attention& a,
                             const DeviceTiles& tiles) {
    const ForwardArguments arg{.in = tile_arguments(a, tiles),
                               .out = device_rows<bf16>(out),
                               .lse = device_rows<float>(lse),
                               .part_out = nullptr,
                               .part_lse = nullptr,
                               .rows = 0};
    switch (a.HD()) {
        case 32: return launch_forward_rows<32>(ctx, arg);
        case 64: return launch_forward_rows<64>(ctx, arg);
        case 128: return launch_forward_rows<128>(ctx, arg);
        default: CHECK(false, "tiled attention of head size %d", a.HD());
    }
}

}  // namespace cuda
