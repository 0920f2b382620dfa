// value_head.h -- one number per hidden state.
//
//   forward    value (N) = hidden (N, C) . weight (1, C)
//   backward   dhidden (N, C) = dvalue (N) weight        dweight (1, C) += sum_n dvalue hidden
// Parallel over rows; dweight parallel over columns, added in the order of rows.
#pragma once
#include "kernels/cpu.h"
#include "kernels/view.h"

namespace ref {

template <class T>
void value_head_forward(T* value, Rows<const T> hidden, const T* weight, int N, int C) {
    for (int n = 0; n < N; n++) {
        T sum = T(0);
        for (int c = 0; c < C; c++) sum += hidden[n][c] * weight[c];
        value[n] = sum;
    }
}

template <class T>
void value_head_backward(Rows<T> dhidden, T* dweight, const T* dvalue, Rows<const T> hidden, const T* weight,
                         int N, int C) {
    for (int n = 0; n < N; n++)
        for (int c = 0; c < C; c++) {
            dhidden[n][c] = dvalue[n] * weight[c];
            dweight[c] += dvalue[n] * hidden[n][c];
        }
}

}  // namespace ref

namespace cpu {
void value_head_forward(Context& context, Tensor value, Tensor hidden, Tensor weight);
void value_head_backward(Context& context, Tensor dhidden, Tensor dweight, Tensor dvalue, Tensor hidden,
                         Tensor weight);
}  // namespace cpu
