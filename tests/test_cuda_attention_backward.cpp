// Span attention backward on tensor cores against the reference: attention_backward.cu, and from 128 query rows a
// key/value head on, at head sizes 64 and 128, attention_backward_wgmma.cu where the device has it (the emulation does).
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

INSTANTIATE_TEST_SUITE_P(
    ManyRows, CudaAttentionBackward,
    testing::Values(CudaAttentionCase{"group_of_one", DType::BF16, {150, 200, 2, 2, 64, 16}, 0},
                    CudaAttentionCase{"group_of_two", DType::BF16, {66, 330, 4, 2, 128, 9}, 8},
                    CudaAttentionCase{"group_of_four", DType::BF16, {33, 129, 4, 1, 128, 5}, 0},
                    CudaAttentionCase{"group_of_seven", DType::BF16, {40, 257, 7, 1, 64, 6}, 0},
                    CudaAttentionCase{"group_of_eight", DType::BF16, {45, 193, 8, 1, 64, 4}, 0},
                    CudaAttentionCase{"group_of_sixteen", DType::BF16, {21, 65, 16, 1, 128, 3}, 0},
                    CudaAttentionCase{"many_visits", DType::BF16, {290, 450, 1, 1, 64, 32}, 0},
                    CudaAttentionCase{"pairs_in_pieces", DType::BF16, {72, 129, 16, 1, 64, 18}, 0},
                    CudaAttentionCase{"last_pair_in_pieces", DType::BF16, {72, 100, 16, 1, 64, 18}, 0},
                    CudaAttentionCase{"tiles_that_see_nothing", DType::BF16, {420, 70, 1, 1, 64, 70}, 0},
                    CudaAttentionCase{"slots_nobody_sees", DType::BF16, {130, 400, 1, 1, 64, 130}, 0},
                    CudaAttentionCase{
                        "head_128_at_odd_addresses", DType::BF16, {64, 70, 2, 1, 128, 3}, 0, 2}),
    case_name);

// Pairs of key tiles of which a query tile sees one, first or last, several times in a row, or alternately; and tiles that
// nobody sees.
TEST(CudaAttentionBackward, TakesHalvesOfPairs) {
    const int tiles_seen[][2] = {{1, 3}, {0, 0}, {0, 1}, {1, 1}, {1, 1}, {4, 4}, {0, 5}, {1, 2}, {0, 0}};
    for (const AttentionShape& shape : {AttentionShape{9 * 64, 7 * 64 - 3, 1, 1, 64, 64},
                                        AttentionShape{9 * 16, 7 * 64 - 3, 4, 1, 128, 16}}) {
        std::vector<AttentionSpans> see;
        for (int t = 0; t < shape.T; t++) {
            const auto [a, b] = tiles_seen[t / shape.block];
            const int skipped = t / shape.block % 3 * 9;  // none: the key tile is seen whole
            AttentionSpans spans{{64 * a + skipped, 0, 0}, {64 * (a + 1), 0, 0}};
            if (b > a) spans.begin[1] = 64 * b, spans.end[1] = 64 * (b + 1) - t / shape.block % 2 * 5;
            see.push_back(spans);
        }
        check_cuda_attention({"halves", DType::BF16, shape, 0}, see, true);
    }
}
