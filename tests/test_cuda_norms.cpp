// The CUDA kernels of norms, RoPE and embeddings against the references, in fp32 and bf16: ragged shapes, and those at which a kernel
// changes its plan.
#include "tests/cuda_shapes.h"
// after the references' scalar
#include "kernels/embedding.h"
#include "kernels/rmsnorm.h"
#include "kernels/rope.h"

// ---- rmsnorm ----

class CudaRmsnorm : public CudaShapes {
  protected:
    CudaRmsnorm() { ops = cuda_ops_for_tests(size_t(4) << 20); }
};

TEST_P(CudaRmsnorm, AgainstReference) {
    DeviceMatrix x = random(T, C, 1, 2, 0.5), w = random_vector(C, 2, 0.3, 1), d = random(T, C, 3);
    DeviceMatrix dx = random(T, C, 4), dw = gradient_vector(C, 5), out(*ops, T, C, dtype, gap),
                 rstd = statistic(T);
    const Expected want(dtype, [&]<class X>(X) {
        std::vector<X> o(size_t(T * C)), r(static_cast<size_t>(T)), gx = dx.values<X>(), gw = dw.values<X>();
        const auto xs = x.values<X>(), ws = w.values<X>(), ds = d.values<X>();
        ref::rmsnorm_forward<X>(rows(o, C), r.data(), rows(xs, C), ws.data(), T, C, 1e-6);
        ref::rmsnorm_backward<X>(rows(gx, C), gw.data(), rows(ds, C), r.data(), rows(xs, C), ws.data(), T, C);
        return Vectors<X>{o, r, gx, gw};
    });
    ops->rmsnorm_forward(out, rstd, x, w, 1e-6f);
    ops->rmsnorm_backward(dx, dw, d, rstd, x, w);
    want.check(out, 0, "out");
    want.check(rstd, 1, "rstd", false);
    want.check(dx, 2, "dinp");
    want.check(dw, 3, "dweight", false);
}

INSTANTIATE_TEST_SUITE_P(Ragged, CudaRmsnorm, RAGGED);
// Several warps to a row, rows to a block (fewer to the last) and rounds of a block; two packs to a thread of the backward pass; rows
// wider than the registers hold, odd ones too.
INSTANTIATE_TEST_SUITE_P(
    Plans, CudaRmsnorm,
    testing::Values(CudaShape{DType::BF16, 2099, 264, 8}, CudaShape{DType::BF16, 1031, 1032, 0},
                    CudaShape{DType::F32, 1101, 516, 0}, CudaShape{DType::BF16, 600, 16, 0},
                    CudaShape{DType::BF16, 3, 4104, 0}, CudaShape{DType::F32, 3, 2052, 0},
                    CudaShape{DType::BF16, 2, 8208, 0}, CudaShape{DType::F32, 2, 1039, 0},
                    CudaShape{DType::BF16, 300, 263, 0}));

// ---- q/k norm and RoPE ----

struct HeadShape {
    DType dtype;
    int T, heads, HD, gap;
};
static void PrintTo(const HeadShape& s, std::ostream* out) {
    *out << name_of(s.dtype) << " " << s.T << " rows of " << s.heads << " heads of " << s.HD
         << (s.gap ? " with gaps" : "");
}

class CudaRope : public testing::TestWithParam<HeadShape> {
  protected:
    std::unique_ptr<Ops> ops = cuda_ops_for_tests();
    const DType dtype = GetParam().dtype;
    const int T = GetParam().T, heads = GetParam().heads, HD = GetParam().HD, gap = GetParam().gap;

    DeviceMatrix random(int rows, int cols, uint32_t seed, double scale = 1) {
        return {*ops, rows, cols, dtype, random_floats(size_t(rows * cols), seed, scale), gap};
    }
    DeviceMatrix vector(int n, uint32_t seed, double scale = 1, double mean = 0) {
        return {*ops, 1, n, DType::F32, random_floats(size_t(n), seed, scale, mean)};
    }
};

