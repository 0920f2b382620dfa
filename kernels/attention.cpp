#include "kernels/attention.h"

#include "kernels/parallel.h"

namespace cpu {

static const AttentionSpans* spans_of(Tensor see, int64_t T, int64_t S) {
    CHECK(see.rows == T && see.cols == SPAN_INTS && see.contiguous(), "spans are (%lld, %lld), not (%lld, 6)",
          (long long)see.rows, (long long)see.cols, (long long)T);
    const AttentionSpans* spans = reinterpret_cast<const AttentionSpans*>(see.as<int>());
    for (int64_t t = 0; t < T; t++)
        for (int r = 0; r < 3; r++)
            CHECK(spans[t].begin[r] >= spans[t].end[r] || (spans[t].begin[r] >= 0 && spans[t].end[r] <= S),
                  "row %lld sees slots [%d, %d) of %lld", (long long)t, spans[t].begin[r], spans[t].end[r],
                  (long long)S);
    return spans;
}

void attention_forward(Tensor out, Tensor lse, Tensor q, Tensor k, Tensor v, Tensor see, int heads,
                       int kv_heads) {
    const int HD = int(q.cols) / heads;
    const Rows<float> o = rows_of<float>(out), l = rows_of<float>(lse);
    const Rows<const float> qr = rows_of<const float>(q), kr = rows_of<const float>(k),
                            vr = rows_of<const float>(v);
    const AttentionSpans* spans = spans_of(see, q.rows, k.rows);
    parallel_for(q.rows, 64 * q.cols, [&](int64_t t) {
        ref::attention_forward<float>(o.from(t), l.from(t), qr.from(t), kr, vr, spans + t, 1, heads, kv_heads,
                                      HD);
    });
}

void attention_backward(Tensor dq, Tensor dk, Tensor dv, Tensor scratch, Tensor dout, Tensor out, Tensor lse,
                        Tensor q, Tensor k, Tensor v, Tensor see, int heads, int kv_heads) {
    const int HD = int(q.cols) / heads, T = int(q.rows), S = int(k.rows), share = heads / kv_heads;
    const AttentionSpans* spans = spans_of(see, T, S);
    parallel_for(kv_heads, int64_t(T) * S * HD, [&](int64_t g) {  // one key/value head and its query heads
        const auto part = [&](Tensor t, int width) { return t.col_range(g * width, (g + 1) * width); };
        ref::attention_backward<float>(
            rows_of<float>(part(dq, share * HD)), rows_of<float>(part(dk, HD)), rows_of<float>(part(dv, HD)),
            rows_of<float>(part(scratch, share)), rows_of<const float>(part(dout, share * HD)),
            rows_of<const float>(part(out, share * HD)), rows_of<const float>(part(lse, share)),
            rows_of<const float>(part(q, share * HD)), rows_of<const float>(part(k, HD)),
            rows_of<const float>(part(v, HD)), spans, T, S, share, 1, HD);
    });
}

}  // namespace cpu
