// rows.h -- picking rows and putting them elsewhere.
//
//   gather            out (N, C) = inp (T, C)[row (N)]                   parallel over rows
//   gather backward   dinp (T, C) = 0, then dinp[row] += dout (N, C)     parallel over columns: a row may repeat
//   scatter           out (S, C)[slot (T)] = inp (T, C)                  parallel over rows; slots are distinct
//   guide             inout (N, C)[row (M)] += scale (M) * (inout[row] - other (M, C))     likewise
#pragma once
#include "kernels/cpu.h"
#include "kernels/view.h"

namespace ref {

template <class T>
void gather_rows(Rows<T> out, Rows<const T> inp, const int* row, int N, int C) {
    for (int n = 0; n < N; n++)
        for (int c = 0; c < C; c++) out[n][c] = inp[row[n]][c];
}

template <class T>
void gather_rows_backward(Rows<T> dinp, Rows<const T> dout, const int* row, int n_rows, int N, int C) {
    for (int t = 0; t < n_rows; t++)
        for (int c = 0; c < C; c++) dinp[t][c] = T(0);
    for (int n = 0; n < N; n++)
        for (int c = 0; c < C; c++) dinp[row[n]][c] += dout[n][c];
}

template <class T>
void scatter_rows(Rows<T> out, Rows<const T> inp, const int* slot, int n, int C) {
    for (int t = 0; t < n; t++)
        for (int c = 0; c < C; c++) out[slot[t]][c] = inp[t][c];
}

template <class T>
void guide_rows(Rows<T> inout, Rows<const T> other, const int* row, const float* scale, int M, int C) {
    for (int m = 0; m < M; m++)
        for (int c = 0; c < C; c++) inout[row[m]][c] += T(scale[m]) * (inout[row[m]][c] - other[m][c]);
}

}  // namespace ref

namespace cpu {
void gather_rows(Tensor out, Tensor inp, Tensor row);
void gather_rows_backward(Context& context, Tensor dinp, Tensor dout, Tensor row);
void scatter_rows(Tensor out, Tensor inp, Tensor slot);
// Copies inp's row t to row row[t] of out (-1: nowhere), or to row t where `row` is null.
void copy_to_rows(Tensor out, const int* row, Tensor inp);
// The n numbers of `row`, all of them in [least, limit); throws where one is not.
const int* checked_rows(Tensor row, int64_t n, int64_t limit, int least = 0);
void guide_rows(Tensor inout, Tensor other, Tensor row, Tensor scale);
}  // namespace cpu
