// Span attention forward on tensor cores (attention.cu) against the reference: tiles of many rows, and the pieces of few rows that
// decoding takes. (Backward and the kernels of fp32 mode: test_cuda_attention_backward.cpp, test_cuda_attention_rows.cpp.)
#include "tests/cuda_attention.h"

class CudaAttention : public testing::TestWithParam<CudaAttentionCase> {};

TEST_P(CudaAttention, ForwardAgreesWithTheReference) { check_cuda_attention(GetParam(), false); }

// Tiles of 64 rows; few of them, whose keys are split.
INSTANTIATE_TEST_SUITE_P(
    Ragged, CudaAttention,
    testing::Values(CudaAttentionCase{"one_row", DType::BF16, {1, 1, 1, 1, 32, 1}, 0},
                    CudaAttentionCase{"tiles", DType::BF16, {70, 130, 2, 1, 32, 4}, 8},
                    CudaAttentionCase{"many_tiles", DType::BF16, {260, 65, 4, 4, 32, 64}, 0},
                    CudaAttentionCase{"group_of_three", DType::BF16, {30, 193, 6, 2, 32, 7}, 0},
                    CudaAttentionCase{"head_64", DType::BF16, {33, 129, 2, 1, 64, 16}, 0},
                    CudaAttentionCase{"head_128", DType::BF16, {18, 100, 2, 1, 128, 9}, 0},
                    CudaAttentionCase{"full_tiles_of_128", DType::BF16, {200, 150, 2, 1, 64, 200}, 0}),
    case_name);

// Sequences of 1 to 64 rows over long contexts, at every head size, query heads packed by group.
INSTANTIATE_TEST_SUITE_P(
    Decoding, CudaAttention,
    testing::Values(CudaAttentionCase{"one_row_128", DType::BF16, {2, 330, 2, 1, 128, 1}, 0},
                    CudaAttentionCase{"four_rows_32", DType::BF16, {12, 700, 4, 2, 32, 4}, 0},
                    CudaAttentionCase{"four_rows_64", DType::BF16, {8, 500, 8, 2, 64, 4}, 0},
                    CudaAttentionCase{"many_sequences", DType::BF16, {36, 400, 4, 2, 32, 4}, 0},
                    CudaAttentionCase{"sixteen_rows_128", DType::BF16, {16, 300, 4, 2, 128, 16}, 0},
                    CudaAttentionCase{"sixtyfour_rows_32", DType::BF16, {128, 600, 4, 1, 32, 64}, 0},
                    CudaAttentionCase{"sixtyfour_rows_64", DType::BF16, {64, 300, 2, 1, 64, 64}, 8}),
    case_name);

// Sequences that share nothing, so that every one has query tiles of its own: of 16, 32 or 64 rows, `tokens` times the query
// heads of a group. Contexts of less than what one group of warps takes of a key tile, of several key tiles, and long enough to
// be cut into pieces; they begin anywhere. The last sequence sees nothing.
struct SequencesCase {
    const char* name;
    int tokens, group, kv_heads, HD;
};
void PrintTo(const SequencesCase& c, std::ostream* out) { *out << c.name; }
class CudaAttentionSequences : public testing::TestWithParam<SequencesCase> {};

TEST_P(CudaAttentionSequences, AgreeWithTheReference) {
    const SequencesCase c = GetParam();
    std::vector<AttentionSpans> see;
    int slot = 0;
    for (const int context : {1, 640, 13, 0, 41, 150}) {
        const int own = slot + context + 7, end = own + c.tokens;
        see.insert(see.end(), size_t(c.tokens), {{slot, own, 0}, {slot + context, end, 0}});
        slot = end + 3;
    }
    see.insert(see.end(), size_t(c.tokens), AttentionSpans{});
    const int heads = c.group * c.kv_heads;
    check_cuda_attention(
        {c.name, DType::BF16, {int(see.size()), slot - 3, heads, c.kv_heads, c.HD, c.tokens}, 0}, see, false);
}

