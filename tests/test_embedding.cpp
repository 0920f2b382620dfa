#include "kernels/embedding.h"
#include "tests/kernel_testing.h"

namespace {

TEST(Embedding, BackwardAgainstComplexStep) {
    const int T = 5, V = 4, C = 3;
    const std::vector<int> token = {3, 0, 3, 3, 1};
    const auto w = normals(V * C, 1), d = normals(T * C, 2);
    std::vector<double> dw(V * C, 0.0);
    ref::embedding_backward<double>(rows(dw, C), rows(d, C), token.data(), T, C);
    expect_gradients({w}, {dw}, [&](const Vectors<Complex>& in) {
        std::vector<Complex> o(T * C);
        ref::embedding_forward<Complex>(rows(o, C), token.data(), rows(in[0], C), T, C);
        return dot(o, d);
    });
}

struct Shape {
    int T, V, C, gap;
};
class EmbeddingShapes : public testing::TestWithParam<Shape> {};

TEST_P(EmbeddingShapes, CpuAgainstReference) {
    const auto [T, V, C, gap] = GetParam();
    for (const auto& ops : cpu_variants()) {
        Matrix w = Matrix::random(V, C, 1), out(T, C, gap), d = Matrix::random(T, C, 2, gap),
               dw = Matrix::random(V, C, 3);
        std::vector<int> token = random_ints(size_t(T), V, 4);
        const auto run = [&]<class S>(S) {
            std::vector<S> o(size_t(T * C)), gw = dw.values<S>();
            const auto ws = w.values<S>(), ds = d.values<S>();
            ref::embedding_forward<S>(rows(o, C), token.data(), rows(ws, C), T, C);
            ref::embedding_backward<S>(rows(gw, C), rows(ds, C), token.data(), T, C);
            return Vectors<S>{o, gw};
        };
        const auto exact = run(double());
        const auto single = run(float());
        ops->embedding_forward(out, ints(token), w);
        ops->embedding_backward(dw, d, ints(token));
        expect_close(out, exact[0], single[0]);
        expect_close(dw, exact[1], single[1]);
    }
}
INSTANTIATE_TEST_SUITE_P(Ragged, EmbeddingShapes,
                         testing::Values(Shape{1, 1, 1, 0}, Shape{7, 3, 17, 2}, Shape{300, 5, 67, 0},
                                         Shape{64, 301, 128, 1}));

TEST(Embedding, Bf16Weights) {
    const int T = 9, V = 11, C = 37;
    for (const auto& ops : cpu_variants()) {
        Matrix w = Matrix::random(V, C, 1), out(T, C, 3);
        std::vector<Bf16> half = w.round_to_bf16();
        std::vector<int> token = random_ints(T, V, 2);
        ops->embedding_forward(out, ints(token), tensor(half.data(), V, C, DType::BF16));
        for (int t = 0; t < T; t++)
            for (int c = 0; c < C; c++) ASSERT_EQ(out.at(t, c), w.at(token[size_t(t)], c));
    }
}

TEST(Embedding, RefusesIdsOutsideTheTable) {
    Matrix w = Matrix::random(4, 3, 1), out(1, 3);
    for (int id : {-1, 4}) {
        std::vector<int> token = {id};
        EXPECT_THROW(make_cpu_ops()->embedding_forward(out, ints(token), w), Error);
    }
}

}  // namespace
