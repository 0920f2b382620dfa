#include "kernels/lm_head.h"

#include <cstring>
#include <type_traits>

#include "kernels/matmul.h"
#include "kernels/parallel.h"

namespace cpu {

static const int* checked_targets(Tensor target, int64_t N, int64_t V) {
    const int* t = vector_of<int>(target, N);
    for (int64_t n = 0; n < N; n++)
        CHECK(t[n] >= 0 && t[n] < V, "target %d, the vocabulary has %lld", t[n], (long long)V);
    return t;
}

SoftmaxSum softmax_sum(const Simd& simd, const float* logits, float scale, int V) {
    SoftmaxSum all;
    for (int v = 0; v < V; v += HEAD_CHUNK) {
        SoftmaxSum chunk;
        simd.softmax_stats(&chunk.max, &chunk.sum, &chunk.weighted, logits + v, scale,
                           std::min(HEAD_CHUNK, V - v));
        all.merge(chunk, scale);
    }
    return all;
}

// ---- forward

constexpr int ROWS = 48;  // of one tile
struct alignas(64) Tile {
    float data[ROWS * HEAD_CHUNK];
};

// Tiles of ROWS rows by one chunk of the vocabulary leave max, sum and weighted sum; a row's chunks are then
// merged in order.
template <class W>
static void logprob_rows(Context& context, Tensor logprob, Tensor lse, Tensor entropy, Tensor hidden,
                         Tensor weight, const int* target) {
    constexpr int BAND = 4 * ROWS;
    const Simd& simd = context.simd;
    const int N = int(hidden.rows), C = int(hidden.cols), V = int(weight.rows),
              chunks = (V + HEAD_CHUNK - 1) / HEAD_CHUNK;
    float *p = vector_of<float>(logprob, N), *l = vector_of<float>(lse, N), *e = vector_of<float>(entropy, N);
    const Rows<const float> x = rows_of<const float>(hidden);
    const Rows<const W> w = rows_of<const W>(weight);
    SoftmaxSum* part = reinterpret_cast<SoftmaxSum*>(
        context.floats(size_t(chunks) * BAND * sizeof(SoftmaxSum) / sizeof(float)));
    for (int band = 0; band < N; band += BAND) {
        const int rows = std::min(BAND, N - band), tiles = (rows + ROWS - 1) / ROWS;
        parallel_for(
            int64_t(chunks) * tiles, int64_t(std::min(ROWS, rows)) * HEAD_CHUNK * C / 16, [&](int64_t item) {
                Tile tile;
                float* logits = tile.data;
                const int chunk = int(item / tiles), v0 = chunk * HEAD_CHUNK,
                          n0 = band + int(item % tiles) * ROWS;
                const int M = std::min(ROWS, band + rows - n0), width = std::min(HEAD_CHUNK, V - v0);
                matmul_block(simd, logits, HEAD_CHUNK, x[n0], x.stride, w[v0], w.stride, M, width, C);
                for (int n = n0; n < n0 + M; n++) {
                    const float* row = logits + (n - n0) * HEAD_CHUNK;
                    SoftmaxSum& s = part[size_t(n - band) * size_t(chunks) + size_t(chunk)];
                    simd.softmax_stats(&s.max, &s.sum, &s.weighted, row, 1, width);
                    if (target[n] >= v0 && target[n] < v0 + width)
                        p[n] = row[target[n] - v0];  // the logit for now
                }
            });
        for (int n = band; n < band + rows; n++) {
            SoftmaxSum sum;
            for (int c = 0; c < chunks; c++)
                sum.merge(part[size_t(n - band) * size_t(chunks) + size_t(c)], 1);
            l[n] = sum.log_sum(1);
            p[n] -= l[n];
            if (e) e[n] = sum.entropy();
        }
    }
}

void head_logprob(Context& context, Tensor logprob, Tensor lse, Tensor entropy, Tensor hidden, Tensor weight,
                  Tensor target) {
    const int* t = checked_targets(target, hidden.rows, weight.rows);
    if (weight.dtype == DType::BF16)
        logprob_rows<Bf16>(context, logprob, lse, entropy, hidden, weight, t);
    else
        logprob_rows<float>(context, logprob, lse, entropy, hidden, weight, t);
}

// ---- backward

// A tile of dlogits at a time, at most TILE floats: computed from the logits, which are made again, then read twice.
void head_backward(Context& context, Tensor dhidden, Tensor dweight, Tensor dlogprob, Tensor lse,
                   Tensor hidden, Tensor weight, Tensor target) {
    constexpr int TILE = 1 << 18, MAX_WIDTH = 1024;
    const Simd& simd = context.simd;
    const int N = int(hidden.rows), C = int(hidden.cols), V = int(weight.rows);
    const int* t = checked_targets(target, N, V);
    const Rows<float> dx = rows_of<float>(dhidden), dw = rows_of<float>(dweight);
    const Rows<const float> x = rows_of<const float>(hidden), w = rows_of<const float>(weight);
    const float *d = vector_of<float>(dlogprob, N), *l = vector_of<float>(lse, N);
    const int width = std::min(V, MAX_WIDTH), height = std::min(N, TILE / width);
    float* dlogits = context.floats(size_t(TILE));
    for (int n0 = 0; n0 < N; n0 += height)
        for (int v0 = 0; v0 < V; v0 += width) {
            const int rows = std::min(height, N - n0), columns = std::min(width, V - v0);
            const int strips = (columns + HEAD_CHUNK - 1) / HEAD_CHUNK, blocks = (rows + ROWS - 1) / ROWS;
            parallel_for(int64_t(strips) * blocks, int64_t(std::min(ROWS, rows)) * HEAD_CHUNK * C / 16,
                         [&](int64_t item) {
                             const int v = int(item / blocks) * HEAD_CHUNK,
                                       count = std::min(HEAD_CHUNK, columns - v);
                             const int m0 = int(item % blocks) * ROWS, M = std::min(ROWS, rows - m0);
                             matmul_block(simd, dlogits + size_t(m0) * size_t(width) + v, width, x[n0 + m0],
                                          x.stride, w[v0 + v], w.stride, M, count, C);
                             for (int n = n0 + m0; n < n0 + m0 + M; n++) {
                                 float* row = dlogits + size_t(n - n0) * size_t(width) + v;
                                 simd.exp(row, row, l[n], 1, count);
                                 simd.multiply(row, -d[n], count);
                                 const int at = t[n] - v0 - v;
                                 if (at >= 0 && at < count) row[at] += d[n];
                             }
                         });
            matmul(context, dx.from(n0), dlogits, width, 1, w.from(v0), rows, C, columns, v0 > 0);
            if (dw) matmul(context, dw.from(v0), dlogits, 1, width, x.from(n0), columns, C, rows, true);
        }
}

}  // namespace cpu
