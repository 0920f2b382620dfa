#include "kernels/rope.h"

#include <cstring>

#include "kernels/parallel.h"
#include "kernels/rows.h"

namespace cpu {

constexpr int MAX_HD = 1024;

static const int* checked_positions(Tensor position, int64_t T, Tensor rope, int HD) {
    CHECK(HD <= MAX_HD && rope.cols == HD, "head size %d, at most %d; the table has %lld columns", HD, MAX_HD,
          (long long)rope.cols);
    const int* p = vector_of<int>(position, T);
    for (int64_t t = 0; t < T; t++)
        CHECK(p[t] >= 0 && p[t] < rope.rows, "position %d, the table has %lld", p[t], (long long)rope.rows);
    return p;
}

// Token t's heads go to row slot[t] of out (-1: nowhere), or without slots to row t.
static void forward_to(Context& context, Tensor out, const int* slot, Tensor rstd, Tensor inp, Tensor weight,
                       Tensor position, Tensor rope, int heads, float eps) {
    const Simd& simd = context.simd;
    const int T = int(inp.rows), HD = int(inp.cols) / heads;
    const Rows<float> o = rows_of<float>(out), r = rows_of<float>(weight ? rstd : Tensor{});
    const Rows<const float> x = rows_of<const float>(inp), table = rows_of<const float>(rope);
    const float* w = vector_of<float>(weight, HD);
    const int* p = checked_positions(position, T, rope, HD);
    parallel_for(T, inp.cols / 2, [&](int64_t t) {
        for (int h = 0; h < heads; h++) {
            const float* head = x[t] + h * HD;
            const float scale = w ? 1 / std::sqrt(simd.dot(head, head, HD) / float(HD) + eps) : 1;
            if (w) r[t][h] = scale;
            const int64_t to = slot ? slot[t] : t;
            if (to >= 0) simd.rope(o[to] + h * HD, head, scale, w, table[p[t]], 1, HD);
        }
    });
}

void head_norm_rope_forward(Context& context, Tensor out, Tensor rstd, Tensor inp, Tensor weight,
                            Tensor position, Tensor rope, int heads, float eps) {
    forward_to(context, out, nullptr, rstd, inp, weight, position, rope, heads, eps);
}

void qkv_forward(Context& context, const QkvForward& a) {
    if (a.q)
        head_norm_rope_forward(context, a.q, a.q_rstd, a.raw_q(), a.q_norm, a.position, a.rope, a.heads,
                               a.eps);
    const int* slot = a.slot ? checked_rows(a.slot, a.qkv.rows, a.k.rows, -1) : nullptr;
    forward_to(context, a.k, slot, a.k_rstd, a.raw_k(), a.k_norm, a.position, a.rope, a.kv_heads, a.eps);
    if (a.v) copy_to_rows(a.v, slot, a.raw_v());
}

void head_norm_rope_backward(Context& context, Tensor dinp, Tensor dweight, Tensor dout, Tensor rstd,
                             Tensor inp, Tensor weight, Tensor position, Tensor rope, int heads) {
    constexpr int PARTS = 16;
    const Simd& simd = context.simd;
    const int T = int(dout.rows), HD = int(dout.cols) / heads;
    const Rows<float> dx = rows_of<float>(dinp);
    const Rows<const float> d = rows_of<const float>(dout),
                            r = rows_of<const float>(weight ? rstd : Tensor{}),
                            x = rows_of<const float>(weight ? inp : Tensor{}),
                            table = rows_of<const float>(rope);
    const float* w = vector_of<float>(weight, HD);
    float* dw = w ? vector_of<float>(dweight, HD) : nullptr;
    const int* p = checked_positions(position, T, rope, HD);
    if (T == 0) return;
    float part[PARTS][MAX_HD];
    const int grain = (T + PARTS - 1) / PARTS;
    parallel_ranges(T, grain, dout.cols, [&](int64_t begin, int64_t end) {
        float* mine = part[begin / grain];
        memset(mine, 0, size_t(HD) * sizeof(float));
        for (int64_t t = begin; t < end; t++)
            for (int h = 0; h < heads; h++) {
                float dy[MAX_HD], *target = dx[t] + h * HD;
                simd.rope(w ? dy : target, d[t] + h * HD, 1, nullptr, table[p[t]], -1, HD);
                if (!w) continue;
                memset(target, 0, size_t(HD) * sizeof(float));
                simd.rmsnorm_backward(target, mine, dy, r[t][h], x[t] + h * HD, w, HD);
            }
    });
    for (int64_t begin = 0; begin < T && dw; begin += grain) simd.add(dw, part[begin / grain], 1, HD);
}

}  // namespace cpu
