#include "kernels/rope.h"

#include <vector>

#include "kernels/parallel.h"

namespace cpu {

void head_norm_rope_forward(Tensor out, Tensor rstd, Tensor inp, Tensor weight, Tensor position, Tensor rope,
                            int heads, float eps) {
    const int T = int(inp.rows), HD = int(inp.cols) / heads;
    const Rows<float> o = rows_of<float>(out), r = rows_of<float>(weight ? rstd : Tensor{});
    const Rows<const float> x = rows_of<const float>(inp), table = rows_of<const float>(rope);
    const float* w = vector_of<float>(weight, HD);
    const int* p = vector_of<int>(position, T);
    for (int t = 0; t < T; t++)
        CHECK(p[t] >= 0 && p[t] < rope.rows, "position %d, the table has %lld", p[t], (long long)rope.rows);
    parallel_for(T, 4 * inp.cols, [&](int64_t t) {
        ref::head_norm_rope_forward<float>(o.from(t), w ? r.from(t) : r, x.from(t), w, p + t, table, 1, heads,
                                           HD, eps);
    });
}

void head_norm_rope_backward(Tensor dinp, Tensor dweight, Tensor dout, Tensor rstd, Tensor inp, Tensor weight,
                             Tensor position, Tensor rope, int heads) {
    constexpr int PARTS = 16, MAX_HD = 1024;
    const int T = int(dout.rows), HD = int(dout.cols) / heads;
    CHECK(HD <= MAX_HD, "head size %d, at most %d", HD, MAX_HD);
    const Rows<float> dx = rows_of<float>(dinp);
    const Rows<const float> d = rows_of<const float>(dout),
                            r = rows_of<const float>(weight ? rstd : Tensor{}), x = rows_of<const float>(inp),
                            table = rows_of<const float>(rope);
    const float* w = vector_of<float>(weight, HD);
    float* dw = w ? vector_of<float>(dweight, HD) : nullptr;
    const int* p = vector_of<int>(position, T);
    float part[PARTS][MAX_HD];
    const int grain = (T + PARTS - 1) / PARTS;
    if (T == 0) return;
    parallel_ranges(T, grain, 8 * dout.cols, [&](int64_t begin, int64_t end) {
        float* mine = part[begin / grain];
        for (int i = 0; i < HD; i++) mine[i] = 0;
        ref::head_norm_rope_backward<float>(dx.from(begin), mine, d.from(begin), w ? r.from(begin) : r,
                                            x.from(begin), w, p + begin, table, int(end - begin), heads, HD);
    });
    for (int64_t begin = 0; begin < T && dw; begin += grain)
        for (int i = 0; i < HD; i++) dw[i] += part[begin / grain][i];
}

}  // namespace cpu
