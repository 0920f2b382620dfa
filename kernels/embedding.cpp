#include "kernels/embedding.h"

#include "kernels/parallel.h"

namespace cpu {

template <class W>
static void forward(Tensor out, const int* token, Tensor weight) {
    const Rows<float> o = rows_of<float>(out);
    const Rows<const W> w = rows_of<const W>(weight);
    const int C = int(out.cols);
    parallel_for(out.rows, C / 4,
                 [&](int64_t t) { ref::embedding_forward<float, W>(o.from(t), token + t, w, 1, C); });
}

static void check_ids(const int* id, int64_t n, int64_t limit) {
    for (int64_t i = 0; i < n; i++)
        CHECK(id[i] >= 0 && id[i] < limit, "token %lld is id %d, the table has %lld", (long long)i, id[i],
              (long long)limit);
}

void embedding_forward(Tensor out, Tensor token, Tensor weight) {
    CHECK(out.cols == weight.cols, "embedding of width %lld into %lld", (long long)weight.cols,
          (long long)out.cols);
    const int* id = vector_of<int>(token, out.rows);
    check_ids(id, out.rows, weight.rows);
    if (weight.dtype == DType::BF16)
        forward<Bf16>(out, id, weight);
    else
        forward<float>(out, id, weight);
}

void embedding_backward(Context& context, Tensor dweight, Tensor dout, Tensor token) {
    CHECK(dout.cols == dweight.cols, "gradient of width %lld into %lld", (long long)dout.cols,
          (long long)dweight.cols);
    const int T = int(dout.rows);
    const int* id = vector_of<int>(token, T);
    check_ids(id, T, dweight.rows);
    const Rows<float> dw = rows_of<float>(dweight);
    const Rows<const float> d = rows_of<const float>(dout);
    parallel_ranges(dout.cols, 64, T / 4, [&](int64_t begin, int64_t end) {
        for (int t = 0; t < T; t++) context.simd.add(dw[id[t]] + begin, d[t] + begin, 1, int(end - begin));
    });
}

}  // namespace cpu
