// linear.h -- matrix products: every projection of the network.
//
//   forward    out (T, N) = inp (T, K) weight (N, K)^T [+ bias (N)] [+ residual (T, N), which may be out itself]
//   backward   dinp (T, K) = dout (T, N) weight (N, K)
//              dweight (N, K) += dout^T inp          dbias (N) += column sums of dout
// weight may be BF16 in the forward pass. A row of out has the same bits whatever other rows the call holds:
// the sum over K is taken in one order that depends on K alone.
#pragma once
#include "kernels/cpu.h"
#include "kernels/view.h"

namespace ref {

template <class T, class W = T>
void linear_forward(Rows<T> out, Rows<const T> inp, Rows<const W> weight, const T* bias,
                    Rows<const T> residual, int n, int N, int K) {
    for (int t = 0; t < n; t++)
        for (int j = 0; j < N; j++) {
            T sum = T(0);
            for (int k = 0; k < K; k++) sum += inp[t][k] * T(number(weight[j][k]));
            if (bias) sum += bias[j];
            if (residual) sum += residual[t][j];
            out[t][j] = sum;
        }
}

// dinp, dweight, dbias: any may be absent.
template <class T>
void linear_backward(Rows<T> dinp, Rows<T> dweight, T* dbias, Rows<const T> dout, Rows<const T> inp,
                     Rows<const T> weight, int n, int N, int K) {
    for (int t = 0; t < n && dinp; t++)
        for (int k = 0; k < K; k++) {
            T sum = T(0);
            for (int j = 0; j < N; j++) sum += dout[t][j] * weight[j][k];
            dinp[t][k] = sum;
        }
    for (int t = 0; t < n; t++)
        for (int j = 0; j < N; j++) {
            for (int k = 0; k < K && dweight; k++) dweight[j][k] += dout[t][j] * inp[t][k];
            if (dbias) dbias[j] += dout[t][j];
        }
}

}  // namespace ref

namespace cpu {
void linear_forward(Context& context, Tensor out, Tensor inp, Tensor weight, Tensor bias = {},
                    Tensor residual = {});
void linear_backward(Context& context, Tensor dinp, Tensor dweight, Tensor dbias, Tensor dout, Tensor inp,
                     Tensor weight);
}  // namespace cpu
