// Span attention on CUDA against the reference: the tensor-core tiles, the split decoding kernel, and the row
// kernels of fp32 mode.
#include "tests/cuda_testing.h"
// after the references' scalar
#include "kernels/attention.h"

namespace {

struct Shape {
    const char* name;
    DType dtype;
    int T, S, NH, NKV, HD, block, gap;  // rows of one block see the same
};
void PrintTo(const Shape& s, std::ostream* out) { *out << s.name; }

// Disjoint spans, any of them empty; one block sees everything, every sixth sees nothing.
std::vector<AttentionSpans> random_spans(const Shape& shape) {
    Rng rng(uint64_t(shape.T * 31 + shape.S), Stream::Noise, 5);
    std::vector<AttentionSpans> out;
    for (int t = 0; t < shape.T; t++) {
        if (t % shape.block) {
            out.push_back(out.back());
            continue;
        }
        AttentionSpans see;
        int at = 0;
        for (int r = 0; r < 3 && t / shape.block % 6 != 5; r++) {
            see.begin[r] = at + int(rng.below(uint32_t(shape.S - at) / 2 + 1));
            see.end[r] =
                see.begin[r] + (rng.below(4) ? int(rng.below(uint32_t(shape.S - see.begin[r] + 1))) : 0);
            at = see.end[r];
        }
        if (t / shape.block == 1) see = {{0, 0, 0}, {shape.S, 0, 0}};
        out.push_back(see);
    }
    return out;
}

std::vector<int> as_ints(const std::vector<AttentionSpans>& see) {
    const int* first = see[0].begin;
    return {first, first + see.size() * SPAN_INTS};
}

class CudaAttention : public testing::TestWithParam<Shape> {};

}  // namespace

TEST_P(CudaAttention, ForwardAndBackward) {
    const Shape shape = GetParam();
    const auto [name, dtype, T, S, NH, NKV, HD, block, gap] = shape;
    const int CQ = NH * HD, CK = NKV * HD;
    const std::unique_ptr<Ops> ops = cuda_ops_for_tests();
    const std::vector<AttentionSpans> see = random_spans(shape);
    const DeviceInts device_see(*ops, as_ints(see), SPAN_INTS);
    const auto random = [&](int rows, int cols, uint32_t seed, double scale) {
        return DeviceMatrix(*ops, rows, cols, dtype, random_floats(size_t(rows * cols), seed, scale), gap);
    };
    const DeviceMatrix q = random(T, CQ, 1, 2), k = random(S, CK, 2, 1), v = random(S, CK, 3, 1),
                       d = random(T, CQ, 4, 1);
    const Expected want(dtype, [&, T = T, S = S, NH = NH, NKV = NKV, HD = HD]<class X>(X) {
        std::vector<X> o(size_t(T * CQ)), l(size_t(T * NH)), D(size_t(T * NH)), gq(size_t(T * CQ)),
            gk(size_t(S * CK)), gv(size_t(S * CK));
        const auto qs = q.values<X>(), ks = k.values<X>(), vs = v.values<X>(), ds = d.values<X>();
        ref::attention_forward<X>(rows(o, CQ), rows(l, NH), rows(qs, CQ), rows(ks, CK), rows(vs, CK),
                                  see.data(), T, NH, NKV, HD);
        ref::attention_backward<X>(rows(gq, CQ), rows(gk, CK), rows(gv, CK), rows(D, NH), rows(ds, CQ),
                                   rows(o, CQ), rows(l, NH), rows(qs, CQ), rows(ks, CK), rows(vs, CK),
                                   see.data(), T, S, NH, NKV, HD);
        return Vectors<X>{o, gq, gk, gv, l};
    });
    std::vector<double> first;
    for (int run = 0; run < 2; run++) {
        DeviceMatrix out(*ops, T, CQ, dtype, gap), lse(*ops, T, NH, DType::F32),
            sums(*ops, T, NH, DType::F32);
        DeviceMatrix dq(*ops, T, CQ, dtype, gap), dk(*ops, S, CK, dtype, gap), dv(*ops, S, CK, dtype, gap);
        ops->attention_forward(out, lse, q, k, v, device_see, NH, NKV);
        ops->attention_backward(dq, dk, dv, sums, d, out, lse, q, k, v, device_see, NH, NKV);
        want.check(out, 0, "out");
        want.check(dq, 1, "dq");
        want.check(dk, 2, "dk");
        want.check(dv, 3, "dv");
        const std::vector<double> l = lse.read();
        for (size_t i = 0; i < l.size(); i++) {
            const double exact = want.exact(4)[i];
            if (std::isinf(exact)) {
                ASSERT_EQ(l[i], -INFINITY) << "a row that sees nothing";
            } else {  // scores are sums in fp32 of exact products
                ASSERT_NEAR(l[i], exact, 1e-5 * std::max(1.0, std::abs(exact))) << "lse, element " << i;
            }
        }
        std::vector<double> all = out.read();
        for (const DeviceMatrix* m : {&dq, &dk, &dv})
            for (const double x : m->read()) all.push_back(x);
        if (run == 0) first = all;
        EXPECT_EQ(all, first) << "the same bits every time";
    }
}

INSTANTIATE_TEST_SUITE_P(Ragged, CudaAttention,
                         testing::Values(Shape{"one_row", DType::F32, 1, 1, 1, 1, 2, 1, 0},
                                         Shape{"fp32_groups", DType::F32, 13, 37, 4, 2, 20, 4, 3},
                                         Shape{"fp32_wide", DType::F32, 5, 70, 2, 1, 40, 2, 0},
                                         Shape{"bf16_odd_head", DType::BF16, 9, 40, 4, 2, 12, 3, 1},
                                         Shape{"one_bf16_row", DType::BF16, 1, 1, 1, 1, 32, 1, 0},
                                         Shape{"tiles", DType::BF16, 70, 130, 2, 1, 32, 4, 8},
                                         Shape{"several_query_tiles", DType::BF16, 150, 65, 2, 2, 32, 64, 0},
                                         Shape{"group_of_three", DType::BF16, 30, 193, 6, 2, 32, 7, 0},
                                         Shape{"head_64", DType::BF16, 33, 129, 2, 1, 64, 16, 0},
                                         Shape{"head_128", DType::BF16, 18, 100, 2, 1, 128, 9, 0},
                                         Shape{"decoding_splits", DType::BF16, 12, 700, 4, 2, 32, 4, 0},
                                         Shape{"decoding_128", DType::BF16, 2, 330, 2, 1, 128, 1, 0}),
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

TEST(CudaAttention, LargeScoresDoNotOverflow) {
    const int S = 90, HD = 32;
    const std::unique_ptr<Ops> ops = cuda_ops_for_tests();
    const std::vector<AttentionSpans> spans = {{{0, 0, 0}, {S, 0, 0}}};
    const DeviceInts see(*ops, as_ints(spans), SPAN_INTS);
    for (const DType dtype : {DType::F32, DType::BF16}) {
        const DeviceMatrix q(*ops, 1, HD, dtype, std::vector<float>(HD, 50)),
            k(*ops, S, HD, dtype, std::vector<float>(S * HD, 50));
        const DeviceMatrix v(*ops, S, HD, dtype, std::vector<float>(S * HD, 3));
        DeviceMatrix out(*ops, 1, HD, dtype), lse(*ops, 1, 1, DType::F32);
        ops->attention_forward(out, lse, q, k, v, see, 1, 1);
        for (const double x : out.read()) EXPECT_NEAR(x, 3, 1e-5);
    }
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
