#include "kernels/rows.h"

#include <cstring>

#include "kernels/parallel.h"

namespace cpu {

const int* checked_rows(Tensor row, int64_t n, int64_t limit, int least) {
    const int* r = vector_of<int>(row, n);
    for (int64_t i = 0; i < n; i++)
        CHECK(r[i] >= least && r[i] < limit, "row %d of %lld", r[i], (long long)limit);
    return r;
}

void gather_rows(Tensor out, Tensor inp, Tensor row) {
    const int* r = checked_rows(row, out.rows, inp.rows);
    const Rows<float> o = rows_of<float>(out);
    const Rows<const float> x = rows_of<const float>(inp);
    parallel_for(out.rows, out.cols / 8,
                 [&](int64_t n) { memcpy(o[n], x[r[n]], size_t(out.cols) * sizeof(float)); });
}

void gather_rows_backward(Context& context, Tensor dinp, Tensor dout, Tensor row) {
    const int64_t T = dinp.rows, N = dout.rows;
    const int* r = checked_rows(row, N, T);
    const Rows<float> dx = rows_of<float>(dinp);
    const Rows<const float> d = rows_of<const float>(dout);
    parallel_ranges(dinp.cols, 64, (T + N) / 8, [&](int64_t begin, int64_t end) {
        for (int64_t t = 0; t < T; t++) memset(dx[t] + begin, 0, size_t(end - begin) * sizeof(float));
        for (int64_t n = 0; n < N; n++) context.simd.add(dx[r[n]] + begin, d[n] + begin, 1, int(end - begin));
    });
}

void copy_to_rows(Tensor out, const int* row, Tensor inp) {
    const Rows<float> o = rows_of<float>(out);
    const Rows<const float> x = rows_of<const float>(inp);
    parallel_for(inp.rows, inp.cols / 8, [&](int64_t t) {
        const int64_t to = row ? row[t] : t;
        if (to >= 0) memcpy(o[to], x[t], size_t(inp.cols) * sizeof(float));
    });
}

void scatter_rows(Tensor out, Tensor inp, Tensor slot) {
    copy_to_rows(out, checked_rows(slot, inp.rows, out.rows), inp);
}

void guide_rows(Tensor inout, Tensor other, Tensor row, Tensor scale) {
    const int* r = checked_rows(row, other.rows, inout.rows);
    const float* weight = vector_of<float>(scale, other.rows);
    const Rows<float> x = rows_of<float>(inout);
    const Rows<const float> y = rows_of<const float>(other);
    parallel_for(other.rows, other.cols, [&](int64_t m) {
        for (int64_t c = 0; c < other.cols; c++) x[r[m]][c] += weight[m] * (x[r[m]][c] - y[m][c]);
    });
}

}  // namespace cpu
