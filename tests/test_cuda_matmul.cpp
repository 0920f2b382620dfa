// Matrix products on CUDA (linear.cu over matmul.cu, or over cuBLASLt on a GPU) against the reference.
#include "tests/cuda_shapes.h"
// after the references' scalar
#include "kernels/linear.h"

class CudaMatmul : public CudaShapes {};

TEST_P(CudaMatmul, Linear) {
    const int N = 2 * C + 5;
    DeviceMatrix x = random(T, C, 1), w = random(N, C, 2), b = random_vector(N, 3), r = random(T, N, 4),
                 d = random(T, N, 5);
    DeviceMatrix out(*ops, T, N, dtype, gap), bare(*ops, T, N, dtype, gap), dx(*ops, T, C, dtype, gap);
    DeviceMatrix dw = gradient(N, C, 6), db = gradient_vector(N, 7);
    const Expected want(dtype, [&]<class X>(X) {
        std::vector<X> o(size_t(T * N)), o2(size_t(T * N)), gx(size_t(T * C)), gw = dw.values<X>(),
                                                                               gb = db.values<X>();
        const auto xs = x.values<X>(), ws = w.values<X>(), bs = b.values<X>(), rs = r.values<X>(),
                   ds = d.values<X>();
        ref::linear_forward<X>(rows(o, N), rows(xs, C), rows(ws, C), bs.data(), rows(rs, N), T, N, C);
        ref::linear_forward<X>(rows(o2, N), rows(xs, C), rows(ws, C), nullptr, {}, T, N, C);
        ref::linear_backward<X>(rows(gx, C), rows(gw, C), gb.data(), rows(ds, N), rows(xs, C), rows(ws, C), T,
                                N, C);
        return Vectors<X>{o, o2, gx, gw, gb};
    });
    ops->linear_forward(bare, x, w);
    ops->linear_forward(out, x, w, b, r);
    ops->linear_backward(dx, dw, db, d, x, w);
    want.check(out, 0, "out");
    want.check(bare, 1, "out without bias and residual");
    want.check(dx, 2, "dinp");
    want.check(dw, 3, "dweight", false);
    want.check(db, 4, "dbias", false);
    ops->linear_forward(r, x, w, b, r);  // onto the residual itself
    want.check(r, 0, "out in place");
    ops->linear_backward({}, {}, {}, d, x, w);
}

INSTANTIATE_TEST_SUITE_P(Ragged, CudaMatmul, RAGGED);
// Tiles are 32 x 32, 16 deep: one below, at and above each, in every direction.
INSTANTIATE_TEST_SUITE_P(AtTiles, CudaMatmul,
                         testing::Values(CudaShape{DType::F32, 32, 16, 0}, CudaShape{DType::F32, 31, 15, 0},
                                         CudaShape{DType::F32, 33, 17, 0}, CudaShape{DType::BF16, 64, 32, 0},
                                         CudaShape{DType::BF16, 65, 47, 1}));
