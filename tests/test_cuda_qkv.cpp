// Queries, keys and values in one pass over their projection: the same bits as one operation after the other, on the CPU and by the
// CUDA kernels.
#include "tests/cuda_testing.h"

struct QkvShape {
    DType dtype;
    int T, heads, kv_heads, HD, gap;
};
static void PrintTo(const QkvShape& s, std::ostream* out) {
    *out << name_of(s.dtype) << " " << s.T << " rows of " << s.heads << " and twice " << s.kv_heads
         << " heads of " << s.HD << (s.gap ? " with gaps" : "");
}

class QkvForwardTest : public testing::TestWithParam<QkvShape> {
  protected:
    struct Layer {
        bool queries, norm, cached;
    };
    void check(Ops& ops, const Layer& layer) const {
        const auto [dtype, T, heads, kv_heads, HD, gap] = GetParam();
        const int S = layer.cached ? 2 * T + 3 : T, CQ = heads * HD, CK = kv_heads * HD, POSITIONS = 7;
        const auto floats = [](int n, uint32_t seed) { return random_floats(size_t(n), seed); };
        const DeviceMatrix qkv(ops, T, CQ + 2 * CK, dtype, floats(T * (CQ + 2 * CK), 1), gap),
            q_norm(ops, 1, HD, DType::F32, floats(HD, 2)), k_norm(ops, 1, HD, DType::F32, floats(HD, 3)),
            rope(ops, POSITIONS, HD, DType::F32, floats(POSITIONS * HD, 4));
        const DeviceInts position(ops, random_ints(size_t(T), POSITIONS, 5));
        std::vector<int> slots;
        for (int t = 0; t < T; t++) slots.push_back(t % 4 == 2 ? -1 : 2 * (T - t));  // -1: not kept
        const DeviceInts slot(ops, slots);
        const auto norm = [&](const DeviceMatrix& weight) { return layer.norm ? Tensor(weight) : Tensor{}; };
        struct Outputs {
            DeviceMatrix q, q_rstd, k, k_rstd, v;
        };
        const auto outputs = [&] {
            const auto old = [&](int rows, int cols) {
                return DeviceMatrix(ops, rows, cols, dtype, floats(rows * cols, 6), gap);
            };
            return Outputs{old(T, CQ), DeviceMatrix(ops, T, heads, DType::F32, floats(T * heads, 6)),
                           old(S, CK), DeviceMatrix(ops, T, kv_heads, DType::F32, floats(T * kv_heads, 6)),
                           old(S, CK)};
        };
        const Outputs fused = outputs(), separate = outputs();

        const QkvForward arguments = {.q = layer.queries ? Tensor(fused.q) : Tensor{},
                                      .q_rstd = fused.q_rstd,
                                      .k = fused.k,
                                      .k_rstd = fused.k_rstd,
                                      .v = layer.cached ? Tensor(fused.v) : Tensor{},
                                      .slot = layer.cached ? Tensor(slot) : Tensor{},
                                      .qkv = qkv,
                                      .q_norm = norm(q_norm),
                                      .k_norm = norm(k_norm),
                                      .position = position,
                                      .rope = rope,
                                      .heads = heads,
                                      .kv_heads = kv_heads,
                                      .eps = 1e-6f};
        ops.qkv_forward(arguments);

        const Tensor raw = qkv;
        if (layer.queries)
            ops.head_norm_rope_forward(separate.q, separate.q_rstd, raw.col_range(0, CQ), norm(q_norm),
                                       position, rope, heads, 1e-6f);
        const DeviceMatrix k(ops, T, CK, dtype);
        ops.head_norm_rope_forward(layer.cached ? Tensor(k) : Tensor(separate.k), separate.k_rstd,
                                   raw.col_range(CQ, CQ + CK), norm(k_norm), position, rope, kv_heads, 1e-6f);
        for (int t = 0; layer.cached && t < T; t++) {
            if (slots[size_t(t)] < 0) continue;
            const Tensor row = Tensor(slot).col_range(t, t + 1);
            ops.scatter_rows(separate.k, Tensor(k).row_range(t, t + 1), row);
            ops.scatter_rows(separate.v, raw.col_range(CQ + CK, CQ + 2 * CK).row_range(t, t + 1), row);
        }
        for (const auto& [name, output] : {std::pair("q", &Outputs::q),
                                           {"q rstd", &Outputs::q_rstd},
                                           {"k", &Outputs::k},
                                           {"k rstd", &Outputs::k_rstd},
                                           {"v", &Outputs::v}})
            EXPECT_EQ((fused.*output).read(), (separate.*output).read())
                << name << (layer.queries ? "" : ", no queries") << (layer.norm ? "" : ", no norm")
                << (layer.cached ? ", cached" : "") << ", " << ops.device_name();
    }
    void check_all(Ops& ops) const {
        for (const bool queries : {true, false})
            for (const bool norm : {true, false})
                for (const bool cached : {true, false}) check(ops, {queries, norm, cached});
    }
};

TEST_P(QkvForwardTest, AsOneByOne) {
    check_all(*cuda_ops_for_tests());
    if (GetParam().dtype == DType::F32)  // as the CPU's activations are
        for (const auto& ops : cpu_variants()) check_all(*ops);
}

INSTANTIATE_TEST_SUITE_P(
    Ragged, QkvForwardTest,
    testing::Values(QkvShape{DType::F32, 1, 1, 1, 2, 0}, QkvShape{DType::F32, 5, 6, 2, 14, 3},
                    QkvShape{DType::F32, 33, 4, 2, 64, 0}, QkvShape{DType::BF16, 1, 8, 4, 128, 0},
                    QkvShape{DType::BF16, 5, 7, 1, 128, 8}, QkvShape{DType::BF16, 4, 9, 3, 32, 1},
                    QkvShape{DType::BF16, 261, 8, 4, 128, 0}));

TEST(QkvForward, RefusesWhatDoesNotFit) {
    const std::unique_ptr<Ops> ops = cuda_ops_for_tests();
    const DeviceMatrix qkv(*ops, 2, 64, DType::BF16), k(*ops, 2, 16, DType::BF16),
        rope(*ops, 4, 16, DType::F32);
    const DeviceInts position(*ops, {0, 1});
    QkvForward a;
    a.k = k, a.qkv = qkv, a.position = position, a.rope = rope, a.heads = 2, a.kv_heads = 1;
    ops->qkv_forward(a);
    a.heads = 3;  // of 64 columns five heads cannot be made
    EXPECT_THROW(ops->qkv_forward(a), Error);
}
