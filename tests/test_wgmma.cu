// wgmma.h against its definition, with whole numbers small enough that every sum is exact: on the host the twins, on
// a GPU that has them the instructions.
#include <gtest/gtest.h>

#include "kernels/device/wgmma.h"
#include "tests/device_array.h"
#include "utils/philox.h"

namespace {

constexpr int GROUPS = 2, GROUP_THREADS = 128, M = 64 * GROUPS;  // warpgroups of a block; rows of a product

// (ROWS, HD) from global memory into a tile, by the whole block; complete after loaded().
template <int ROWS, int HD>
__device__ inline void load_tile(bf16* tile, const bf16* src) {
    for (int i = int(threadIdx.x); i < ROWS * HD / 8; i += int(blockDim.x)) {
        const int row = i / (HD / 8), col = i % (HD / 8) * 8;
        cp_async_16(tile + tile_offset<ROWS>(row, col), src + row * HD + col, true);
    }
    cp_async_commit();
}
__device__ inline void loaded() {
    cp_async_wait<0>();
    fence_proxy_async();
    __syncthreads();  // everybody's copies are there for wgmma
}

// Rows 64 g.. of out (M, N) are those of warpgroup g.
template <int NT>
__device__ inline void store(float* out, const float (&d)[NT][4]) {
    const int row = int(threadIdx.x) / WARP * 16 + int(threadIdx.x) % WARP / 4,
              col = int(threadIdx.x) % 4 * 2;
#pragma unroll
    for (int j = 0; j < NT; j++)
#pragma unroll
        for (int r = 0; r < 4; r++) out[(row + r / 2 * 8) * NT * 8 + j * 8 + col + r % 2] = d[j][r];
}

// S (M, N) = Q (M, HD) K (N, HD)^T, Q by descriptor or in registers.
template <int HD, int N, bool Q_IN_REGISTERS>
__global__ void __launch_bounds__(GROUPS* GROUP_THREADS) rows_kernel(float* S, const bf16* Q, const bf16* K) {
    DYNAMIC_SHARED_TILES(bf16, q_smem);  // (M, HD)
    bf16* k_smem = q_smem + M * HD;      // (N, HD)
    load_tile<M, HD>(q_smem, Q);
    load_tile<N, HD>(k_smem, K);
    loaded();
    const int lane = int(threadIdx.x) % WARP, warp = int(threadIdx.x) / WARP;
    float s[N / 8][4];  // whatever is there: the first product overwrites
    uint32_t q[HD / 16][4];
    if constexpr (Q_IN_REGISTERS) {
#pragma unroll
        for (int k = 0; k < HD / 16; k++)
            ldmatrix_x4(q[k], q_smem + tile_offset<M>(warp * 16 + lane % 16, k * 16 + lane / 16 * 8));
        warpgroup_fence(q);
    }
    warpgroup_fence(s);
    wgmma_fence();
#pragma unroll
    for (int k = 0; k < HD / 16; k++) {
        const uint64_t b = k_major_descriptor<N>(k_smem, 0, k * 16);
        if constexpr (Q_IN_REGISTERS)
            wgmma(s, q[k], b, k > 0);
        else
            wgmma(s, k_major_descriptor<M>(q_smem, warp / 4 * 64, k * 16), b, k > 0);
    }
    wgmma_commit();
    wgmma_wait<0>();
    warpgroup_fence(s);
    store(S, s);
}

// O (M, HD) = init + P (M, KEYS) V (KEYS, HD): P in registers, or its transpose (KEYS, M) by descriptor.
template <int HD, int KEYS, bool P_TRANSPOSED>
__global__ void __launch_bounds__(GROUPS* GROUP_THREADS)
    columns_kernel(float* O, const bf16* P, const bf16* V, float init) {
    DYNAMIC_SHARED_TILES(bf16, v_smem);  // (KEYS, HD)
    bf16* p_smem = v_smem + KEYS * HD;   // (KEYS, M)
    load_tile<KEYS, HD>(v_smem, V);
    if (P_TRANSPOSED) load_tile<KEYS, M>(p_smem, P);
    loaded();
    const int lane = int(threadIdx.x) % WARP, warp = int(threadIdx.x) / WARP;
    float o[HD / 8][4];
#pragma unroll
    for (int j = 0; j < HD / 8; j++)
#pragma unroll
        for (int r = 0; r < 4; r++) o[j][r] = init;
    uint32_t p[KEYS / 16][4];
    if constexpr (!P_TRANSPOSED) {
#pragma unroll
        for (int k = 0; k < KEYS / 16; k++)
#pragma unroll
            for (int r = 0; r < 4; r++) {
                const bf16* pair =
                    P + (warp * 16 + lane / 4 + r % 2 * 8) * KEYS + k * 16 + lane % 4 * 2 + r / 2 * 8;
                p[k][r] = pack_bf16(to_float(pair[0]), to_float(pair[1]));
            }
        warpgroup_fence(p);
    }
    warpgroup_fence(o);
    wgmma_fence();
#pragma unroll
    for (int k = 0; k < KEYS / 16; k++) {
        const uint64_t b = mn_major_descriptor<KEYS>(v_smem, k * 16, 0);
        if constexpr (P_TRANSPOSED)
            wgmma<Major::MN, Major::MN>(o, mn_major_descriptor<KEYS>(p_smem, k * 16, warp / 4 * 64), b, true);
        else
            wgmma<Major::MN>(o, p[k], b, true);
    }
    wgmma_commit();
    wgmma_wait<0>();
    warpgroup_fence(o);
    store(O, o);
}

// S (STEPS, M, 64) = Q (M, 64) K (STEPS * 64, 64)^T, a group of products per 64 keys, of which the next is always under
// way while one is stored; then K's place is reused.
constexpr int STEPS = 4;
__global__ void __launch_bounds__(GROUPS* GROUP_THREADS)
    pipeline_kernel(float* S, const bf16* Q, const bf16* K) {
    DYNAMIC_SHARED_TILES(bf16, q_smem);  // (M, 64)
    bf16* k_smem = q_smem + M * 64;      // (2, 64, 64)
    load_tile<M, 64>(q_smem, Q);
    float s[2][8][4];
#pragma unroll
    for (int step = 0; step <= STEPS; step++) {
        if (step < STEPS) {
            bf16* k_tile = k_smem + step % 2 * 64 * 64;
            load_tile<64, 64>(k_tile, K + step * 64 * 64);
            loaded();
            warpgroup_fence(s[step % 2]);
            wgmma_fence();
#pragma unroll
            for (int k = 0; k < 4; k++)
                wgmma(s[step % 2],
                      k_major_descriptor<M>(q_smem, int(threadIdx.x) / GROUP_THREADS * 64, k * 16),
                      k_major_descriptor<64>(k_tile, 0, k * 16), k > 0);
            wgmma_commit();
        }
        if (step == 0) continue;
        if (step < STEPS)
            wgmma_wait<1>();
        else
            wgmma_wait<0>();
        warpgroup_fence(s[(step - 1) % 2]);
        store(S + (step - 1) * M * 64, s[(step - 1) % 2]);
        // one barrier for each warpgroup would not do: both read the keys
        __syncthreads();  // the products of step - 1 have been waited for before its keys are overwritten
    }
}

// Each warpgroup turns its own part round, with a barrier of its own.
__global__ void named_barriers(int* out) {
    DYNAMIC_SHARED(int, smem);
    const int group = int(threadIdx.x) / GROUP_THREADS, t = int(threadIdx.x) % GROUP_THREADS;
    for (int turn = 0; turn < (group == 0 ? 3 : 1); turn++) {
        smem[threadIdx.x] = int(threadIdx.x) + turn;
        named_barrier_sync(1 + group, GROUP_THREADS);  // all of the group have written
        out[threadIdx.x] = smem[group * GROUP_THREADS + GROUP_THREADS - 1 - t];
        named_barrier_sync(1 + group, GROUP_THREADS);  // all have read before the next turn writes
    }
}

// Two warps work on the same data in turn, the first a turn ahead: each arrives for the other and waits for it, with one
// barrier for each direction and parity of turns.
constexpr int TURNS = 5;
__global__ void arrivals(int* out) {
    DYNAMIC_SHARED(int, smem);  // (2, WARP)
    const int warp = int(threadIdx.x) / WARP, lane = int(threadIdx.x) % WARP;
    for (int turn = 0; turn < TURNS; turn++) {
        int* now = smem + turn % 2 * WARP;
        if (warp == 0) {
            if (turn >= 2) named_barrier_sync(3 + turn % 2, 2 * WARP);  // what is there has been read
            now[lane] = turn * WARP + lane;
            named_barrier_arrive(1 + turn % 2, 2 * WARP);  // it is written
        } else {
            named_barrier_sync(1 + turn % 2, 2 * WARP);  // it is written
            out[turn * WARP + lane] = now[WARP - 1 - lane];
            if (turn + 2 < TURNS) named_barrier_arrive(3 + turn % 2, 2 * WARP);  // it has been read
        }
    }
}

// Whole numbers that bf16 has, whose products and their sums are exact in fp32.
std::vector<float> whole_numbers(size_t n, uint32_t seed) {
    Rng rng(seed, Stream::Noise, 79);
    std::vector<float> out(n);
    for (float& x : out) x = float(int(rng.below(255)) - 127);
    return out;
}
std::vector<bf16> as_bf16(const std::vector<float>& x) {
    std::vector<bf16> out;
    for (const float v : x) out.push_back(from_float<bf16>(v));
    return out;
}
// init + a (m, k) b, b as (n, k) or as (k, n).
std::vector<float> product(const std::vector<float>& a, const std::vector<float>& b, int m, int n, int k,
                           bool b_as_rows, float init = 0) {
    std::vector<float> out(size_t(m * n), init);
    for (int i = 0; i < m; i++)
        for (int j = 0; j < n; j++)
            for (int x = 0; x < k; x++)
                out[size_t(i * n + j)] += a[size_t(i * k + x)] * b[size_t(b_as_rows ? j * k + x : x * n + j)];
    return out;
}
std::vector<float> transposed(const std::vector<float>& x, int rows, int cols) {
    std::vector<float> out(x.size());
    for (int r = 0; r < rows; r++)
        for (int c = 0; c < cols; c++) out[size_t(c * rows + r)] = x[size_t(r * cols + c)];
    return out;
}

class Wgmma : public testing::Test {
  protected:
    void SetUp() override {
        if (!device_has_wgmma()) GTEST_SKIP() << "this device has no wgmma";
    }
    template <class Kernel, class... Rest>
    static std::vector<float> run(Kernel kernel, size_t smem_elements, size_t n_out,
                                  const std::vector<float>& x, const std::vector<float>& y, Rest... rest) {
        const DeviceArray<bf16> a(as_bf16(x)), b(as_bf16(y));
        DeviceArray<float> out(std::vector<float>(n_out, NAN));
        launch(kernel, 1, GROUPS * GROUP_THREADS, smem_elements * sizeof(bf16), nullptr, out.data(),
               static_cast<const bf16*>(a.data()), static_cast<const bf16*>(b.data()), rest...);
        return out.host();
    }
    template <int HD, int N>
    static void check_rows() {
        SCOPED_TRACE(testing::Message() << "HD " << HD << ", N " << N);
        const std::vector<float> q = whole_numbers(M * HD, 1), k = whole_numbers(N * HD, 2);
        const std::vector<float> want = product(q, k, M, N, HD, true);
        EXPECT_EQ(run(rows_kernel<HD, N, false>, (M + N) * HD, M * N, q, k), want);
        EXPECT_EQ(run(rows_kernel<HD, N, true>, (M + N) * HD, M * N, q, k), want) << "Q in registers";
    }
    template <int HD, int KEYS>
    static void check_columns() {
        SCOPED_TRACE(testing::Message() << "HD " << HD << ", " << KEYS << " keys");
        const std::vector<float> p = whole_numbers(M * KEYS, 3), v = whole_numbers(KEYS * HD, 4);
        const std::vector<float> want = product(p, v, M, HD, KEYS, false, 5.0f);
        const size_t smem = KEYS * (HD + M);
        EXPECT_EQ(run(columns_kernel<HD, KEYS, false>, smem, M * HD, p, v, 5.0f), want);
        EXPECT_EQ(run(columns_kernel<HD, KEYS, true>, smem, M * HD, transposed(p, M, KEYS), v, 5.0f), want)
            << "P transposed, by descriptor";
    }
};

}  // namespace

