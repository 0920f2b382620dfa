// matmul_narrow.cu -- matrix products of few rows, as a step of generation makes them: out (M, N) = x (M, K) w (N, K)^T, M up
// to NARROW_ROWS. Reading w takes all the time, so everything here serves to keep many reads of it under way.
//
// A block owns ROWS rows of w and all of K; its warps take lines of 128 bytes of these rows in turn, and join their sums in
// order at the end. A lane copies the w and x that it multiplies itself to a ring of its own in shared memory, AHEAD steps
// before it needs them, and waits for no other thread. The 16 bytes it reads there are an operand of mma as they lie: a
// product may go over K in any order, if both operands do, so lane t of a quad has the eight neighbours k + 8t.. where the
// instruction's layout would give it four pairs. Which lane and warp has which k follows from K alone: a row of out has the
// same bits whatever other rows the call holds.
#include "kernels/cuda_kernels.h"
#include "kernels/device/ptx.h"

namespace cuda {

namespace {

constexpr int WARPS = 16, THREADS = WARPS * WARP;
constexpr int ROWS = 16;            // of w in a block
constexpr int STEP = 32, PACK = 8;  // elements of K that a warp multiplies at once, and a lane has of them
constexpr int LINE = 64;            // of 128 bytes: two steps
constexpr int PARTS_STRIDE = ROWS + 4;  // floats: neither writing nor reading sums meets a bank twice

// A lane's packs of a step: of rows r and r + 8 of w, and of row r of x. A ring holds AHEAD steps of every lane: two blocks to a
// multiprocessor of sm_90.
constexpr int PACKS = 3, AHEAD = 4;
constexpr int STEP_SIZE = PACKS * WARP * PACK, RING_SIZE = AHEAD * STEP_SIZE;  // of a warp, in bf16
static_assert(NARROW_ROWS == 8, "the columns of mma");
static_assert(NARROW_ROWS * PARTS_STRIDE * sizeof(float) <= RING_SIZE * sizeof(bf16),
              "a warp's sums take the place of its ring");
static_assert(NARROW_ROWS * ROWS <= THREADS, "a thread for every element of out");

// ---- kernels ----

template <class O>
__global__ void __launch_bounds__(THREADS, 2)
    matmul_narrow_kernel(DeviceRows<O> out, DeviceRows<const bf16> x, DeviceRows<const bf16> w,
                         const float* bias, DeviceRows<const O> residual, int M, int N, int K) {
    DYNAMIC_SHARED(bf16, smem);
    const int warp = int(threadIdx.x / WARP), lane = int(threadIdx.x % WARP), row = lane / 4, t = lane % 4;
    const int n0 = int(blockIdx.x) * ROWS;
    bf16* const ring = smem + warp * RING_SIZE;
    // Where the lane's next packs are. Rows that are not there are the last one once more: what comes of them is not written.
    int k = warp * LINE + t * PACK;
    const bf16* from[PACKS] = {w[min(n0 + row, N - 1)] + k, w[min(n0 + row + 8, N - 1)] + k,
                               x[min(row, M - 1)] + k};
    const auto slot = [&](int at, int pack) { return ring + at * STEP_SIZE + (pack * WARP + lane) * PACK; };
    const auto ask_for = [&](int step, int at) {
        const bool inside = k < K;
        cp_async_16<WHOLE_LINES>(slot(at, 0), inside ? from[0] : w.data, inside);
        cp_async_16<WHOLE_LINES>(slot(at, 1), inside ? from[1] : w.data, inside);
        cp_async_16<REUSED>(slot(at, 2), inside ? from[2] : x.data, inside);
        cp_async_commit();
        const int by = step % 2 == 0 ? STEP : WARPS * LINE - STEP;
        k += by;
#pragma unroll
        for (int i = 0; i < PACKS; i++) from[i] += by;
    };
    griddepcontrol_wait();
#pragma unroll
    for (int step = 0; step < AHEAD; step++) ask_for(step, step);

    // A lane's four sums, and where they are in out. The first warp's begin with what is added to the product.
    const auto row_of_x = [&](int i) { return t * 2 + i % 2; };
    const auto row_of_w = [&](int i) { return row + i / 2 * 8; };
    float sum[4] = {};
    if (warp == 0)
#pragma unroll
        for (int i = 0; i < 4; i++) {
            const int m = row_of_x(i), n = n0 + row_of_w(i);
            if (m >= M || n >= N) continue;
            if (bias) sum[i] = bias[n];
            if (residual.data) sum[i] += to_float(residual[m][n]);
        }

    const int steps = (K + WARPS * LINE - 1) / (WARPS * LINE) * (LINE / STEP);
    for (int step = 0, at = 0; step < steps; step++, at = at + 1 < AHEAD ? at + 1 : 0) {
        cp_async_wait<AHEAD - 1>();
        Pack<uint32_t, 4> p[PACKS];
#pragma unroll
        for (int i = 0; i < PACKS; i++) p[i] = load_pack<4>(reinterpret_cast<const uint32_t*>(slot(at, i)));
#pragma unroll
        for (int h = 0; h < 4; h += 2) {
            const uint32_t w_pairs[4] = {p[0].v[h], p[1].v[h], p[0].v[h + 1], p[1].v[h + 1]};
            const uint32_t x_pairs[2] = {p[2].v[h], p[2].v[h + 1]};
            mma_m16n8k16(sum, w_pairs, x_pairs);
        }
        ask_for(step + AHEAD, at);  // the slot's packs are in registers
    }
    cp_async_wait<0>();
    griddepcontrol_launch_dependents();  // not before: the next kernel's blocks would take the place of this one's

    const auto parts = [&](int of) { return reinterpret_cast<float*>(smem + of * RING_SIZE); };
    __syncwarp();  // every lane is done with its ring before the warp's sums overwrite it
#pragma unroll
    for (int i = 0; i < 4; i++) parts(warp)[row_of_x(i) * PARTS_STRIDE + row_of_w(i)] = sum[i];
    __syncthreads();  // every warp's sums are written before anybody joins them
    const int m = int(threadIdx.x) / ROWS, n = int(threadIdx.x) % ROWS;
    if (m >= M || n0 + n >= N) return;
    float y = 0;
#pragma unroll
    for (int i = 0; i < WARPS; i++) y += parts(i)[m * PARTS_STRIDE + n];
    out[m][n0 + n] = from_float<O>(y);
}

// ---- launchers ----

template <class O>
void launch_narrow(const Context& ctx, const Matmul& p, int K) {
    const int M = int(p.out.rows), N = int(p.out.cols);
    const DeviceRows<const O> residual =
        p.residual ? device_rows<const O>(p.residual) : DeviceRows<const O>{nullptr, 0};
    launch_next(ctx, matmul_narrow_kernel<O>, ceil_div(N, ROWS), THREADS, WARPS * RING_SIZE * sizeof(bf16),
                device_rows<O>(p.out), device_rows<const bf16>(p.a), device_rows<const bf16>(p.b),
                optional<const float>(p.bias), residual, M, N, K);
}

}  // namespace

bool matmul_is_narrow(const Matmul& p) {
    return p.out.rows <= NARROW_ROWS && p.b_transposed && !p.a_transposed && !p.accumulate &&
           p.a.dtype == DType::BF16 && packs(p.a) && packs(p.b);
}

void matmul_narrow(const Context& ctx, const Matmul& p) {
    const int K = checked_inner_size(p);
    CHECK(matmul_is_narrow(p), "a narrow matrix product of %lld rows of %s", (long long)p.out.rows,
          name_of(p.a.dtype));
    if (p.out.size() == 0) return;
    p.out.dtype == DType::F32 ? launch_narrow<float>(ctx, p, K) : launch_narrow<bf16>(ctx, p, K);
}

}  // namespace cuda
