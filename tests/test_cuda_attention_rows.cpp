// Span attention with a warp per row (attention_rows.cu): fp32, and what the tensor cores do not take.
#include "tests/cuda_attention.h"

class CudaAttentionRows : public testing::TestWithParam<CudaAttentionCase> {};

TEST_P(CudaAttentionRows, ForwardAndBackward) { check_cuda_attention(GetParam(), true); }

INSTANTIATE_TEST_SUITE_P(
    Ragged, CudaAttentionRows,
    testing::Values(CudaAttentionCase{"one_row", DType::F32, {1, 1, 1, 1, 2, 1}, 0},
                    CudaAttentionCase{"fp32_groups", DType::F32, {13, 37, 4, 2, 20, 4}, 3},
                    CudaAttentionCase{"fp32_wide", DType::F32, {5, 70, 2, 1, 40, 2}, 0},
                    CudaAttentionCase{"fp32_more_rows_than_lanes", DType::F32, {45, 37, 4, 2, 20, 4}, 0},
                    CudaAttentionCase{"fp32_head_128", DType::F32, {6, 40, 2, 1, 128, 3}, 0},
                    CudaAttentionCase{"bf16_odd_head", DType::BF16, {9, 40, 4, 2, 12, 3}, 1},
                    CudaAttentionCase{"bf16_odd_rows", DType::BF16, {9, 40, 2, 1, 32, 3}, 1}),
    case_name);

TEST(CudaAttentionRows, ExtremeScoresAreNotLost) { check_extreme_scores(DType::F32, 7, 90, 32); }

// A row that sees one slot: its score has no gradient at all, the slot's value has all of the row's.
TEST(CudaAttentionRows, AGradientOfValuesWithoutOneOfScores) {
    const int T = 6, S = 4, HD = 8;
    const std::unique_ptr<Ops> ops = cuda_ops_for_tests();
    std::vector<AttentionSpans> see;
    for (int t = 0; t < T; t++) see.push_back({{t % 3, 0, 0}, {t % 3 + 1, 0, 0}});
    const auto whole = [&](int rows, uint32_t seed) {
        const std::vector<int> numbers = random_ints(size_t(rows * HD), 9, seed);
        return DeviceMatrix(*ops, rows, HD, DType::F32, {numbers.begin(), numbers.end()});
    };
    const DeviceInts device_see(*ops, as_ints(see), SPAN_INTS);
    const DeviceMatrix q = whole(T, 1), k = whole(S, 2), v = whole(S, 3), d = whole(T, 4);
    DeviceMatrix out(*ops, T, HD, DType::F32), lse(*ops, T, 1, DType::F32), sums(*ops, T, 1, DType::F32),
        dq(*ops, T, HD, DType::F32), dk(*ops, S, HD, DType::F32), dv(*ops, S, HD, DType::F32);
    ops->attention_forward(out, lse, q, k, v, device_see, 1, 1);
    ops->attention_backward(dq, dk, dv, sums, d, out, lse, q, k, v, device_see, 1, 1);
    std::vector<double> want(size_t(S * HD)), got = dv.read();
    for (int t = 0; t < T; t++)
        for (int i = 0; i < HD; i++) want[size_t(t % 3 * HD + i)] += d.values()[size_t(t * HD + i)];
    for (size_t i = 0; i < want.size(); i++) EXPECT_NEAR(got[i], want[i], 1e-5) << "element " << i;
    EXPECT_EQ(dk.read(), std::vector<double>(size_t(S * HD), 0));
    EXPECT_EQ(dq.read(), std::vector<double>(size_t(T * HD), 0));
}
