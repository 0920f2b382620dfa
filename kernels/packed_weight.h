// packed_weight.h -- a second copy of a small weight, in the order that the CPU multiplies few rows with fastest.
//
//   panels of PACKED_COLUMNS rows of weight (N, K), each transposed:   panel[p] (K, PACKED_COLUMNS) = weight[32 p ...]^T
//
// Rows beyond N are zero. A float is one word of 32 bits; two bf16 of a row, neighbours along K, are one word, as in the
// transposition of simd_kernels.h. A product then reads words one after another and shuffles nothing. An element is the
// same ascending fused sum over K as without the copy, so the bits are the same for any number of rows.
//
// A copy goes stale when its weight changes: whoever makes it renews it (model/packed_weights.h).
#pragma once
#include "kernels/cpu.h"

namespace cpu {

// The largest weight that gets one, in bytes. Models of larger ones read them from memory in every pass, and the memory
// decides, not the order: a copy then costs as much as it saves (README.md, "Tried").
constexpr size_t MOST_PACKED = size_t(1) << 20;

Tensor packed_shape(Tensor weight);
void pack(const Simd& simd, Tensor packed, Tensor weight);

// Whether T rows are multiplied faster by a weight's copy: there is one, and the rows are not so many that it pays to
// split the bf16 once for all of them.
bool packed_pays(Tensor weight, int64_t T);
// linear_forward by the copy.
void packed_forward(const Simd& simd, Tensor out, Tensor inp, Tensor weight, Tensor bias, Tensor residual);
// Columns [n, n + N) of it, without bias and residual: out (M, N). n: a multiple of PACKED_COLUMNS. Serial.
void packed_block(const Simd& simd, float* out, int64_t out_row, const float* inp, int64_t inp_row,
                  Tensor weight, int64_t n, int M, int N);

}  // namespace cpu
