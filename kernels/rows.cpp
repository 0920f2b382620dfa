#include "kernels/rows.h"

#include "kernels/parallel.h"

namespace cpu {

static const int* checked_rows(Tensor row, int64_t n, int64_t limit) {
    const int* r = vector_of<int>(row, n);
    for (int64_t i = 0; i < n; i++)
        CHECK(r[i] >= 0 && r[i] < limit, "row %d of %lld", r[i], (long long)limit);
    return r;
}

void gather_rows(Tensor out, Tensor inp, Tensor row) {
    const int* r = checked_rows(row, out.rows, inp.rows);
    const Rows<float> o = rows_of<float>(out);
    const Rows<const float> x = rows_of<const float>(inp);
    const int C = int(out.cols);
    parallel_for(out.rows, C, [&](int64_t n) { ref::gather_rows<float>(o.from(n), x, r + n, 1, C); });
}

void gather_rows_backward(Tensor dinp, Tensor dout, Tensor row) {
    const int T = int(dinp.rows), N = int(dout.rows);
    const int* r = checked_rows(row, N, T);
    const Rows<float> dx = rows_of<float>(dinp);
    const Rows<const float> d = rows_of<const float>(dout);
    parallel_ranges(dinp.cols, 64, T + N, [&](int64_t begin, int64_t end) {
        ref::gather_rows_backward<float>({dx.data + begin, dx.stride}, {d.data + begin, d.stride}, r, T, N,
                                         int(end - begin));
    });
}

void scatter_rows(Tensor out, Tensor inp, Tensor slot) {
    const int* s = checked_rows(slot, inp.rows, out.rows);
    const Rows<float> o = rows_of<float>(out);
    const Rows<const float> x = rows_of<const float>(inp);
    const int C = int(inp.cols);
    parallel_for(inp.rows, C, [&](int64_t t) { ref::scatter_rows<float>(o, x.from(t), s + t, 1, C); });
}

}  // namespace cpu
