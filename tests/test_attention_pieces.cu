// Span attention forward over given tiles and pieces: more pieces of one tile than the join reads at a time, which the sizes of
// other tests do not reach.
#pragma nv_diag_suppress 554  // Rows<const T> converts to itself
#include "kernels/cuda_indices.h"
#include "tests/cuda_attention.h"

struct PiecesCase {
    int HD, warps, tokens, split;
};
void PrintTo(const PiecesCase& c, std::ostream* out) { *out << "HD " << c.HD << ", " << c.warps << " warps"; }
class CudaAttentionPieces : public testing::TestWithParam<PiecesCase> {};

TEST_P(CudaAttentionPieces, AreJoinedHoweverManyThereAre) {
    const PiecesCase c = GetParam();
    const AttentionShape shape{c.tokens, 45 * KEY_TILE + 5, 4, 2, c.HD, 1};
    const auto [T, S, NH, NKV, HD, block] = shape;
    std::vector<AttentionSpans> see;
    see.push_back({});  // nothing: its part of every piece is empty, and the tokens behind it share its tile
    for (int t = 1; t < T; t++) see.push_back({{3, 0, 0}, {S - T + t + 1, 0, 0}});
    see.back().begin[0] = S - 100;  // the last pieces alone
    const std::unique_ptr<Ops> ops = cuda_ops_for_tests();
    const auto random = [&](int rows, int cols, uint32_t seed, double scale) {
        return DeviceMatrix(*ops, rows, cols, DType::BF16, random_floats(size_t(rows * cols), seed, scale));
    };
    const DeviceMatrix q = random(T, NH * HD, 1, 2), k = random(S, NKV * HD, 2, 1),
                       v = random(S, NKV * HD, 3, 1);
    const DeviceInts device_see(*ops, as_ints(see), SPAN_INTS);
    const Expected want(DType::BF16, [&]<class X>(X) {
        std::vector<X> out(size_t(T * NH * HD)), lse(size_t(T * NH));
        const std::vector<X> q_values = q.values<X>(), k_values = k.values<X>(), v_values = v.values<X>();
        ref::attention_forward<X>(rows(out, NH * HD), rows(lse, NH), rows(q_values, NH * HD),
                                  rows(k_values, NKV * HD), rows(v_values, NKV * HD), see.data(), T, NH, NKV,
                                  HD);
        return Vectors<X>{out, lse};
    });

    Transfers transfers(nullptr);
    cuda::IndexMirrors indices(transfers);
    const Tensor spans = device_see;
    indices.remember(spans, see.data());
    const cuda::Attention attention{q, k, v, spans, NH, NKV};
    const cuda::DeviceTiles tiles =
        indices.attention_tiles(spans, S, cuda::tile_tokens(attention, c.warps), c.warps, c.split);
    ASSERT_GE(tiles.parts, 46 / c.split);
    cuda::DeviceBuffer scratch;
    const size_t bytes =
        size_t(tiles.parts) * size_t(NKV * 16 * c.warps) * size_t(HD + 1) * sizeof(float) + 1024;
    cuda::Workspace workspace(scratch.at_least(bytes), bytes);
    const DeviceMatrix out(*ops, T, NH * HD, DType::BF16), lse(*ops, T, NH, DType::F32);
    cuda::attention_forward_tiles({nullptr, workspace, nullptr}, out, lse, attention, tiles);
    want.check(out, ATT_OUT, "out");
    expect_lse(lse, want.exact(ATT_LSE));
}

// 46 pieces for each of two query tiles, and 23 for one; of a tile with rows for two warps the second alone sees the last slots.
INSTANTIATE_TEST_SUITE_P(Joined, CudaAttentionPieces,
                         testing::Values(PiecesCase{32, 1, 9, 1}, PiecesCase{64, 2, 14, 2},
                                         PiecesCase{128, 4, 3, 2}));

// What a recording holds of its lists: sizes and places. They are to serve a context that grows, not to be recorded anew with
// every tile of keys that it begins: cut into pieces, as in small batches, and whole.
TEST(CudaAttentionLists, AreSeldomOfOtherSizesWhileContextsGrow) {
    const std::unique_ptr<Ops> ops = cuda_ops_for_tests();
    constexpr int SEQUENCES = 3, ROWS = 4, MOST = 1100;
    const DeviceInts device_see(*ops, std::vector<int>(SEQUENCES * ROWS * SPAN_INTS), SPAN_INTS);
    const Tensor spans = device_see;
    for (const auto& [split, pieces] : {std::pair{2, 32},  // of 16 or 17 visits each, two to a piece
                                        {0, SEQUENCES}}) {
        Transfers transfers(nullptr);
        cuda::IndexMirrors indices(transfers);
        int changes = 0;
        cuda::DeviceTiles before{};
        for (int context = 100; context < 1000; context += ROWS) {
            std::vector<AttentionSpans> see;
            for (int i = 0; i < SEQUENCES; i++)
                for (int t = 0; t < ROWS; t++)
                    see.push_back({{0, i * MOST, 0}, {0, i * MOST + context + 30 * i, 0}});
            indices.remember(spans, see.data());
            const cuda::DeviceTiles tiles = indices.attention_tiles(spans, SEQUENCES * MOST, 8, 2, split);
            changes += !(tiles == before);
            before = tiles;
        }
        EXPECT_EQ(before.n_pieces, pieces) << "split " << split;
        EXPECT_LE(changes, 12) << "in three doublings, split " << split;
    }
}
