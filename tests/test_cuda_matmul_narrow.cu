// Matrix products of few rows (matmul_narrow.cu) against sums in double, and what decides that they are taken.
#pragma nv_diag_suppress 554  // Rows<const T> has a conversion to itself, which is never called
#include "kernels/cuda_kernels.h"
#include "tests/cuda_testing.h"

namespace {

struct NarrowCase {
    int M, N, K, gap;
    DType out;
    bool bias, residual;
};
void PrintTo(const NarrowCase& c, std::ostream* out) {
    *out << c.M << "x" << c.N << "x" << c.K << " into " << name_of(c.out) << (c.gap ? ", gaps" : "")
         << (c.bias ? ", bias" : "") << (c.residual ? ", residual" : "");
}

class CudaMatmulNarrow : public testing::TestWithParam<NarrowCase> {
  protected:
    void multiply(const cuda::Matmul& p) {
        ASSERT_TRUE(cuda::matmul_is_narrow(p));
        cuda::matmul_narrow(context_, p);
        CUDA_CHECK(cudaStreamSynchronize(nullptr));
    }
    DeviceMatrix random(int rows, int cols, uint32_t seed, DType dtype = DType::BF16, int gap = 0) {
        return {*ops, rows, cols, dtype, random_floats(size_t(rows * cols), seed), gap};
    }
    std::unique_ptr<Ops> ops = cuda_ops_for_tests();

