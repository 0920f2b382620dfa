// attention.cu -- span attention forward on tensor cores. See attention.h; tiles of attention_tiles.h.
//
// A block computes a piece of a query tile (16 rows per warp) for one key/value head. Keys and values of the
// piece's key tiles come through two stages of shared memory by cp.async, the next while the current one is
// used. Scores, probabilities and the output live in registers; the softmax is online (in base 2). Prefill
// and training take 4 warps; decoding, whose tiles have few rows, takes 1. Where there are too few tiles for the
// device, their keys are cut into pieces, whose results a second kernel joins.
//   shared memory: q (16 WARPS, HD), k and v (2, KEY_TILE, HD) each
#include <algorithm>

#include "kernels/attention_tile.cuh"

namespace cuda {

// ---- kernels ----

struct ForwardArguments {
    TileArguments in;
    DeviceRows<bf16> out;
    DeviceRows<float> lse;
    float *part_out, *part_lse;  // (parts, kv_heads, rows of a tile, HD) and without HD
};

// Scores of 16 rows of the query tile against a key tile, in base 2; -infinity where a row does not see the
// slot.
template <int HD>
__device__ inline void score_tile(float (&s)[KEY_TILE / 8][4], const bf16* q_smem, int row0,
                                  const bf16* k_smem, float scale, const uint64_t (&seen)[2]) {
    multiply_rows<HD>(s, q_smem, row0, k_smem, 0);
    const int column = int(threadIdx.x) % 4 * 2;
    for (int j = 0; j < KEY_TILE / 8; j++)
        for (int r = 0; r < 4; r++)
            s[j][r] = seen[r / 2] >> (j * 8 + column + r % 2) & 1 ? s[j][r] * (scale * LOG2_E) : -INFINITY;
}

// Turns scores into probabilities relative to the new maximum, and brings sum and output to it.
template <int HD>
__device__ inline void online_softmax(float (&s)[KEY_TILE / 8][4], float (&o)[HD / 8][4], float (&m)[2],
                                      float (&l)[2]) {
    for (int half = 0; half < 2; half++) {  // rows lane / 4 and lane / 4 + 8
        float top = m[half];
        for (int j = 0; j < KEY_TILE / 8; j++) top = fmaxf(top, fmaxf(s[j][half * 2], s[j][half * 2 + 1]));
        for (int x = 1; x < 4; x *= 2) top = fmaxf(top, __shfl_xor_sync(FULL_WARP, top, x));
        const float base = top == -INFINITY ? 0.0f : top;  // nothing seen so far: all exponentials are 0
        const float keep = exp2f(m[half] - base);
        m[half] = top;
        float sum = 0;
        for (int j = 0; j < KEY_TILE / 8; j++)
            for (int r = half * 2; r < half * 2 + 2; r++) sum += s[j][r] = exp2f(s[j][r] - base);
        l[half] = l[half] * keep + sum;
        for (int i = 0; i < HD / 8; i++) o[i][half * 2] *= keep, o[i][half * 2 + 1] *= keep;
    }
}

template <int HD, int TILE_WARPS>
__global__ void __launch_bounds__(TILE_WARPS* WARP) attention_forward_tiles_kernel(ForwardArguments arg) {
    DYNAMIC_SHARED(bf16, smem);
    constexpr int ROWS = 16 * TILE_WARPS, KEYS = KEY_TILE * HD;
    bf16 *q_smem = smem, *k_smem = smem + ROWS * HD, *v_smem = k_smem + 2 * KEYS;
    const int lane = int(threadIdx.x) % WARP, warp = int(threadIdx.x) / WARP, kv_head = int(blockIdx.y);
    const AttentionTiles::Piece piece = arg.in.tiles.pieces[blockIdx.x];
    if (piece.query_tile < 0) return;  // the whole block
    const AttentionTiles::QueryTile tile = arg.in.tiles.query_tiles[piece.query_tile];

    AttentionSpans see[2];
    int row[2];
    for (int half = 0; half < 2; half++) {
        row[half] = warp * 16 + lane / 4 + half * 8;
        const int t = tile.begin + row[half] / arg.in.group;
        see[half] = t < tile.end ? arg.in.see[t] : AttentionSpans{};
    }
    copy_queries<HD, ROWS>(q_smem, arg.in.q, tile.begin, tile.end, arg.in.group, kv_head);
    if (piece.first_visit < piece.end_visit)
        copy_visit<HD>(k_smem, v_smem, 0, arg.in, piece.first_visit, kv_head);
    else
        cp_async_commit();

    float o[HD / 8][4] = {}, m[2] = {-INFINITY, -INFINITY}, l[2] = {};
    for (int visit = piece.first_visit, stage = 0; visit < piece.end_visit; visit++, stage ^= 1) {
        const bool more = visit + 1 < piece.end_visit;
        if (more) copy_visit<HD>(k_smem, v_smem, stage ^ 1, arg.in, visit + 1, kv_head);
        wait_for_stage(more);
        __syncthreads();  // everybody's copies of this stage have arrived
        const AttentionTiles::Visit keys = arg.in.tiles.keys[visit];
        uint64_t seen[2] = {~uint64_t(0), ~uint64_t(0)};
        if (!keys.full)
            for (int half = 0; half < 2; half++) seen[half] = visible_slots(see[half], keys.tile * KEY_TILE);
        float s[KEY_TILE / 8][4];
        score_tile<HD>(s, q_smem, warp * 16, k_smem + stage * KEYS, arg.in.scale, seen);
        online_softmax<HD>(s, o, m, l);
        add_product<HD>(o, s, v_smem + stage * KEYS, 0);
        __syncthreads();  // everybody is done with this stage before it is overwritten
    }
    cp_async_wait<0>();  // a tile that sees nothing leaves its queries under way

    for (int half = 0; half < 2; half++) {
        for (int x = 1; x < 4; x *= 2) l[half] += __shfl_xor_sync(FULL_WARP, l[half], x);
        const int t = tile.begin + row[half] / arg.in.group,
                  head = kv_head * arg.in.group + row[half] % arg.in.group;
        const float inverse = l[half] > 0 ? 1.0f / l[half] : 0.0f;
        const float lse = l[half] > 0 ? (m[half] + log2f(l[half])) * LN_2 : -INFINITY;
        const int64_t part_row = (int64_t(piece.part) * arg.in.kv_heads + kv_head) * ROWS + row[half];
        if (t >= tile.end) continue;
        for (int i = 0; i < HD / 8; i++) {
            const int c = i * 8 + lane % 4 * 2;
            const float a = o[i][half * 2] * inverse, b = o[i][half * 2 + 1] * inverse;
            if (piece.part >= 0)
                store_pack<2>(arg.part_out + part_row * HD + c, Pack<float, 2>{{a, b}});
            else
                store_pack<2>(arg.out[t] + head * HD + c,
                              Pack<bf16, 2>{{from_float<bf16>(a), from_float<bf16>(b)}});
        }
        if (lane % 4 == 0) (piece.part >= 0 ? arg.part_lse[part_row] : arg.lse[t][head]) = lse;
    }
}

// Joins the partial results of a split tile: weights exp(lse_part - lse). A warp per row.
template <int HD, int TILE_WARPS>
__global__ void attention_join_kernel(ForwardArguments arg) {
    constexpr int ROWS = 16 * TILE_WARPS;
    const int lane = int(threadIdx.x), row = int(blockIdx.z), kv_head = int(blockIdx.y);
    const AttentionTiles::Join join = arg.in.tiles.joins[blockIdx.x];
    if (join.query_tile < 0) return;  // the whole block
    const AttentionTiles::QueryTile tile = arg.in.tiles.query_tiles[join.query_tile];
    const int t = tile.begin + row / arg.in.group, head = kv_head * arg.in.group + row % arg.in.group;
    if (t >= tile.end) return;  // the whole block
    const auto part_row = [&](int part) { return (int64_t(part) * arg.in.kv_heads + kv_head) * ROWS + row; };
    float top = -INFINITY, sum = 0;
    for (int p = join.first_part; p < join.end_part; p++) top = fmaxf(top, arg.part_lse[part_row(p)]);
    const float base = top == -INFINITY ? 0.0f : top;
    for (int p = join.first_part; p < join.end_part; p++) sum += expf(arg.part_lse[part_row(p)] - base);
    for (int c = lane; c < HD; c += WARP) {
        float o = 0;
        for (int p = join.first_part; p < join.end_part; p++)
            o += expf(arg.part_lse[part_row(p)] - base) * arg.part_out[part_row(p) * HD + c];
        arg.out[t][head * HD + c] = from_float<bf16>(sum > 0 ? o / sum : 0.0f);
    }
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

template <int HD, int TILE_WARPS>
static void launch_forward(const Context& ctx, ForwardArguments arg) {
    constexpr int ROWS = 16 * TILE_WARPS;
    const size_t rows = size_t(arg.in.tiles.parts) * size_t(arg.in.kv_heads) * ROWS;
    arg.part_out = ctx.workspace.take<float>(rows * HD);
    arg.part_lse = ctx.workspace.take<float>(rows);
    launch(attention_forward_tiles_kernel<HD, TILE_WARPS>,
           dim3(unsigned(arg.in.tiles.n_pieces), unsigned(arg.in.kv_heads)), ROWS * 2,
           size_t(ROWS + 4 * KEY_TILE) * HD * sizeof(bf16), ctx.stream, arg);
    if (arg.in.tiles.n_joins)
        launch(attention_join_kernel<HD, TILE_WARPS>,
               dim3(unsigned(arg.in.tiles.n_joins), unsigned(arg.in.kv_heads), ROWS), WARP, 0, ctx.stream,
               arg);
}

void attention_forward_tiles(const Context& ctx, Tensor out, Tensor lse, const Attention& a,
                             const DeviceTiles& tiles) {
    const ForwardArguments arg{.in = tile_arguments(a, tiles),
                               .out = device_rows<bf16>(out),
                               .lse = device_rows<float>(lse),
                               .part_out = nullptr,
                               .part_lse = nullptr};
    CHECK(tiles.warps == 1 || tiles.warps == 4, "attention tiles of %d warps", tiles.warps);
    const bool one = tiles.warps == 1;
    switch (a.HD()) {
        case 32: return one ? launch_forward<32, 1>(ctx, arg) : launch_forward<32, 4>(ctx, arg);
        case 64: return one ? launch_forward<64, 1>(ctx, arg) : launch_forward<64, 4>(ctx, arg);
        case 128: return one ? launch_forward<128, 1>(ctx, arg) : launch_forward<128, 4>(ctx, arg);
        default: CHECK(false, "tiled attention of head size %d", a.HD());
    }
}

}  // namespace cuda
