// linear.cu -- see linear.h: which kernel multiplies, with bias and residual, and the gradients.
#include "kernels/cuda_kernels.h"

namespace cuda {

int checked_inner_size(const Matmul& p) {
    const int64_t M = p.a_transposed ? p.a.cols : p.a.rows, K = p.a_transposed ? p.a.rows : p.a.cols;
    const int64_t N = p.b_transposed ? p.b.rows : p.b.cols, K2 = p.b_transposed ? p.b.cols : p.b.rows;
    CHECK(K == K2 && M == p.out.rows && N == p.out.cols,
          "matrix product of (%lld, %lld) and (%lld, %lld) into (%lld, %lld)", (long long)M, (long long)K,
          (long long)K2, (long long)N, (long long)p.out.rows, (long long)p.out.cols);
    CHECK(p.a.dtype == p.b.dtype && (p.out.dtype == DType::F32 || p.out.dtype == p.a.dtype),
          "matrix product of %s and %s into %s", name_of(p.a.dtype), name_of(p.b.dtype),
          name_of(p.out.dtype));
    CHECK(!p.bias || (p.bias.size() == N && p.bias.contiguous() && p.bias.dtype == DType::F32),
          "bias of a matrix product");
    CHECK(!p.residual || (p.residual.rows == M && p.residual.cols == N && p.residual.dtype == p.out.dtype &&
                          !p.accumulate),
          "residual of a matrix product");
    return int(K);
}

void matmul(const Context& ctx, const Matmul& p) {
    (matmul_is_narrow(p) ? matmul_narrow : matmul_library)(ctx, p);
}

void linear_forward(const Context& ctx, Tensor out, Tensor inp, Tensor weight, Tensor bias, Tensor residual) {
    matmul(ctx,
           {.out = out, .a = inp, .b = weight, .b_transposed = true, .bias = bias, .residual = residual});
}

void linear_backward(const Context& ctx, Tensor dinp, Tensor dweight, Tensor dbias, Tensor dout, Tensor inp,
                     Tensor weight) {
    if (dinp) matmul(ctx, {.out = dinp, .a = dout, .b = weight});
    if (dout.rows == 0) return;
    if (dweight) matmul(ctx, {.out = dweight, .a = dout, .b = inp, .a_transposed = true, .accumulate = true});
    if (dbias) add_column_sums(ctx, dbias, dout, nullptr);
}

}  // namespace cuda