TEST_P(CudaRope, AgainstReference) {
    const int POSITIONS = 9, CQ = heads * HD;
    const std::vector<int> position = random_ints(size_t(T), POSITIONS, 6);
    const DeviceInts device_position(*ops, position);
    const DeviceMatrix rope(*ops, POSITIONS, HD, DType::F32, random_floats(size_t(POSITIONS * HD), 7));
    for (const bool norm : {true, false}) {
        DeviceMatrix x = random(T, CQ, 1, 2), w = vector(HD, 2, 0.3, 1), d = random(T, CQ, 3);
        DeviceMatrix out(*ops, T, CQ, dtype, gap), dx(*ops, T, CQ, dtype, gap),
            rstd(*ops, T, heads, DType::F32);
        DeviceMatrix dw = vector(HD, 5);
        const Tensor weight = norm ? Tensor(w) : Tensor{}, saved = norm ? Tensor(rstd) : Tensor{};
        const Expected want(dtype, [&]<class X>(X) {
            std::vector<X> o(size_t(T * CQ)), r(size_t(T * heads)), gx(size_t(T * CQ)), gw = dw.values<X>();
            const auto xs = x.values<X>(), ws = w.values<X>(), ds = d.values<X>(), table = rope.values<X>();
            ref::head_norm_rope_forward<X>(rows(o, CQ), rows(r, heads), rows(xs, CQ),
                                           norm ? ws.data() : nullptr, position.data(), rows(table, HD), T,
                                           heads, HD, 1e-6);
            ref::head_norm_rope_backward<X>(rows(gx, CQ), gw.data(), rows(ds, CQ), rows(r, heads),
                                            rows(xs, CQ), norm ? ws.data() : nullptr, position.data(),
                                            rows(table, HD), T, heads, HD);
            return Vectors<X>{o, r, gx, gw};
        });
        ops->head_norm_rope_forward(out, saved, x, weight, device_position, rope, heads, 1e-6f);
        ops->head_norm_rope_backward(dx, norm ? Tensor(dw) : Tensor{}, d, saved, x, weight, device_position,
                                     rope, heads);
        want.check(out, 0, "out");
        want.check(dx, 2, "dinp");
        if (!norm) continue;
        want.check(rstd, 1, "rstd", false);
        want.check(dw, 3, "dweight", false);
    }
}

INSTANTIATE_TEST_SUITE_P(
    Ragged, CudaRope,
    testing::Values(HeadShape{DType::F32, 1, 1, 2, 0}, HeadShape{DType::F32, 5, 3, 12, 0},
                    HeadShape{DType::F32, 3, 3, 30, 3}, HeadShape{DType::F32, 67, 3, 32, 1},
                    HeadShape{DType::F32, 2, 3, 256, 0}, HeadShape{DType::F32, 131, 9, 8, 4},
                    HeadShape{DType::BF16, 1, 2, 2, 0}, HeadShape{DType::BF16, 5, 3, 24, 0},
                    HeadShape{DType::BF16, 66, 3, 32, 8}, HeadShape{DType::BF16, 3, 5, 96, 0},
                    HeadShape{DType::BF16, 300, 8, 256, 0}));
// The sizes that have kernels of their own: heads by the group and one by one, aligned and not, few and many, and more than go
// into one round of the backward pass.
INSTANTIATE_TEST_SUITE_P(
    Plans, CudaRope,
    testing::Values(HeadShape{DType::BF16, 1, 4, 128, 0}, HeadShape{DType::BF16, 33, 6, 128, 8},
                    HeadShape{DType::BF16, 33, 4, 128, 1}, HeadShape{DType::BF16, 530, 8, 128, 0},
                    HeadShape{DType::BF16, 4, 36, 64, 0}, HeadShape{DType::F32, 9, 3, 64, 4},
                    HeadShape{DType::F32, 520, 16, 64, 0}, HeadShape{DType::F32, 3, 34, 128, 0}));

