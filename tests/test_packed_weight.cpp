// A weight with a packed copy against the same without: bit for bit, whatever the shape.
#include <bit>
#include <cmath>
#include <limits>

#include "kernels/packed_weight.h"
#include "tests/kernel_testing.h"

namespace {

// A weight and its copy, in memory that held something else before.
struct Packed {
    std::vector<float> storage;
    Tensor weight;  // with the copy

    Packed(Ops& ops, Tensor plain) : weight(plain) {
        Tensor copy = ops.packed_shape(plain);
        EXPECT_GT(copy.rows, 0);
        storage.assign(copy.bytes() / 4, std::numeric_limits<float>::quiet_NaN());
        copy.data = storage.data();
        ops.pack(copy, plain);
        weight.packed = copy.data;
    }
};

Tensor planned(int64_t rows, int64_t cols, DType dtype) { return tensor(nullptr, rows, cols, dtype); }

class PackedShapes : public testing::TestWithParam<std::pair<int, int>> {};

TEST_P(PackedShapes, GiveTheSameBits) {
    const auto [N, K] = GetParam();
    constexpr int MOST = 200;  // rows: several items, and groups of every size in each
    for (const auto& ops : cpu_variants()) {
        Matrix w = Matrix::random(N, K, 2), b = Matrix::random(1, N, 3), x = Matrix::random(MOST, K, 1, 3),
               r = Matrix::random(MOST, N, 4, 5);
        const std::vector<Bf16> half = Matrix(w).round_to_bf16();
        for (const DType dtype : {DType::F32, DType::BF16}) {
            if (dtype == DType::BF16 && K % 2) continue;
            const Tensor plain =
                dtype == DType::F32 ? w.tensor() : tensor(const_cast<Bf16*>(half.data()), N, K, dtype);
            const Packed packed(*ops, plain);
            for (int T = 1; T <= MOST; T += T < 20 ? 1 : 45)
                for (int with = 0; with < 4; with++) {  // bias, residual
                    SCOPED_TRACE(format("%s, %s, %d rows, with %d", ops->device_name().c_str(),
                                        name_of(dtype), T, with));
                    const Tensor inp = x.tensor().row_range(0, T),
                                 residual = with & 2 ? r.tensor().row_range(0, T) : Tensor(),
                                 bias = with & 1 ? b.tensor() : Tensor();
                    Matrix expected(T, N), out(T, N, 7);
                    ops->linear_forward(expected, inp, plain, bias, residual);
                    ops->linear_forward(out, inp, packed.weight, bias, residual);
                    ASSERT_EQ(out.values<float>(), expected.values<float>());
                    out.expect_gaps_untouched();
                }
        }
    }
}
INSTANTIATE_TEST_SUITE_P(Ragged, PackedShapes,
                         testing::Values(std::pair{1, 1}, std::pair{7, 32}, std::pair{31, 5},
                                         std::pair{33, 130}, std::pair{64, 66}, std::pair{97, 64},
                                         std::pair{128, 384}, std::pair{264, 128}, std::pair{300, 18}));

TEST(PackedWeight, ResidualMayBeTheOutput) {
    for (const auto& ops : cpu_variants())
        for (const int T : {1, 9}) {
            Matrix x = Matrix::random(T, 34, 1), w = Matrix::random(70, 34, 2), r = Matrix::random(T, 70, 3),
                   out(T, 70);
            const Packed packed(*ops, w);
            ops->linear_forward(out, x, w, {}, r);
            ops->linear_forward(r, x, packed.weight, {}, r);
            EXPECT_EQ(out.values<float>(), r.values<float>());
        }
}

TEST(PackedWeight, NoRowsIsNoWork) {
    Matrix x(0, 6), w = Matrix::random(3, 6, 1), out(0, 3);
    for (const auto& ops : cpu_variants()) ops->linear_forward(out, x, Packed(*ops, w).weight);
}

// Infinities of a weight stay in their column, and none comes from beyond the last.
TEST(PackedWeight, WhatIsNotFiniteStaysWhereItIs) {
    for (const auto& ops : cpu_variants()) {
        Matrix x = Matrix::random(3, 8, 1), w = Matrix::random(35, 8, 2), expected(3, 35), out(3, 35);
        x.at(1, 3) = std::numeric_limits<float>::infinity();
        w.at(34, 0) = std::numeric_limits<float>::infinity();
        ops->linear_forward(expected, x, w);
        ops->linear_forward(out, x, Packed(*ops, w).weight);
        const auto bits = [](Matrix& m) {
            std::vector<uint32_t> all;
            for (const float f : m.values<float>())
                all.push_back(std::isnan(f) ? 1 : std::bit_cast<uint32_t>(f));
            return all;
        };
        EXPECT_EQ(bits(out), bits(expected));
        EXPECT_TRUE(std::isfinite(out.at(0, 33)));
        EXPECT_TRUE(std::isinf(out.at(0, 34)));
    }
}

TEST(PackedWeight, DrawsAreTheSame) {
    const int N = 60, C = 32, V = 600;  // more rows than a tile, more ids than two chunks
    for (const auto& ops : cpu_variants()) {
        Matrix x = Matrix::random(N, C, 1), w = Matrix::random(V, C, 2);
        const std::vector<Bf16> half = Matrix(w).round_to_bf16();
        std::vector<SampleRow> rows(static_cast<size_t>(N));
        for (uint32_t n = 0; n < uint32_t(N); n++)
            rows[n] = {.seed = 3, .position = n, .temperature = n % 3 ? 1.0f : 0.0f};
        for (const Tensor& plain : {w.tensor(), tensor(const_cast<Bf16*>(half.data()), V, C, DType::BF16)}) {
            const std::vector<Sampled> expected = sample_rows(*ops, rows, x, plain, 5, V - 1),
                                       got = sample_rows(*ops, rows, x, Packed(*ops, plain).weight, 5, V - 1);
            for (size_t n = 0; n < rows.size(); n++) {
                EXPECT_EQ(got[n].token, expected[n].token) << n;
                EXPECT_EQ(got[n].logprob, expected[n].logprob) << n;
                EXPECT_EQ(got[n].entropy, expected[n].entropy) << n;
            }
        }
    }
}

TEST(PackedWeight, OnlySmallOnesHaveACopy) {
    const auto cpu = make_cpu_ops(), gpu = make_planned_ops(size_t(1) << 30);
    const int64_t K = 512, most = int64_t(cpu::MOST_PACKED) / (4 * K);
    for (const auto& [dtype, rows] : {std::pair{DType::F32, most}, {DType::BF16, 2 * most}}) {
        const Tensor copy = cpu->packed_shape(planned(rows, K, dtype));
        EXPECT_EQ(copy.bytes(), cpu::MOST_PACKED);
        EXPECT_EQ(copy.dtype, dtype);
        EXPECT_EQ(cpu->packed_shape(planned(rows + 1, K, dtype)).rows, 0);
        EXPECT_EQ(gpu->packed_shape(planned(rows, K, dtype)).rows, 0);
    }
    EXPECT_EQ(cpu->packed_shape(planned(8, 7, DType::BF16)).rows, 0) << "half a word";
    EXPECT_EQ(cpu->packed_shape(planned(33, 7, DType::F32)).bytes(), 64u * 7 * 4) << "whole panels";
}

}  // namespace