  private:
    cuda::Workspace none_{nullptr, 0};
    cuda::Context context_{nullptr, none_, nullptr};
};

// K products are added in fp32, in any order and by units that may cut what they shift out instead of rounding it: each addition
// errs by at most 2^-22 of the sum of magnitudes. Then the result is rounded.
void expect_product(const std::vector<double>& got, const NarrowCase& c, const std::vector<double>& x,
                    const std::vector<double>& w, const std::vector<double>* bias,
                    const std::vector<double>* residual) {
    ASSERT_EQ(got.size(), size_t(c.M * c.N));
    for (int m = 0; m < c.M; m++)
        for (int n = 0; n < c.N; n++) {
            double y = 0, magnitude = 0;
            const auto add = [&](double term) { y += term, magnitude += std::abs(term); };
            for (int k = 0; k < c.K; k++) add(x[size_t(m * c.K + k)] * w[size_t(n * c.K + k)]);
            if (bias) add((*bias)[size_t(n)]);
            if (residual) add((*residual)[size_t(m * c.N + n)]);
            const double rounding = c.out == DType::BF16 ? 0x1p-8 : 0x1p-23;
            ASSERT_NEAR(got[size_t(m * c.N + n)], y, (c.K + 2) * 0x1p-22 * magnitude + rounding * std::abs(y))
                << "row " << m << ", column " << n;
        }
}

TEST_P(CudaMatmulNarrow, AgreesWithTheReference) {
    const NarrowCase c = GetParam();
    const DeviceMatrix x = random(c.M, c.K, 1, DType::BF16, c.gap),
                       w = random(c.N, c.K, 2, DType::BF16, c.gap), b = random(1, c.N, 3, DType::F32);
    // the residual is out itself
    const DeviceMatrix out =
        c.residual ? random(c.M, c.N, 4, c.out, c.gap) : DeviceMatrix(*ops, c.M, c.N, c.out, c.gap);
    const std::vector<double> bias = b.values(), residual = out.values();
    multiply({.out = out,
              .a = x,
              .b = w,
              .b_transposed = true,
              .bias = c.bias ? Tensor(b) : Tensor{},
              .residual = c.residual ? Tensor(out) : Tensor{}});
    expect_product(out.read(), c, x.values(), w.values(), c.bias ? &bias : nullptr,
                   c.residual ? &residual : nullptr);
}

std::vector<NarrowCase> every_number_of_rows() {
    std::vector<NarrowCase> cases;
    for (int M = 1; M <= cuda::NARROW_ROWS; M++)
        cases.push_back({M, 37, 136, M % 3 * 8, M % 2 ? DType::BF16 : DType::F32, M % 4 < 2, M % 5 < 3});
    return cases;
}
INSTANTIATE_TEST_SUITE_P(EveryNumberOfRows, CudaMatmulNarrow, testing::ValuesIn(every_number_of_rows()));
// Blocks are of 16 rows of w; a warp's line is of 64 elements and the next one 1024 further, its ring of 2 lines.
INSTANTIATE_TEST_SUITE_P(AtTheEdges, CudaMatmulNarrow,
                         testing::Values(NarrowCase{1, 1, 8, 0, DType::BF16, false, false},
                                         NarrowCase{2, 15, 16, 8, DType::F32, true, false},
                                         NarrowCase{7, 16, 24, 0, DType::BF16, true, true},
                                         NarrowCase{8, 17, 64, 0, DType::BF16, false, true},
                                         NarrowCase{4, 33, 512, 0, DType::F32, true, true},
                                         NarrowCase{8, 31, 520, 8, DType::BF16, false, false},
                                         NarrowCase{3, 16, 1016, 0, DType::BF16, true, true},
                                         NarrowCase{6, 20, 1544, 0, DType::F32, false, true},
                                         NarrowCase{4, 18, 2048, 16, DType::BF16, true, false},
                                         NarrowCase{5, 7, 4104, 0, DType::BF16, false, true}));

class CudaMatmulNarrowRows : public CudaMatmulNarrow {};

TEST_F(CudaMatmulNarrowRows, HaveTheSameBitsAloneAndAmongOthers) {
    const int N = 35, K = 1352;
    const DeviceMatrix x = random(cuda::NARROW_ROWS, K, 5), w = random(N, K, 6),
                       b = random(1, N, 7, DType::F32), r = random(cuda::NARROW_ROWS, N, 8, DType::F32);
    const auto product_of = [&](int first, int end) {
        const DeviceMatrix out(*ops, end - first, N, DType::F32);
        multiply({.out = out,
                  .a = Tensor(x).row_range(first, end),
                  .b = w,
                  .b_transposed = true,
                  .bias = b,
                  .residual = Tensor(r).row_range(first, end)});
        return out.read();
    };
    const std::vector<double> all = product_of(0, cuda::NARROW_ROWS);
    EXPECT_EQ(product_of(0, cuda::NARROW_ROWS), all);
    for (int first = 0; first < cuda::NARROW_ROWS; first += 3)
        for (int end = first + 1; end <= cuda::NARROW_ROWS; end += 2)
            EXPECT_EQ(product_of(first, end),
                      std::vector<double>(all.begin() + first * N, all.begin() + end * N))
                << "rows " << first << " to " << end;
}

TEST_F(CudaMatmulNarrowRows, AreOfWholePacksOfBf16AgainstAWeight) {
    const DeviceMatrix x = random(9, 24, 1), w = random(20, 24, 2), out = random(9, 20, 3),
                       x32 = random(4, 24, 4, DType::F32), w32 = random(20, 24, 5, DType::F32),
                       out32 = random(4, 20, 6, DType::F32), square = random(8, 8, 7);
    const Tensor X = x, W = w, O = out, S = square;
    const auto narrow = [](cuda::Matmul p) { return cuda::matmul_is_narrow(p); };
    EXPECT_TRUE(narrow({.out = O.row_range(0, 8), .a = X.row_range(0, 8), .b = W, .b_transposed = true}));
    EXPECT_FALSE(narrow({.out = O, .a = X, .b = W, .b_transposed = true})) << "9 rows";
    EXPECT_FALSE(narrow({.out = out32, .a = x32, .b = w32, .b_transposed = true})) << "fp32";
    EXPECT_FALSE(narrow({.out = S, .a = S, .b = S})) << "b is no weight";
    EXPECT_FALSE(narrow({.out = S, .a = S, .b = S, .a_transposed = true, .b_transposed = true}));
    EXPECT_FALSE(narrow({.out = S, .a = S, .b = S, .b_transposed = true, .accumulate = true}));
    const auto of_columns = [&](int first, int end) {
        return narrow({.out = O.row_range(0, 4),
                       .a = X.row_range(0, 4).col_range(first, end),
                       .b = W.col_range(0, end - first),
                       .b_transposed = true});
    };
    EXPECT_TRUE(of_columns(8, 24));
    EXPECT_FALSE(of_columns(0, 20)) << "K is no multiple of 8";
    EXPECT_FALSE(of_columns(4, 20)) << "x is not at a multiple of 16 bytes";
}

}  // namespace