// ---- embedding ----

class CudaEmbedding : public CudaShapes {
  protected:
    CudaEmbedding() { ops = cuda_ops_for_tests(size_t(4) << 20); }
};

TEST_P(CudaEmbedding, AgainstReference) {
    const int V = 7;
    std::vector<int> token = random_ints(size_t(T), V, 1);
    for (int t = 0; t < T; t++)
        if (t % 3) token[size_t(t)] = V - 1;  // the mask token: many rows of one id
    const DeviceInts device_token(*ops, token);
    DeviceMatrix w = random(V, C, 2), d = random(T, C, 3), out(*ops, T, C, dtype, gap),
                 dw = gradient(V, C, 4);
    const Expected want(dtype, [&]<class X>(X) {
        std::vector<X> o(size_t(T * C)), gw = dw.values<X>();
        const auto ws = w.values<X>(), ds = d.values<X>();
        ref::embedding_forward<X>(rows(o, C), token.data(), rows(ws, C), T, C);
        ref::embedding_backward<X>(rows(gw, C), rows(ds, C), token.data(), T, C);
        return Vectors<X>{o, gw};
    });
    ops->embedding_forward(out, device_token, w);
    ops->embedding_backward(dw, d, device_token);
    want.check(out, 0, "out");
    want.check(dw, 1, "dweight", false);
}

INSTANTIATE_TEST_SUITE_P(Ragged, CudaEmbedding, RAGGED);
// Rows of one id cut into many pieces, and rows that several blocks share.
INSTANTIATE_TEST_SUITE_P(Plans, CudaEmbedding,
                         testing::Values(CudaShape{DType::BF16, 3000, 24, 0},
                                         CudaShape{DType::F32, 3000, 5, 2},
                                         CudaShape{DType::BF16, 150, 1032, 0},
                                         CudaShape{DType::F32, 40, 1028, 0}));

// ---- what holds for all of them ----

// A row's result is the same bits whatever else is in the batch, however many rows a kernel then takes at a time.
TEST(CudaNorms, RowsDoNotDependOnTheirBatch) {
    const std::unique_ptr<Ops> ops = cuda_ops_for_tests();
    const int T = 1100, heads = 8, HD = 64, C = heads * HD, FEW = 3;
    for (const DType dtype : {DType::F32, DType::BF16}) {
        const DeviceMatrix x(*ops, T, C, dtype, random_floats(size_t(T * C), 1)),
            w(*ops, 1, C, DType::F32, random_floats(size_t(C), 2)),
            head_w(*ops, 1, HD, DType::F32, random_floats(size_t(HD), 3)),
            rope(*ops, T, HD, DType::F32, random_floats(size_t(T * HD), 4));
        std::vector<int> place(static_cast<size_t>(T));
        for (int t = 0; t < T; t++) place[size_t(t)] = t;
        const DeviceInts position(*ops, place);
        const auto run = [&](int rows) {
            DeviceMatrix normed(*ops, rows, C, dtype), rotated(*ops, rows, C, dtype),
                rstd(*ops, 1, rows, DType::F32), head_rstd(*ops, rows, heads, DType::F32);
            const Tensor some = Tensor(x).row_range(0, rows);
            ops->rmsnorm_forward(normed, rstd, some, w, 1e-6f);
            ops->head_norm_rope_forward(rotated, head_rstd, some, head_w, Tensor(position).col_range(0, rows),
                                        rope, heads, 1e-6f);
            return std::vector{normed.read(), rstd.read(), rotated.read(), head_rstd.read()};
        };
        const auto all = run(T), few = run(FEW);
        for (size_t i = 0; i < all.size(); i++)
            EXPECT_EQ(std::vector(all[i].begin(), all[i].begin() + std::ptrdiff_t(few[i].size())), few[i]);
    }
}
