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
