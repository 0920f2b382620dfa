// lm_head.cu -- see lm_head.h. Logits exist only as tiles (rows x a part of the vocabulary) in the workspace: made by a
// matrix product, read once by warps with a chunk of a row each (logit_chunk.cuh).
//
// Forward keeps a maximum m, a sum s of exp(x - m) and a sum t of exp(x - m) (x - m) per row; each new tile's are joined
// to them in the order of tiles. Backward turns a tile into its gradient in place (bf16: into a second tile) and
// multiplies it twice; dhidden is summed over tiles in fp32.
#include <algorithm>

#include "kernels/cuda_kernels.h"
#include "kernels/logit_chunk.cuh"

namespace cuda {

constexpr int MOST_THREADS = 512, MOST_ROWS = 4096, SMALLEST_CHUNK = 64;

// ---- kernels ----

struct HeadState {  // of one row
    float m, s, t, target_logit;
};

// parts (rows, chunks): a warp each.
__global__ void __launch_bounds__(CHUNK_WARPS* WARP)
    head_statistics_kernel(LogitSums* parts, const float* logits, int64_t stride, int rows, int V) {
    const int chunks = (V + CHUNK - 1) / CHUNK, lane = int(threadIdx.x) % WARP;
    const int at = int(blockIdx.x) * CHUNK_WARPS + int(threadIdx.x) / WARP;
    if (at >= rows * chunks) return;
    const LogitChunk c = load_chunk(logits + at / chunks * stride, V, at % chunks);
    const LogitSums sums = chunk_sums(c, warp_max(lane_max(c)), 1);
    if (lane == 0) parts[at] = sums;
}

// A warp per row: its chunks, lanes in turn, joined to what came before in the vocabulary.
__global__ void head_join_kernel(HeadState* state, const LogitSums* parts, const float* logits,
                                 int64_t stride, const int* target, int first_id, int rows, int V) {
    const int chunks = (V + CHUNK - 1) / CHUNK, lane = int(threadIdx.x) % WARP;
    const int n = int(blockIdx.x) * CHUNK_WARPS + int(threadIdx.x) / WARP;
    if (n >= rows) return;
    const LogitSums* mine = parts + int64_t(n) * chunks;
    float m = -INFINITY;
    for (int c = lane; c < chunks; c += WARP) m = fmaxf(m, mine[c].max);
    m = warp_max(m);
    double sum = 0, weighted = 0;
    for (int c = lane; c < chunks; c += WARP) {
        const RowSums r = shifted(mine[c], m, 1);
        sum += r.sum;
        weighted += r.weighted;
    }
    const float s = float(warp_sum(sum)), t = float(warp_sum(weighted));
    if (lane != 0) return;
    HeadState now{m, s, t, 0};
    const int at = target[n] - first_id;
    if (at >= 0 && at < V) now.target_logit = logits[n * stride + at];
    if (first_id > 0) {
        const HeadState was = state[n];
        const float top = fmaxf(was.m, m), old_scale = expf(was.m - top), new_scale = expf(m - top);
        now.t = (was.t + was.s * (was.m - top)) * old_scale + (t + s * (m - top)) * new_scale;
        now.s = was.s * old_scale + s * new_scale;
        now.m = top;
        now.target_logit += was.target_logit;
    }
    state[n] = now;
}

__global__ void head_finish_kernel(float* logprob, float* lse, float* entropy, const HeadState* state,
                                   int N) {
    const int n = int(blockIdx.x * blockDim.x + threadIdx.x);
    if (n >= N) return;
    const HeadState h = state[n];
    const float log_s = logf(h.s);
    lse[n] = h.m + log_s;
    logprob[n] = h.target_logit - h.m - log_s;
    if (entropy) entropy[n] = log_s - h.t / h.s;
}

// dlogits may be the logits themselves. Rows of both are `stride` apart; what lies behind their ends may be overwritten.
template <class T>
__global__ void head_dlogits_kernel(T* dlogits, const float* logits, int64_t stride, const float* dlogprob,
                                    const float* lse, const int* target, int first_id, int chunk) {
    constexpr int N = FULL_PACK<T>;
    const int n = int(blockIdx.x), at = target[n] - first_id;
    const float d = dlogprob[n], l = lse[n];
    const float* row = logits + n * stride;
    for (int v = int(threadIdx.x) * N; v < chunk; v += int(blockDim.x) * N) {
        Pack<T, N> out;
#pragma unroll
        for (int k = 0; k < N; k += LOGIT_PACK) {
            const Pack<float, LOGIT_PACK> x = load_pack<LOGIT_PACK>(row + v + k);
#pragma unroll
            for (int j = 0; j < LOGIT_PACK; j++)
                out.v[k + j] = from_float<T>(d * ((v + k + j == at ? 1.0f : 0.0f) - expf(x.v[j] - l)));
        }
        store_pack<N>(dlogits + n * stride + v, out);
    }
}

// ---- launchers ----

struct HeadTiles {
    int rows, chunk;
};
// Tiles that fit in what the workspace has left: whole rows of the vocabulary if possible, else as many rows
// as possible.
static HeadTiles head_tiles(const Context& ctx, int64_t N, int64_t V, int64_t bytes_per_logit,
                            int64_t bytes_per_row) {
    int64_t rows = std::min<int64_t>(N, MOST_ROWS);
    const int64_t reserve = 33 << 20, bytes = int64_t(ctx.workspace.left());
    const int64_t available =
        bytes > 4 * reserve ? bytes - reserve : bytes * 3 / 4;  // the products want scratch of their own
    const auto chunk_for = [&](int64_t r) {                     // whole chunks where it holds one
        const int64_t chunk = (available / r - bytes_per_row) / bytes_per_logit / 8 * 8;
        return chunk > CHUNK ? chunk / CHUNK * CHUNK : chunk;
    };
    while (rows > 1 && chunk_for(rows) < std::min<int64_t>(V, SMALLEST_CHUNK)) rows = (rows + 1) / 2;
    const int64_t chunk = std::min(V, chunk_for(rows));
    if (chunk < std::min<int64_t>(V, 8))
        fail(Exit::NoMemory, "a CUDA workspace of %lld bytes is too small for the LM head", (long long)bytes);
    return {int(rows), int(chunk)};
}

static void make_logits(const Context& ctx, float* tile, Tensor hidden, Tensor weight) {
    const Tensor logits = tensor(tile, hidden.rows, logit_stride(weight.rows)).col_range(0, weight.rows);
    matmul(ctx, {.out = logits, .a = hidden, .b = weight, .b_transposed = true});
}

void head_logprob(const Context& ctx, Tensor logprob, Tensor lse, Tensor entropy, Tensor hidden,
                  Tensor weight, Tensor target) {
    const int N = int(hidden.rows), V = int(weight.rows);
    if (N == 0) return;
    const HeadTiles tiles =
        head_tiles(ctx, N, V, sizeof(float), sizeof(HeadState) + chunks_of(V) * int(sizeof(LogitSums)) + 8);
    HeadState* state = ctx.workspace.take<HeadState>(size_t(tiles.rows));
    LogitSums* parts = ctx.workspace.take<LogitSums>(size_t(tiles.rows) * size_t(chunks_of(tiles.chunk)));
    float* tile = ctx.workspace.take<float>(size_t(tiles.rows) * size_t(logit_stride(tiles.chunk)));
    for (int n = 0; n < N; n += tiles.rows) {
        const int rows = std::min(tiles.rows, N - n);
        for (int v = 0; v < V; v += tiles.chunk) {
            const int chunk = std::min(tiles.chunk, V - v);
            make_logits(ctx, tile, hidden.row_range(n, n + rows), weight.row_range(v, v + chunk));
            launch(head_statistics_kernel, ceil_div(int64_t(rows) * chunks_of(chunk), CHUNK_WARPS),
                   CHUNK_WARPS * WARP, 0, ctx.stream, parts, static_cast<const float*>(tile),
                   logit_stride(chunk), rows, chunk);
            launch(head_join_kernel, ceil_div(rows, CHUNK_WARPS), CHUNK_WARPS * WARP, 0, ctx.stream, state,
                   static_cast<const LogitSums*>(parts), static_cast<const float*>(tile), logit_stride(chunk),
                   static_cast<const int*>(target.as<int>() + n), v, rows, chunk);
        }
        launch(head_finish_kernel, ceil_div(rows, 256), 256, 0, ctx.stream, logprob.as<float>() + n,
               lse.as<float>() + n, entropy ? entropy.as<float>() + n : nullptr,
               static_cast<const HeadState*>(state), rows);
    }
}

template <class T>
static void head_backward_typed(const Context& ctx, Tensor dhidden, Tensor dweight, Tensor dlogprob,
                                Tensor lse, Tensor hidden, Tensor weight, Tensor target) {
    constexpr bool IN_PLACE = std::is_same_v<T, float>;
    const int N = int(hidden.rows), V = int(weight.rows), C = int(hidden.cols);
    const HeadTiles tiles =
        head_tiles(ctx, N, V, sizeof(float) + (IN_PLACE ? 0 : sizeof(T)), C * int(sizeof(float)) + 8);
    const size_t tile_size = size_t(tiles.rows) * size_t(logit_stride(tiles.chunk));
    float* tile = ctx.workspace.take<float>(tile_size);
    T* dtile = IN_PLACE ? reinterpret_cast<T*>(tile) : ctx.workspace.take<T>(tile_size);
    float* dhidden_sum = ctx.workspace.take<float>(size_t(tiles.rows) * size_t(C));
    for (int n = 0; n < N; n += tiles.rows) {
        const int rows = std::min(tiles.rows, N - n);
        const Tensor part = hidden.row_range(n, n + rows), dpart = tensor(dhidden_sum, rows, C);
        for (int v = 0; v < V; v += tiles.chunk) {
            const int chunk = std::min(tiles.chunk, V - v);
            const Tensor w = weight.row_range(v, v + chunk);
            make_logits(ctx, tile, part, w);
            launch(head_dlogits_kernel<T>, unsigned(rows),
                   threads_for(ceil_div(chunk, FULL_PACK<T>), MOST_THREADS), 0, ctx.stream, dtile,
                   static_cast<const float*>(tile), logit_stride(chunk),
                   static_cast<const float*>(dlogprob.as<float>() + n),
                   static_cast<const float*>(lse.as<float>() + n),
                   static_cast<const int*>(target.as<int>() + n), v, chunk);
            const Tensor dlogits =
                tensor(dtile, rows, logit_stride(chunk), dtype_of<T>()).col_range(0, chunk);
            matmul(ctx, {.out = dpart, .a = dlogits, .b = w, .accumulate = v > 0});
            if (dweight)
                matmul(ctx, {.out = dweight.row_range(v, v + chunk),
                             .a = dlogits,
                             .b = part,
                             .a_transposed = true,
                             .accumulate = true});
        }
        copy_rows(ctx, dhidden.row_range(n, n + rows), nullptr, dpart, nullptr, rows);
    }
}

void head_backward(const Context& ctx, Tensor dhidden, Tensor dweight, Tensor dlogprob, Tensor lse,
                   Tensor hidden, Tensor weight, Tensor target) {
    if (hidden.rows == 0) return;
    with_type(hidden.dtype, "hidden", [&](auto x) {
        head_backward_typed<decltype(x)>(ctx, dhidden, dweight, dlogprob, lse, hidden, weight, target);
    });
}

}  // namespace cuda
