#include "kernels/rows.h"
#include "tests/kernel_testing.h"

namespace {

TEST(Rows, GatherBackwardAgainstComplexStep) {
    const int T = 5, N = 4, C = 3;
    const std::vector<int> row = {4, 0, 4, 2};
    const auto x = normals(T * C, 1), d = normals(N * C, 2);
    std::vector<double> dx(T * C, 99.0);  // overwritten
    ref::gather_rows_backward<double>(rows(dx, C), rows(d, C), row.data(), T, N, C);
    expect_gradients({x}, {dx}, [&](const Vectors<Complex>& in) {
        std::vector<Complex> o(N * C);
        ref::gather_rows<Complex>(rows(o, C), rows(in[0], C), row.data(), N, C);
        return dot(o, d);
    });
}

struct Shape {
    int T, N, C, gap;
};
class RowsShapes : public testing::TestWithParam<Shape> {};

TEST_P(RowsShapes, CpuAgainstReference) {
    const auto [T, N, C, gap] = GetParam();
    for (const auto& ops : cpu_variants()) {
        Matrix x = Matrix::random(T, C, 1, gap), out(N, C, gap), d = Matrix::random(N, C, 2, 1),
               dx(T, C, gap, 7);
        std::vector<int> row = random_ints(size_t(N), T, 3);
        std::vector<double> o(size_t(N * C)), gx(size_t(T * C));
        std::vector<float> gx_single(size_t(T * C));
        const auto xs = x.values<double>(), ds = d.values<double>();
        const auto ds_single = d.values<float>();
        ref::gather_rows<double>(rows(o, C), rows(xs, C), row.data(), N, C);
        ref::gather_rows_backward<double>(rows(gx, C), rows(ds, C), row.data(), T, N, C);
        ref::gather_rows_backward<float>(rows(gx_single, C), rows(ds_single, C), row.data(), T, N, C);
        ops->gather_rows(out, x, ints(row));
        ops->gather_rows_backward(dx, d, ints(row));
        EXPECT_EQ(out.values<double>(), o);
        out.expect_gaps_untouched();
        expect_close(dx, gx, gx_single);
    }
}
INSTANTIATE_TEST_SUITE_P(Ragged, RowsShapes,
                         testing::Values(Shape{1, 1, 1, 0}, Shape{7, 3, 17, 2}, Shape{3, 300, 131, 0},
                                         Shape{64, 61, 128, 1}));

TEST(Rows, GuidanceMovesTheRowsItNames) {
    const int N = 9, M = 4, C = 67;
    for (const auto& ops : cpu_variants()) {
        Matrix x = Matrix::random(N, C, 1, 2), other = Matrix::random(M, C, 2, 1);
        std::vector<int> row = {7, 0, 3, 8};
        std::vector<float> scale = {0.5f, 2, 0, 1.25f};
        std::vector<double> want = x.values<double>();
        std::vector<float> single = x.values<float>();
        const auto others = other.values<double>();
        const auto others_single = other.values<float>();
        ref::guide_rows<double>(rows(want, C), rows(others, C), row.data(), scale.data(), M, C);
        ref::guide_rows<float>(rows(single, C), rows(others_single, C), row.data(), scale.data(), M, C);
        const std::vector<double> before = x.values<double>();
        ops->guide_rows(x, other, ints(row), tensor(scale.data(), 1, M));
        expect_close(x, want, single);
        for (const int n : {1, 2, 3, 4, 5, 6})  // row 3 by a scale of 0
            for (int c = 0; c < C; c++) EXPECT_EQ(double(x.at(n, c)), before[size_t(n * C + c)]);
        EXPECT_NEAR(double(x.at(0, 1)), 3 * before[1] - 2 * others[size_t(C + 1)], 1e-5);
    }
}

TEST(Rows, ScatterWritesItsSlotsAndNoOthers) {
    const int S = 300, T = 129, C = 67;
    for (const auto& ops : cpu_variants()) {
        Matrix x = Matrix::random(T, C, 1, 2), out(S, C, 3, -1);
        std::vector<int> slot(T);
        for (int t = 0; t < T; t++) slot[size_t(t)] = (t * 7 + 5) % S;  // 7 and 300 are coprime: distinct
        ops->scatter_rows(out, x, ints(slot));
        std::vector<int> writer(S, -1);
        for (int t = 0; t < T; t++) writer[size_t(slot[size_t(t)])] = t;
        for (int s = 0; s < S; s++)
            for (int c = 0; c < C; c++)
                ASSERT_EQ(out.at(s, c), writer[size_t(s)] < 0 ? -1 : x.at(writer[size_t(s)], c));
        out.expect_gaps_untouched();
    }
}

TEST(Rows, RefusesRowsOutsideTheTensor) {
    Matrix x = Matrix::random(4, 3, 1), out(1, 3);
    for (int id : {-1, 4}) {
        std::vector<int> row = {id};
        EXPECT_THROW(make_cpu_ops()->gather_rows(out, x, ints(row)), Error);
        EXPECT_THROW(make_cpu_ops()->scatter_rows(x, out, ints(row)), Error);
    }
}

}  // namespace