INSTANTIATE_TEST_SUITE_P(
    Tiles, CudaAttentionSequences,
    testing::Values(
        SequencesCase{"rows_16_group_1", 16, 1, 2, 32}, SequencesCase{"rows_16_group_2", 8, 2, 2, 64},
        SequencesCase{"rows_16_group_4", 4, 4, 2, 128}, SequencesCase{"rows_16_group_8", 2, 8, 1, 32},
        SequencesCase{"rows_15_group_3", 5, 3, 1, 32}, SequencesCase{"rows_32_group_1", 32, 1, 1, 64},
        SequencesCase{"rows_32_group_2", 16, 2, 1, 32}, SequencesCase{"rows_32_group_4", 8, 4, 1, 128},
        SequencesCase{"rows_32_group_8", 4, 8, 2, 32}, SequencesCase{"rows_64_group_1", 64, 1, 1, 32},
        SequencesCase{"rows_64_group_2", 32, 2, 1, 32}, SequencesCase{"rows_64_group_4", 16, 4, 1, 64},
        SequencesCase{"rows_64_group_8", 8, 8, 1, 128}),
    [](const auto& info) { return info.param.name; });

// A batch lays its spans where the last one had others: what was made from those is not used again.
TEST(CudaAttention, ANewBatchMakesNewTiles) {
    const int T = 20, S = 200, HD = 32;
    const std::unique_ptr<Ops> ops = cuda_ops_for_tests();
    const DeviceMatrix q(*ops, T, HD, DType::BF16, random_floats(T * HD, 1)),
        k(*ops, S, HD, DType::BF16, random_floats(S * HD, 2));
    const DeviceMatrix v(*ops, S, HD, DType::BF16, random_floats(S * HD, 3));
    const DeviceInts see(*ops, std::vector<int>(T * SPAN_INTS), SPAN_INTS);
    for (const int first : {0, 100, 37}) {
        const std::vector<AttentionSpans> spans(T, AttentionSpans{{first, 0, 0}, {first + 1, 0, 0}});
        ops->upload(see, spans.data());
        DeviceMatrix out(*ops, T, HD, DType::BF16), lse(*ops, T, 1, DType::F32);
        ops->attention_forward(out, lse, q, k, v, see, 1, 1);
        const std::vector<double> o = out.read(), values = v.values();
        for (int t = 0; t < T; t++)  // one slot only: its value
            for (int i = 0; i < HD; i++) ASSERT_EQ(o[size_t(t * HD + i)], values[size_t(first * HD + i)]);
    }
}

// Of tiles that are whole, and cut into pieces.
TEST(CudaAttention, ExtremeScoresAreNotLost) {
    check_extreme_scores(DType::BF16, 70, 90, 32);
    check_extreme_scores(DType::BF16, 7, 700, 64);
}

// The longer the keys, the more partial results: where they do not fit in the workspace the pieces grow.
TEST(CudaAttention, LongContextsFitInAnyWorkspace) {
    const int S = 2000, HD = 32;
    const std::unique_ptr<Ops> ops = cuda_ops_for_tests(16 << 10);
    const std::vector<AttentionSpans> spans = {{{0, 0, 0}, {S, 0, 0}}};
    const DeviceInts see(*ops, as_ints(spans), SPAN_INTS);
    const DeviceMatrix q(*ops, 1, HD, DType::BF16, std::vector<float>(HD, 0));
    const DeviceMatrix k(*ops, S, HD, DType::BF16, random_floats(S * HD, 1)),
        v(*ops, S, HD, DType::BF16, random_floats(S * HD, 2));
    DeviceMatrix out(*ops, 1, HD, DType::BF16), lse(*ops, 1, 1, DType::F32);
    ops->attention_forward(out, lse, q, k, v, see, 1, 1);
    EXPECT_NEAR(lse.read()[0], std::log(2000.0), 1e-5);  // all scores are 0: the mean of the values
    const std::vector<double> o = out.read(), values = v.values();
    for (int i = 0; i < HD; i++) {
        double mean = 0;
        for (int s = 0; s < S; s++) mean += values[size_t(s * HD + i)] / S;
        EXPECT_NEAR(o[size_t(i)], mean, std::abs(mean) * 0x1p-8 + 1e-6);
    }
}
