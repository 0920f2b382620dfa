// Every instruction of ptx.h against its definition: on the host the twin, on a GPU the instruction.
#include <gtest/gtest.h>

#include "kernels/device/ptx.h"
#include "tests/device_array.h"

namespace {

// D (16, 8) = A (16, 16) B (16, 8), A row-major through ldmatrix, B as rows of k through ldmatrix.trans.
__global__ void multiply(float* D, const bf16* A, const bf16* B) {
    DYNAMIC_SHARED(bf16, smem);
    bf16* a_smem = smem;        // (16, 16)
    bf16* b_smem = smem + 256;  // (16, 8)
    const int lane = int(threadIdx.x);
    cp_async_16(a_smem + lane * 8, A + lane * 8, true);
    if (lane < 16) cp_async_16(b_smem + lane * 8, B + lane * 8, true);
    cp_async_commit();
    cp_async_wait<0>();
    __syncthreads();  // every lane's copies are visible to all
    uint32_t a[4], b[4];
    ldmatrix_x4(a, a_smem + lane % 16 * 16 + lane / 16 * 8);
    ldmatrix_x4<TRANSPOSED>(b, b_smem + lane % 16 * 8);  // matrices 2 and 3 repeat 0 and 1
    float d[4] = {};
    const uint32_t b_regs[2] = {b[0], b[1]};
    mma_m16n8k16(d, a, b_regs);
    for (int r = 0; r < 4; r++) D[(lane / 4 + r / 2 * 8) * 8 + lane % 4 * 2 + r % 2] = d[r];
}

template <CopyHint HINT>
__global__ void zero_fill(float* out, const float* inp) {
    DYNAMIC_SHARED(float, smem);
    cp_async_16<HINT>(smem + threadIdx.x * 4, inp + threadIdx.x * 4, threadIdx.x % 2 == 0);
    cp_async_commit();
    cp_async_wait<0>();
    for (int i = 0; i < 4; i++) out[threadIdx.x * 4 + unsigned(i)] = smem[threadIdx.x * 4 + unsigned(i)];
}

__global__ void pack(uint32_t* out, const float* inp) {
    out[threadIdx.x] = pack_bf16(inp[2 * threadIdx.x], inp[2 * threadIdx.x + 1]);
}

__global__ void exponentials(float* out, const float* inp) {
    out[threadIdx.x] = exp2_approx(inp[threadIdx.x]);
}

__global__ void logarithms(float* out, const float* inp) { out[threadIdx.x] = log2_approx(inp[threadIdx.x]); }

// out[i] = the element of inp behind the i-th, and one more: written by another block.
__global__ void turn(int* out, const int* inp) {
    const unsigned n = gridDim.x * blockDim.x, i = blockIdx.x * blockDim.x + threadIdx.x;
    griddepcontrol_launch_dependents();
    griddepcontrol_wait();
    out[i] = inp[(i + blockDim.x + 1) % n] + 1;
}

}  // namespace

TEST(Ptx, OverlappedKernelsWaitForThoseBefore) {
    constexpr int THREADS = 64, BLOCKS = 20, N = THREADS * BLOCKS, TIMES = 100;
    std::vector<int> first(N);
    for (int i = 0; i < N; i++) first[size_t(i)] = i;
    const DeviceArray<int> x(first), y(first);
    for (int i = 0; i < TIMES; i++) {
        int* const to = i % 2 ? x.data() : y.data();
        const int* const from = i % 2 ? y.data() : x.data();
        if (device_overlaps_kernels())
            launch_overlapped(turn, BLOCKS, THREADS, 0, nullptr, to, from);
        else
            launch(turn, BLOCKS, THREADS, 0, nullptr, to, from);
    }
    const std::vector<int> got = x.host();
    for (int i = 0; i < N; i++)
        EXPECT_EQ(got[size_t(i)], (i + TIMES * (THREADS + 1)) % N + TIMES) << "element " << i;
}

