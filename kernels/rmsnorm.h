// rmsnorm.h -- root mean square normalisation (Zhang & Sennrich, arXiv 1910.07467).
//
//   forward    out (T, C) = inp * rstd * weight (C),   rstd (T) = 1 / sqrt(mean(inp^2) + eps)
//   backward   dinp (T, C) += rstd (dout w - inp rstd^2 mean(dout w inp)), on top of the residual stream's gradient
//              dweight (C) += sum_t dout inp rstd
// Parallel over rows; dweight in a second pass parallel over columns, added in the order of rows.
#pragma once
#include "kernels/cpu.h"
#include "kernels/view.h"

namespace ref {

template <class T>
void rmsnorm_forward(Rows<T> out, T* rstd, Rows<const T> inp, const T* weight, int n, int C, double eps) {
    for (int t = 0; t < n; t++) {
        const T* x = inp[t];
        T sum = T(0);
        for (int c = 0; c < C; c++) sum += x[c] * x[c];
        const T r = T(1) / std::sqrt(sum / T(C) + T(eps));
        rstd[t] = r;
        for (int c = 0; c < C; c++) out[t][c] = x[c] * r * weight[c];
    }
}

template <class T>
void rmsnorm_backward(Rows<T> dinp, T* dweight, Rows<const T> dout, const T* rstd, Rows<const T> inp,
                      const T* weight, int n, int C) {
    for (int t = 0; t < n; t++) {
        const T *x = inp[t], *d = dout[t];
        const T r = rstd[t];
        T dot = T(0);
        for (int c = 0; c < C; c++) dot += d[c] * weight[c] * x[c];
        for (int c = 0; c < C; c++) {
            dinp[t][c] += r * (d[c] * weight[c] - x[c] * r * r * dot / T(C));
            dweight[c] += d[c] * x[c] * r;
        }
    }
}

}  // namespace ref

namespace cpu {
void rmsnorm_forward(Context& context, Tensor out, Tensor rstd, Tensor inp, Tensor weight, float eps);
void rmsnorm_backward(Context& context, Tensor dinp, Tensor dweight, Tensor dout, Tensor rstd, Tensor inp,
                      Tensor weight);
}  // namespace cpu