TEST_F(Wgmma, MultipliesByTheRowsOfATile) {
    check_rows<64, 64>();
    check_rows<64, 128>();
    check_rows<128, 64>();
    check_rows<128, 128>();
}

TEST_F(Wgmma, MultipliesByTheColumnsOfATile) {
    check_columns<64, 64>();
    check_columns<64, 128>();
    check_columns<128, 64>();
    check_columns<128, 128>();
}

TEST_F(Wgmma, AGroupStaysUnderWay) {
    const std::vector<float> q = whole_numbers(M * 64, 5), k = whole_numbers(STEPS * 64 * 64, 6);
    std::vector<float> want;
    for (int step = 0; step < STEPS; step++) {
        const std::vector<float> keys(k.begin() + step * 64 * 64, k.begin() + (step + 1) * 64 * 64);
        const std::vector<float> s = product(q, keys, M, 64, 64, true);
        want.insert(want.end(), s.begin(), s.end());
    }
    EXPECT_EQ(run(pipeline_kernel, (M + 2 * 64) * 64, STEPS * M * 64, q, k), want);
}

TEST(NamedBarrier, WaitsForItsOwnThreads) {
    DeviceArray<int> out(std::vector<int>(GROUPS * GROUP_THREADS));
    launch(named_barriers, 1, GROUPS * GROUP_THREADS, GROUPS * GROUP_THREADS * sizeof(int), nullptr,
           out.data());
    const std::vector<int> got = out.host();
    for (int t = 0; t < GROUPS * GROUP_THREADS; t++)
        EXPECT_EQ(got[size_t(t)], t / GROUP_THREADS * GROUP_THREADS + GROUP_THREADS - 1 - t % GROUP_THREADS +
                                      (t < GROUP_THREADS ? 2 : 0));
}

TEST(NamedBarrier, ArrivesWithoutWaiting) {
    DeviceArray<int> out(std::vector<int>(TURNS * WARP));
    launch(arrivals, 1, 2 * WARP, 2 * WARP * sizeof(int), nullptr, out.data());
    const std::vector<int> got = out.host();
    for (int i = 0; i < TURNS * WARP; i++) EXPECT_EQ(got[size_t(i)], i / WARP * WARP + WARP - 1 - i % WARP);
}