TEST(Ptx, LdmatrixAndMmaMultiply) {
    std::vector<bf16> A, B;
    for (int i = 0; i < 256; i++) A.push_back(from_float<bf16>(float((i * 7 + i / 16) % 13 - 6)));
    for (int i = 0; i < 128; i++) B.push_back(from_float<bf16>(float((i * 5 + i / 8) % 11 - 5)));
    const DeviceArray<bf16> a(A), b(B);
    DeviceArray<float> d(std::vector<float>(128, NAN));
    launch(multiply, 1, 32, (256 + 128) * sizeof(bf16), nullptr, d.data(), static_cast<const bf16*>(a.data()),
           static_cast<const bf16*>(b.data()));
    const std::vector<float> got = d.host();
    for (int i = 0; i < 16; i++)
        for (int j = 0; j < 8; j++) {
            float want = 0;  // small whole numbers: exact
            for (int k = 0; k < 16; k++)
                want += to_float(A[size_t(i * 16 + k)]) * to_float(B[size_t(k * 8 + j)]);
            EXPECT_EQ(got[size_t(i * 8 + j)], want) << i << " " << j;
        }
}

TEST(Ptx, CpAsyncFillsWithZerosWhatIsNotValid) {
    std::vector<float> inp;
    for (int i = 0; i < 128; i++) inp.push_back(float(i + 1));
    const DeviceArray<float> x(inp);
    for (auto kernel : {zero_fill<NO_HINT>, zero_fill<REUSED>, zero_fill<WHOLE_LINES>}) {
        DeviceArray<float> out(std::vector<float>(128, NAN));
        launch(kernel, 1, 32, 128 * sizeof(float), nullptr, out.data(), static_cast<const float*>(x.data()));
        const std::vector<float> got = out.host();
        for (int i = 0; i < 128; i++) EXPECT_EQ(got[size_t(i)], i / 4 % 2 == 0 ? float(i + 1) : 0.0f);
    }
}

TEST(Ptx, PackRoundsToNearestEven) {
    const std::vector<float> inp = {1.0f, -2.5f, 1.00390625f, 1.01171875f, 3.0e38f, -0.0f, 0.1f, 1e-40f};
    const DeviceArray<float> x(inp);
    DeviceArray<uint32_t> out(std::vector<uint32_t>(4));
    launch(pack, 1, 4, 0, nullptr, out.data(), static_cast<const float*>(x.data()));
    const std::vector<uint32_t> got = out.host();
    for (size_t i = 0; i < 8; i++)
        EXPECT_EQ(got[i / 2] >> (i % 2 * 16) & 0xffff, to_bf16(inp[i]).bits) << inp[i];
}

TEST(Ptx, Exp2IsGoodToTwoUnitsInTheLastPlace) {
    std::vector<float> x(32, -INFINITY);
    for (size_t i = 0; i < 30; i++) x[i] = -float(i * i) / 7;
    x[30] = -127;  // a result that no normal number holds
    const DeviceArray<float> inp(x);
    DeviceArray<float> out(std::vector<float>(x.size()));
    launch(exponentials, 1, 32, 0, nullptr, out.data(), static_cast<const float*>(inp.data()));
    const std::vector<float> got = out.host();
    for (size_t i = 0; i < 30; i++) {
        const double want = std::exp2(double(x[i]));
        EXPECT_NEAR(got[i], want, want * 0x1p-22) << x[i];
    }
    EXPECT_EQ(got[30], 0);
    EXPECT_EQ(got[31], 0);
}

TEST(Ptx, Log2IsGoodTo22Bits) {
    std::vector<float> x(32, 0);
    for (size_t i = 1; i < 32; i++) x[i] = 0.6f + float(i * i * i * i) * 3;
    const DeviceArray<float> inp(x);
    DeviceArray<float> out(std::vector<float>(x.size()));
    launch(logarithms, 1, 32, 0, nullptr, out.data(), static_cast<const float*>(inp.data()));
    const std::vector<float> got = out.host();
    EXPECT_EQ(got[0], -INFINITY);
    for (size_t i = 1; i < 32; i++) {
        const double want = std::log2(double(x[i]));
        EXPECT_NEAR(got[i], want, std::max(1.0, std::abs(want)) * 0x1p-21) << x[i];
    }
}
