// Span attention forward on Hopper's wgmma (attention_wgmma.cu) against the reference: the kernel itself, at shapes for
// which CudaOps would take another.
#pragma nv_diag_suppress 554  // Rows<const T> has a conversion to itself, which is never called
#include "kernels/cuda_indices.h"
#include "kernels/device/transfers.h"
#include "kernels/device/wgmma.h"
#include "tests/cuda_attention.h"

static void forward_on_wgmma(Ops&, Tensor out, Tensor lse, Tensor q, Tensor k, Tensor v, Tensor see,
                             int heads, int kv_heads) {
    Transfers transfers(nullptr);
    cuda::IndexMirrors indices(transfers);
    cuda::Workspace none(nullptr, 0);
    const cuda::Attention a{q, k, v, see, heads, kv_heads};
    ASSERT_TRUE(cuda::attention_on_wgmma(a));
    const int tokens = cuda::tile_tokens(a, cuda::WGMMA_WARPS);
    cuda::attention_forward_wgmma({nullptr, none, nullptr}, out, lse, a,
                                  indices.attention_tiles(see, int(k.rows), tokens, cuda::WGMMA_WARPS, 0));
    CUDA_CHECK(cudaStreamSynchronize(nullptr));
}

class CudaAttentionWgmma : public testing::TestWithParam<CudaAttentionCase> {};

TEST_P(CudaAttentionWgmma, ForwardAgreesWithTheReference) {
    if (!device_has_wgmma()) GTEST_SKIP() << "this device has no wgmma";
    check_cuda_attention(GetParam(), false, forward_on_wgmma);
}

// Every group that divides a tile's 128 rows and one that does not, both head sizes; ends of slots in the middle of a
// key tile. The second block of rows sees all slots, the sixth none.
INSTANTIATE_TEST_SUITE_P(
    Ragged, CudaAttentionWgmma,
    testing::Values(CudaAttentionCase{"one_row", DType::BF16, {1, 1, 1, 1, 128, 1}, 0},
                    CudaAttentionCase{"few_rows", DType::BF16, {7, 70, 2, 1, 64, 1}, 0},
                    CudaAttentionCase{"group_1", DType::BF16, {150, 200, 2, 2, 128, 16}, 8, 2},
                    CudaAttentionCase{"group_1_full", DType::BF16, {260, 321, 1, 1, 64, 128}, 0},
                    CudaAttentionCase{"group_2", DType::BF16, {100, 193, 4, 2, 128, 5}, 0},
                    CudaAttentionCase{"group_3", DType::BF16, {50, 193, 6, 2, 64, 7}, 8},
                    CudaAttentionCase{"group_4", DType::BF16, {64, 257, 8, 2, 64, 4}, 0},
                    CudaAttentionCase{"group_4_full", DType::BF16, {70, 470, 4, 1, 128, 32}, 0},
                    CudaAttentionCase{"group_8", DType::BF16, {40, 130, 8, 1, 128, 3}, 0},
                    CudaAttentionCase{"group_16", DType::BF16, {20, 449, 16, 1, 64, 8}, 0},
                    CudaAttentionCase{"group_16_wide", DType::BF16, {9, 65, 16, 1, 128, 1}, 0, 2}),
    case_name);

// Maxima that keep growing, so that the rows' bases have to move.
INSTANTIATE_TEST_SUITE_P(
    Growing, CudaAttentionWgmma,
    testing::Values(CudaAttentionCase{"slowly", DType::BF16, {64, 640, 4, 1, 64, 32}, 0, -1, 0.01},
                    CudaAttentionCase{"quickly", DType::BF16, {70, 450, 4, 1, 128, 32}, 0, -1, 0.3}),
    case_name);

// Blocks that take one tile after the other, of any number of visits down to none: copies for a tile begin while
// those before are computed. Neighbours see other slots, so that each token has a tile of its own.
TEST(CudaAttentionWgmma, TakesTileAfterTile) {
    if (!device_has_wgmma()) GTEST_SKIP() << "this device has no wgmma";
    const int tiles_seen[][2] = {{9, 1}, {6, 2}, {4, 4}, {3, 3}, {2, 1},
                                 {1, 1}, {5, 2}, {3, 1}, {2, 2}, {1, 7}};
    for (const int HD : {64, 128}) {
        std::vector<AttentionSpans> see;
        for (int round = 0; round < 10; round++)
            for (int i = 0; i < tiles_seen[round][1] * 2; i++) {
                const int n = tiles_seen[round][0], first = see.size() % 2 ? 10 : 0;
                see.push_back({{64 * first + (i % 3) * 5, 0, 0}, {64 * (first + n) - i % 2 * 17, 0, 0}});
            }
        see.resize(see.size() + 300);  // tokens that see nothing
        const AttentionShape shape{int(see.size()), 19 * 64 - 3, 2, 2, HD, 1};
        check_cuda_attention({"tile_after_tile", DType::BF16, shape, 0}, see, false, forward_on_wgmma);
    }
}

TEST(CudaAttentionWgmma, ExtremeScoresAreNotLost) {
    if (!device_has_wgmma()) GTEST_SKIP() << "this device has no wgmma";
    check_extreme_scores(DType::BF16, 130, 90, 64, forward_on_wgmma);
}
