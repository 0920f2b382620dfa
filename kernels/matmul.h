// matmul.h -- matrix products on the CPU, under every projection (linear.h) and the vocabulary (lm_head.h, sampling.h).
//
// Every element of out is one sum over the depth in ascending order, whatever the shape of the call, its blocks and
// the number of threads: a row has the same bits alone and among others.
#pragma once
#include "kernels/cpu.h"
#include "kernels/view.h"

namespace cpu {

// Multiply-adds of a product from which packing an operand for all rows and threads pays: it takes a parallel loop of its own.
constexpr int64_t WORTH_PACKING = 1 << 27;

// A block, out (M, N) = inp (M, K) weight (N, K)^T; W is float or Bf16. Serial.
template <class W>
void matmul_block(const Simd& simd, float* out, int64_t out_row, const float* inp, int64_t inp_row,
                  const W* weight, int64_t weight_row, int M, int N, int K);

// out (M, N) = inp (M, K) weight (N, K)^T [+ bias (N)] [+ residual (M, N), which may be out itself], in
// blocks, the weights packed. Parallel.
template <class W>
void matmul_transposed(Context& context, Rows<float> out, Rows<const float> inp, Rows<const W> weight,
                       const float* bias, Rows<const float> residual, int64_t M, int64_t N, int64_t K);

// out (M, N) = a (M, D) b (D, N), or += ; a's element (m, d) is a[m * a_row + d * a_depth], one of the two strides is
// 1. Parallel.
void matmul(Context& context, Rows<float> out, const float* a, int64_t a_row, int64_t a_depth,
            Rows<const float> b, int64_t M, int64_t N, int64_t D, bool accumulate);

}  // namespace cpu
