// Span attention backward on tensor cores (attention_backward.cu) against the reference.
#include "tests/cuda_attention.h"

class CudaAttentionBackward : public testing::TestWithParam<CudaAttentionCase> {};

TEST_P(CudaAttentionBackward, AgreesWithTheReference) { check_cuda_attention(GetParam(), true); }

INSTANTIATE_TEST_SUITE_P(
    Ragged, CudaAttentionBackward,
    testing::Values(CudaAttentionCase{"one_row", DType::BF16, {1, 1, 1, 1, 32, 1}, 0},
                    CudaAttentionCase{"tiles", DType::BF16, {70, 130, 2, 1, 32, 4}, 8},
                    CudaAttentionCase{"several_query_tiles", DType::BF16, {150, 65, 2, 2, 32, 64}, 0},
                    CudaAttentionCase{"group_of_three", DType::BF16, {30, 193, 6, 2, 32, 7}, 0},
                    CudaAttentionCase{"head_64", DType::BF16, {33, 129, 2, 1, 64, 16}, 0},
                    CudaAttentionCase{"head_128", DType::BF16, {18, 100, 2, 1, 128, 9}, 0},
                    CudaAttentionCase{"after_split_decoding", DType::BF16, {12, 700, 4, 2, 32, 4}, 0},
                    CudaAttentionCase{"written_at_odd_addresses", DType::BF16, {9, 70, 2, 1, 32, 3}, 0, 1}),
    case_name);
