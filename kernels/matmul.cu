// matmul.cu -- matrix products by a kernel of our own: in the emulation, and for shapes that cuBLASLt has no algorithm for.
//
// A block computes a TILE x TILE tile of out, thread (i, j) a 4 x 4 part of it; both operands pass through shared memory
// in slices of SLICE along K. An operand is given by its two strides, so its transpose is the same strides exchanged. Any
// shape: what lies outside is zero.
#include "kernels/cuda_kernels.h"

namespace cuda {

constexpr int TILE = 32, SLICE = 16, PART = 4, THREADS = (TILE / PART) * (TILE / PART);

// ---- kernels ----

template <class T>
struct Operand {  // element (row, k) is data[row * row_step + k * k_step]
    const T* data;
    int64_t row_step, k_step;
};

template <class T>
__device__ inline void load_slice(float* tile, Operand<T> x, int row0, int rows, int k0, int K) {
    for (int i = int(threadIdx.x); i < TILE * SLICE; i += THREADS) {
        const int row = row0 + i / SLICE, k = k0 + i % SLICE;
        tile[i % SLICE * TILE + i / SLICE] =
            row < rows && k < K ? to_float(x.data[row * x.row_step + k * x.k_step]) : 0.0f;
    }
}

template <class O, class T>
__global__ void matmul_kernel(DeviceRows<O> out, Operand<T> a, Operand<T> b, const float* bias,
                              DeviceRows<const O> residual, bool accumulate, int M, int N, int K) {
    DYNAMIC_SHARED(float, smem);
    float *a_smem = smem, *b_smem = smem + SLICE * TILE;  // (SLICE, TILE) each
    const int i0 = int(threadIdx.x) / (TILE / PART) * PART, j0 = int(threadIdx.x) % (TILE / PART) * PART;
    const int m0 = int(blockIdx.y) * TILE, n0 = int(blockIdx.x) * TILE;
    float sum[PART][PART] = {};
    for (int k0 = 0; k0 < K; k0 += SLICE) {
        load_slice(a_smem, a, m0, M, k0, K);
        load_slice(b_smem, b, n0, N, k0, K);
        __syncthreads();  // the slices are whole before anybody reads them
        for (int k = 0; k < SLICE; k++)
            for (int i = 0; i < PART; i++)
                for (int j = 0; j < PART; j++)
                    sum[i][j] += a_smem[k * TILE + i0 + i] * b_smem[k * TILE + j0 + j];
        __syncthreads();  // everybody is done with the slices before they are overwritten
    }
    for (int i = 0; i < PART; i++)
        for (int j = 0; j < PART; j++) {
            const int m = m0 + i0 + i, n = n0 + j0 + j;
            if (m >= M || n >= N) continue;
            float y = sum[i][j];
            if (bias) y += bias[n];
            if (residual.data) y += to_float(residual[m][n]);
            if (accumulate) y += to_float(out[m][n]);
            out[m][n] = from_float<O>(y);
        }
}

// ---- launchers ----

template <class O, class T>
static void launch_matmul(const Context& ctx, const Matmul& p, int M, int N, int K) {
    const Operand<T> a{p.a.as<T>(), p.a_transposed ? 1 : p.a.stride, p.a_transposed ? p.a.stride : 1};
    const Operand<T> b{p.b.as<T>(), p.b_transposed ? p.b.stride : 1, p.b_transposed ? 1 : p.b.stride};
    const DeviceRows<const O> residual =
        p.residual ? device_rows<const O>(p.residual) : DeviceRows<const O>{nullptr, 0};
    launch(matmul_kernel<O, T>, dim3(unsigned(ceil_div(N, TILE)), unsigned(ceil_div(M, TILE))), THREADS,
           2 * SLICE * TILE * sizeof(float), ctx.stream, device_rows<O>(p.out), a, b,
           optional<const float>(p.bias), residual, p.accumulate, M, N, K);
}

void matmul_tiles(const Context& ctx, const Matmul& p) {
    const int M = int(p.out.rows), N = int(p.out.cols), K = checked_inner_size(p);
    if (M == 0 || N == 0) return;
    with_type(p.a.dtype, "an operand", [&](auto x) {
        using T = decltype(x);
        if (p.out.dtype == DType::F32)
            launch_matmul<float, T>(ctx, p, M, N, K);
        else
            launch_matmul<bf16, T>(ctx, p, M, N, K);
    });
}

}  // namespace cuda
