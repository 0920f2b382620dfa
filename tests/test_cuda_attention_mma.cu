// Span attention of many rows by mma.sync (attention.cu, attention_backward.cu) against the reference: what devices without wgmma
// take, at shapes for which CudaOps would take the other where there is one.
#pragma nv_diag_suppress 554  // Rows<const T> has a conversion to itself, which is never called
#include "kernels/cuda_indices.h"
#include "kernels/device/transfers.h"
#include "tests/cuda_attention.h"

namespace {

constexpr int WARPS = 4;  // of 16 rows each in a query tile

struct Tiled {
    Transfers transfers{nullptr};
    cuda::IndexMirrors indices{transfers};
    cuda::Workspace none{nullptr, 0};
    cuda::Context context{nullptr, none, nullptr};
    cuda::Attention a;
    cuda::DeviceTiles tiles;
    explicit Tiled(const cuda::Attention& attention)
        : a(attention),
          tiles(indices.attention_tiles(a.see, int(a.k.rows), cuda::tile_tokens(a, WARPS), WARPS, 0)) {}
    ~Tiled() { cudaStreamSynchronize(nullptr); }  // the lists are read until then
};

void forward(Ops&, Tensor out, Tensor lse, Tensor q, Tensor k, Tensor v, Tensor see, int heads,
             int kv_heads) {
    const Tiled on({q, k, v, see, heads, kv_heads});
    cuda::attention_forward_tiles(on.context, out, lse, on.a, on.tiles);
}
void backward(Ops&, Tensor dq, Tensor dk, Tensor dv, Tensor scratch, Tensor dout, Tensor out, Tensor lse,
              Tensor q, Tensor k, Tensor v, Tensor see, int heads, int kv_heads) {
    const Tiled on({q, k, v, see, heads, kv_heads});
    cuda::attention_row_sums(on.context, scratch, dout, out, heads);
    cuda::attention_backward_tiles(on.context, dq, dk, dv, scratch, dout, lse, on.a, on.tiles);
}

class CudaAttentionMma : public testing::TestWithParam<CudaAttentionCase> {};

TEST_P(CudaAttentionMma, AgreesWithTheReference) {
    check_cuda_attention(GetParam(), true, forward, backward);
}

INSTANTIATE_TEST_SUITE_P(
    ManyRows, CudaAttentionMma,
    testing::Values(CudaAttentionCase{"group_1", DType::BF16, {150, 200, 2, 2, 128, 16}, 8, 2},
                    CudaAttentionCase{"group_2", DType::BF16, {100, 193, 4, 2, 64, 5}, 0},
                    CudaAttentionCase{"group_3", DType::BF16, {50, 193, 6, 2, 64, 7}, 8},
                    CudaAttentionCase{"group_4", DType::BF16, {64, 257, 8, 2, 128, 4}, 0},
                    CudaAttentionCase{"group_7", DType::BF16, {40, 130, 7, 1, 128, 8}, 0},
                    CudaAttentionCase{"group_16", DType::BF16, {20, 150, 16, 1, 128, 4}, 0}),
    [](const auto& info) { return info.param.name; });

}  // namespace
