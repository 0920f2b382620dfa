#include "kernels/linear.h"
#include "kernels/matmul.h"
#include "tests/kernel_testing.h"

namespace {

TEST(Linear, BackwardAgainstComplexStep) {
    const int T = 3, N = 4, K = 5;
    const auto x = normals(T * K, 1), w = normals(N * K, 2), b = normals(N, 3), d = normals(T * N, 4);
    std::vector<double> dx(T * K, 99.0), dw(N * K, 0.5), db(N, 0.5);
    ref::linear_backward<double>(rows(dx, K), rows(dw, K), db.data(), rows(d, N), rows(x, K), rows(w, K), T,
                                 N, K);
    for (double& g : dw) g -= 0.5;
    for (double& g : db) g -= 0.5;
    expect_gradients({x, w, b}, {dx, dw, db}, [&](const Vectors<Complex>& in) {
        std::vector<Complex> o(T * N);
        ref::linear_forward<Complex>(rows(o, N), rows(in[0], K), rows(in[1], K), in[2].data(), {}, T, N, K);
        return dot(o, d);
    });
}

struct Shape {
    int T, N, K, gap;
};
class LinearShapes : public testing::TestWithParam<Shape> {};

TEST_P(LinearShapes, CpuAgainstReference) {
    const auto [T, N, K, gap] = GetParam();
    for (const auto& ops : cpu_variants()) {
        SCOPED_TRACE(ops->device_name());
        Matrix x = Matrix::random(T, K, 1, gap), w = Matrix::random(N, K, 2), b = Matrix::random(1, N, 3),
               r = Matrix::random(T, N, 4, gap);
        Matrix d = Matrix::random(T, N, 5, gap), out(T, N, gap), dx(T, K, gap, 7),
               dw = Matrix::random(N, K, 6), db = Matrix::random(1, N, 7);
        for (int with = 0; with < 4; with++) {  // bias, residual
            const auto run = [&]<class S>(S) {
                std::vector<S> o(size_t(T * N));
                const auto xs = x.values<S>(), ws = w.values<S>(), bs = b.values<S>(), rs = r.values<S>();
                ref::linear_forward<S>(rows(o, N), rows(xs, K), rows(ws, K), with & 1 ? bs.data() : nullptr,
                                       with & 2 ? rows(rs, N) : Rows<const S>(), T, N, K);
                return o;
            };
            ops->linear_forward(out, x, w, with & 1 ? b.tensor() : Tensor(),
                                with & 2 ? r.tensor() : Tensor());
            expect_close(out, run(double()), run(float()));
        }
        const auto run = [&]<class S>(S) {
            std::vector<S> gx(size_t(T * K)), gw = dw.values<S>(), gb = db.values<S>();
            const auto xs = x.values<S>(), ws = w.values<S>(), ds = d.values<S>();
            ref::linear_backward<S>(rows(gx, K), rows(gw, K), gb.data(), rows(ds, N), rows(xs, K),
                                    rows(ws, K), T, N, K);
            return Vectors<S>{gx, gw, gb};
        };
        const auto exact = run(double());
        const auto single = run(float());
        ops->linear_backward(dx, dw, db, d, x, w);
        expect_close(dx, exact[0], single[0]);
        expect_close(dw, exact[1], single[1]);
        expect_close(db, exact[2], single[2]);
    }
}
INSTANTIATE_TEST_SUITE_P(Ragged, LinearShapes,
                         testing::Values(Shape{1, 1, 1, 0}, Shape{1, 7, 33, 0}, Shape{2, 64, 16, 3},
                                         Shape{5, 65, 31, 1}, Shape{7, 13, 128, 0}, Shape{67, 101, 97, 5},
                                         Shape{6, 130, 64, 0}, Shape{129, 63, 17, 0}, Shape{13, 3, 513, 2}));

TEST(Linear, AnyGradientMayBeAbsent) {
    const int T = 5, N = 19, K = 23;
    for (const auto& ops : cpu_variants()) {
        Matrix x = Matrix::random(T, K, 1), w = Matrix::random(N, K, 2), d = Matrix::random(T, N, 3);
        Matrix dx(T, K), dw(N, K), db(1, N), dx_alone(T, K), dw_alone(N, K), db_alone(1, N);
        ops->linear_backward(dx, dw, db, d, x, w);
        ops->linear_backward(dx_alone, {}, {}, d, x, w);
        ops->linear_backward({}, dw_alone, {}, d, x, {});
        ops->linear_backward({}, {}, db_alone, d, {}, {});
        EXPECT_EQ(dx.values<float>(), dx_alone.values<float>());
        EXPECT_EQ(dw.values<float>(), dw_alone.values<float>());
        EXPECT_EQ(db.values<float>(), db_alone.values<float>());
    }
}

TEST(Linear, ResidualMayBeTheOutput) {
    const int T = 9, N = 70, K = 33;
    for (const auto& ops : cpu_variants()) {
        Matrix x = Matrix::random(T, K, 1), w = Matrix::random(N, K, 2), r = Matrix::random(T, N, 3),
               out(T, N);
        ops->linear_forward(out, x, w, {}, r);
        ops->linear_forward(r, x, w, {}, r);
        EXPECT_EQ(out.values<float>(), r.values<float>());
    }
}

// A sample may not depend on who shares its batch: bit for bit.
TEST(Linear, RowDoesNotDependOnTheBatch) {
    for (const auto& ops : cpu_variants())
        for (const auto& [N, K] : {std::pair{130, 67}, {7, 300}, {1030, 48}, {520, 270}}) {
            SCOPED_TRACE(ops->device_name());
            const int T = 71;
            Matrix x = Matrix::random(T, K, 1), w = Matrix::random(N, K, 2), b = Matrix::random(1, N, 3),
                   out(T, N);
            const std::vector<Bf16> half = Matrix(w).round_to_bf16();
            for (bool bf16 : {false, true}) {
                const Tensor weight =
                    bf16 ? tensor(const_cast<Bf16*>(half.data()), N, K, DType::BF16) : w.tensor();
                ops->linear_forward(out, x, weight, b);
                for (int begin = 0; begin < T; begin += 3)
                    for (int count : {1, 2, 3, 5, 8, 17}) {
                        if (begin + count > T) continue;
                        Matrix part(count, N);
                        ops->linear_forward(part, x.tensor().row_range(begin, begin + count), weight, b);
                        for (int t = 0; t < count; t++)
                            for (int n = 0; n < N; n++)
                                ASSERT_EQ(part.at(t, n), out.at(begin + t, n)) << begin << " " << count;
                    }
            }
        }
}

// Many rows go in blocks of rows, columns and depth; a few of them do not.
TEST(Linear, BlocksChangeNoBit) {
    struct Many {
        int T, N, K;
    };
    for (const auto& ops : cpu_variants())
        for (const auto& [T, N, K] :
             {Many{203, 1500, 450}, {1100, 130, 70}, {70, 67, 1400}, {1030, 1030, 130}}) {
            SCOPED_TRACE(format("%s, %d x %d x %d", ops->device_name().c_str(), T, N, K));
            Matrix x = Matrix::random(T, K, 1), w = Matrix::random(N, K, 2), b = Matrix::random(1, N, 3),
                   r = Matrix::random(T, N, 4), d = Matrix::random(T, N, 5), dw = Matrix::random(N, K, 6);
            Matrix out(T, N), plain(T, N), dx(T, K), dw_parts = dw;
            ops->linear_forward(out, x, w, b, r);
            ops->linear_forward(plain, x, w);
            ops->linear_backward(dx, dw, {}, d, x, w);
            constexpr int FEW = 13;
            Matrix out_few(FEW, N), plain_few(FEW, N), dx_few(FEW, K);
            for (int t = 0; t + FEW <= T; t += 31) {
                const auto few = [t](Matrix& m) { return m.tensor().row_range(t, t + FEW); };
                ops->linear_forward(out_few, few(x), w, b, few(r));
                ops->linear_forward(plain_few, few(x), w);
                ops->linear_backward(dx_few, {}, {}, few(d), few(x), w);
                for (int i = 0; i < FEW; i++) {
                    for (int n = 0; n < N; n++) {
                        ASSERT_EQ(out.at(t + i, n), out_few.at(i, n)) << t + i << " " << n;
                        ASSERT_EQ(plain.at(t + i, n), plain_few.at(i, n)) << t + i << " " << n;
                    }
                    for (int k = 0; k < K; k++)
                        ASSERT_EQ(dx.at(t + i, k), dx_few.at(i, k)) << t + i << " " << k;
                }
            }
            for (int n = 0; n < N; n += FEW) {
                const int end = std::min(n + FEW, N);
                ops->linear_backward({}, dw_parts.tensor().row_range(n, end), {},
                                     d.tensor().col_range(n, end), x, {});
            }
            EXPECT_EQ(dw.values<float>(), dw_parts.values<float>());
        }
}

// Of one column, which lies in rows and in columns at once; and of no rows.
TEST(Linear, BlocksOfOneColumnOrNone) {
    cpu::Context context{best_simd()};
    const int M = 300, N = 70;
    Matrix a = Matrix::random(M, 1, 1), w = Matrix::random(N, 1, 2), b = Matrix::random(1, N, 3), out(M, N);
    const auto product = [&](int rows) {
        cpu::matmul_transposed(context, rows_of<float>(out.tensor()), rows_of<const float>(a.tensor()),
                               rows_of<const float>(w.tensor()), vector_of<float>(b.tensor(), N), {}, rows, N,
                               1);
    };
    product(M);
    for (int m = 0; m < M; m++)
        for (int n = 0; n < N; n++) ASSERT_NEAR(out.at(m, n), a.at(m, 0) * w.at(n, 0) + b.at(0, n), 1e-6);
    const auto before = out.values<float>();
    product(0);
    cpu::matmul(context, rows_of<float>(out.tensor()), a.tensor().as<float>(), 1, 1,
                rows_of<const float>(b.tensor()), 0, N, 1, false);
    EXPECT_EQ(out.values<float>(), before);
}

TEST(Linear, Bf16Weights) {
    const int T = 7, N = 37, K = 45;
    for (const auto& ops : cpu_variants()) {
        Matrix x = Matrix::random(T, K, 1), w = Matrix::random(N, K, 2), a(T, N), b(T, N);
        std::vector<Bf16> half = w.round_to_bf16();
        ops->linear_forward(a, x, w);
        ops->linear_forward(b, x, tensor(half.data(), N, K, DType::BF16));
        EXPECT_EQ(a.values<float>(), b.values<float>());
    }
}

// Weights that are used where a file has them begin anywhere.
TEST(Linear, WeightsMayBeginAnywhere) {
    const int N = 37;
    for (const auto& ops : cpu_variants())
        for (const int K : {3, 18, 75, 128})
            for (const int T : {1, 7, 70})
                for (const DType dtype : {DType::F32, DType::BF16}) {
                    SCOPED_TRACE(
                        format("%s, K %d, T %d, %s", ops->device_name().c_str(), K, T, name_of(dtype)));
                    Matrix x = Matrix::random(T, K, 1), w = Matrix::random(N, K, 2), expected(T, N);
                    const std::vector<Bf16> half = w.round_to_bf16();
                    ops->linear_forward(expected, x, w);
                    alignas(64) static char place[64 + 37 * 128 * 4];
                    const size_t size = size_of(dtype), bytes = size_t(N * K) * size;
                    for (size_t shift = 0; shift < 64; shift += size) {
                        memcpy(place + shift,
                               dtype == DType::F32 ? (const void*)w.tensor().data : half.data(), bytes);
                        Matrix out(T, N);
                        ops->linear_forward(out, x, tensor(place + shift, N, K, dtype));
                        ASSERT_EQ(out.values<float>(), expected.values<float>()) << shift;
                    }
                }
}

TEST(Linear, NoRowsIsNoWork) {
    Matrix x(0, 5), w(3, 5), out(0, 3), dw = Matrix::random(3, 5, 1), dx(0, 5);
    const auto before = dw.values<float>();
    for (const auto& ops : cpu_variants()) {
        ops->linear_forward(out, x, w);
        ops->linear_backward(dx, dw, {}, out, x, w);
        EXPECT_EQ(dw.values<float>(), before);
    }
}

}  // namespace
