// embedding.h -- token ids to vectors.
//
//   forward    out (T, C) = weight (V, C)[token (T)]                        parallel over rows
//   backward   dweight (V, C)[token] += dout (T, C), in the order of rows     parallel over columns: ids repeat
#pragma once
#include "kernels/cpu.h"
#include "kernels/view.h"

namespace ref {

template <class T, class W = T>
void embedding_forward(Rows<T> out, const int* token, Rows<const W> weight, int n, int C) {
    for (int t = 0; t < n; t++)
        for (int c = 0; c < C; c++) out[t][c] = number(weight[token[t]][c]);
}

template <class T>
void embedding_backward(Rows<T> dweight, Rows<const T> dout, const int* token, int n, int C) {
    for (int t = 0; t < n; t++)
        for (int c = 0; c < C; c++) dweight[token[t]][c] += dout[t][c];
}

}  // namespace ref

namespace cpu {
void embedding_forward(Tensor out, Tensor token, Tensor weight);
void embedding_backward(Context& context, Tensor dweight, Tensor dout, Tensor token);
}  // namespace cpu
