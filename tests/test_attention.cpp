#include "tests/attention_reference.h"

namespace {

TEST(Attention, BackwardAgainstComplexStep) {
    const int T = 4, S = 7, NH = 4, NKV = 2, HD = 3, CQ = NH * HD, CK = NKV * HD;
    const std::vector<AttentionSpans> see = {
        {{0, 3, 6}, {2, 5, 7}}, {{0, 0, 4}, {7, 0, 5}}, {{0, 0, 0}, {0, 0, 0}}, {{3, 0, 0}, {4, 0, 0}}};
    const auto q = normals(T * CQ, 1), k = normals(S * CK, 2), v = normals(S * CK, 3), d = normals(T * CQ, 4);
    std::vector<double> out(T * CQ), lse(T * NH), D(T * NH), dq(T * CQ, 99.0), dk(S * CK, 99.0),
        dv(S * CK, 99.0);
    ref::attention_forward<double>(rows(out, CQ), rows(lse, NH), rows(q, CQ), rows(k, CK), rows(v, CK),
                                   see.data(), T, NH, NKV, HD);
    ref::attention_backward<double>(rows(dq, CQ), rows(dk, CK), rows(dv, CK), rows(D, NH), rows(d, CQ),
                                    rows(out, CQ), rows(lse, NH), rows(q, CQ), rows(k, CK), rows(v, CK),
                                    see.data(), T, S, NH, NKV, HD);
    expect_gradients({q, k, v}, {dq, dk, dv}, [&](const Vectors<Complex>& in) {
        std::vector<Complex> o(T * CQ), l(T * NH);
        ref::attention_forward<Complex>(rows(o, CQ), rows(l, NH), rows(in[0], CQ), rows(in[1], CK),
                                        rows(in[2], CK), see.data(), T, NH, NKV, HD);
        return dot(o, d);
    });
}

Tensor spans_tensor(std::vector<AttentionSpans>& see) {
    return tensor(see.data(), int64_t(see.size()), SPAN_INTS, DType::I32);
}

struct Shape {
    AttentionShape sizes;
    int gap;
};

class AttentionShapes : public testing::TestWithParam<Shape> {};

TEST_P(AttentionShapes, CpuAgainstReference) {
    const auto [shape, gap] = GetParam();
    const auto [T, S, NH, NKV, HD, block] = shape;
    const int CQ = NH * HD, CK = NKV * HD;
    std::vector<AttentionSpans> see = random_spans(shape, uint32_t(T * 31 + S));
    for (const auto& ops : cpu_variants()) {
        SCOPED_TRACE(ops->device_name());
        Matrix q = Matrix::random(T, CQ, 1, gap, 2), k = Matrix::random(S, CK, 2, gap),
               v = Matrix::random(S, CK, 3, gap), d = Matrix::random(T, CQ, 4, gap);
        Matrix out(T, CQ, gap), lse(T, NH), D(T, NH), dq(T, CQ, gap, 9), dk(S, CK, gap, 9), dv(S, CK, gap, 9);
        const auto run = [&, shape = shape]<class X>(X) {
            Vectors<X> all = attention_reference<X>(shape, see, q.values<X>(), k.values<X>(), v.values<X>(),
                                                    d.values<X>());
            for (X& x : all[ATT_LSE])
                if (std::isinf(x)) x = -1e30f;  // sees nothing
            return all;
        };
        const auto exact = run(double());
        const auto single = run(float());
        ops->attention_forward(out, lse, q, k, v, spans_tensor(see), NH, NKV);
        ops->attention_backward(dq, dk, dv, D, d, out, lse, q, k, v, spans_tensor(see), NH, NKV);
        expect_close(out, exact[0], single[0]);
        for (int t = 0; t < T; t++)
            for (int h = 0; h < NH; h++) {
                if (exact[1][size_t(t * NH + h)] == double(-1e30f))
                    EXPECT_EQ(lse.at(t, h), -INFINITY);
                else
                    ASSERT_NEAR(lse.at(t, h), exact[1][size_t(t * NH + h)], 1e-5);
            }
        expect_close(dq, exact[2], single[2]);
        expect_close(dk, exact[3], single[3]);
        expect_close(dv, exact[4], single[4]);
    }
}
INSTANTIATE_TEST_SUITE_P(Ragged, AttentionShapes,
                         testing::Values(Shape{{1, 1, 1, 1, 2, 1}, 0}, Shape{{3, 5, 2, 1, 6, 2}, 1},
                                         Shape{{13, 67, 4, 2, 32, 4}, 0}, Shape{{40, 37, 6, 2, 20, 8}, 3},
                                         Shape{{9, 700, 3, 3, 16, 3}, 0}, Shape{{33, 301, 8, 1, 64, 5}, 0},
                                         Shape{{7, 130, 2, 2, 128, 4}, 2}));

// A row's result is its own: the same bits alone, in a batch, and when the keys lie at other slots.
TEST(Attention, RowDoesNotDependOnTheBatchOrTheSlots) {
    const AttentionShape shape{23, 150, 4, 2, 32, 4};
    const int shift = 13, CQ = shape.NH * shape.HD, CK = shape.NKV * shape.HD;
    std::vector<AttentionSpans> see = random_spans(shape, 3);
    for (const auto& ops : cpu_variants()) {
        SCOPED_TRACE(ops->device_name());
        Matrix q = Matrix::random(shape.T, CQ, 1), k = Matrix::random(shape.S, CK, 2),
               v = Matrix::random(shape.S, CK, 3);
        Matrix k2(shape.S + shift, CK), v2(shape.S + shift, CK), out(shape.T, CQ), lse(shape.T, shape.NH);
        ops->copy(k2.tensor().row_range(shift, shape.S + shift), k);
        ops->copy(v2.tensor().row_range(shift, shape.S + shift), v);
        ops->attention_forward(out, lse, q, k, v, spans_tensor(see), shape.NH, shape.NKV);
        for (int t = 0; t < shape.T; t++) {
            std::vector<AttentionSpans> one = {see[size_t(t)]};
            for (int r = 0; r < 3; r++) one[0].begin[r] += shift, one[0].end[r] += shift;
            Matrix o(1, CQ), l(1, shape.NH);
            ops->attention_forward(o, l, q.tensor().row_range(t, t + 1), k2, v2, spans_tensor(one), shape.NH,
                                   shape.NKV);
            for (int i = 0; i < CQ; i++) ASSERT_EQ(o.at(0, i), out.at(t, i)) << "row " << t;
            for (int h = 0; h < shape.NH; h++) ASSERT_EQ(l.at(0, h), lse.at(t, h));
        }
    }
}

// Where spans are cut does not matter: a shared prefix and an own copy of it give the same bits.
TEST(Attention, KeysAreOneListHoweverTheyAreCut) {
    const int S = 100, HD = 32;
    for (const auto& ops : cpu_variants()) {
        Matrix q = Matrix::random(1, HD, 1), k = Matrix::random(S, HD, 2), v = Matrix::random(S, HD, 3),
               whole(1, HD), cut(1, HD), lse(1, 1);
        std::vector<AttentionSpans> one = {{{0, 0, 0}, {S, 0, 0}}}, three = {{{0, 21, 70}, {21, 70, S}}};
        ops->attention_forward(whole, lse, q, k, v, spans_tensor(one), 1, 1);
        ops->attention_forward(cut, lse, q, k, v, spans_tensor(three), 1, 1);
        EXPECT_EQ(whole.values<float>(), cut.values<float>());
    }
}

TEST(Attention, LargeScoresDoNotOverflow) {
    for (const auto& ops : cpu_variants()) {
        Matrix q(1, 16, 0, 50), k(40, 16, 0, 50), v = Matrix::random(40, 16, 1), out(1, 16), lse(1, 1);
        std::vector<AttentionSpans> see = {{{0, 0, 0}, {40, 0, 0}}};
        ops->attention_forward(out, lse, q, k, v, spans_tensor(see), 1, 1);
        for (int i = 0; i < 16; i++) {
            double mean = 0;
            for (int s = 0; s < 40; s++) mean += double(v.at(s, i)) / 40;
            EXPECT_NEAR(out.at(0, i), mean, 1e-5);
        }
    }
}

TEST(Attention, RefusesSpansOutsideTheSlots) {
    Matrix q(1, 4), k(3, 4), v(3, 4), out(1, 4), lse(1, 1);
    for (auto [b, e] : {std::pair{-1, 2}, {0, 4}}) {
        std::vector<AttentionSpans> see = {{{b, 0, 0}, {e, 0, 0}}};
        EXPECT_THROW(make_cpu_ops()->attention_forward(out, lse, q, k, v, spans_tensor(see), 1, 1), Error);
    }
}

}  // namespace
