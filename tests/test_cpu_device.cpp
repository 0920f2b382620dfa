// The emulation of CUDA on the host: it runs what is right, and reports what is wrong. One deliberate mistake
// per kernel.
#include <gtest/gtest.h>

#include "kernels/device/graph.h"
#include "kernels/device/ptx.h"

#if defined(__SANITIZE_THREAD__)
constexpr bool THREAD_SANITIZER = true;
// The first race ends the program, so that a death test sees it and a race in any kernel fails the run.
extern "C" const char* __tsan_default_options();
extern "C" const char* __tsan_default_options() { return "halt_on_error=1"; }
#else
constexpr bool THREAD_SANITIZER = false;
#endif
#if defined(__SANITIZE_ADDRESS__)
constexpr bool ADDRESS_SANITIZER = true;
#else
constexpr bool ADDRESS_SANITIZER = false;
#endif

namespace {

// ---- right ----
__global__ void reverse(int* out, int n) {
    DYNAMIC_SHARED(int, s);
    const int t = int(threadIdx.x);
    s[t] = int(blockIdx.x) * n + t;
    __syncthreads();
    out[int(blockIdx.x) * n + t] = s[n - 1 - t];
}
__global__ void sums(float* sum, float* max) {
    const float v = float((threadIdx.x * 37) % 101);
    sum[threadIdx.x] = block_sum(v);
    max[threadIdx.x] = block_max(v);
}

// ---- wrong ----
__global__ void overrun(float* out) {
    DYNAMIC_SHARED(float, s);
    s[threadIdx.x + 1] = 1.0f;
    __syncthreads();
    out[threadIdx.x] = s[threadIdx.x];
}
__global__ void static_overrun(float* out) {
    STATIC_SHARED(float, s, [63]);
    float* first = s;
    first[threadIdx.x] = 1.0f;
    __syncthreads();
    out[threadIdx.x] = first[threadIdx.x];
}
__global__ void global_overrun(float* out) { out[threadIdx.x + 1] = 1.0f; }
__global__ void divergent_barrier(float* out) {
    if (threadIdx.x < 48) __syncthreads();
    out[threadIdx.x] = 1.0f;
    __syncthreads();
}
__global__ void missing_arrival(float* out) {
    if (threadIdx.x != 3)
        __syncthreads();
    else
        out[0] = __shfl_xor_sync(FULL_WARP, 1.0f, 1);
}
__global__ void early_return(float* out, int n) {
    if (int(threadIdx.x) >= n) return;
    out[threadIdx.x] = __shfl_xor_sync(FULL_WARP, float(threadIdx.x), 1);
}
__global__ void branch_shuffle(float* out) {
    float v = float(threadIdx.x);
    if (threadIdx.x % 2)
        v += __shfl_xor_sync(FULL_WARP, v, 2);
    else
        v -= __shfl_xor_sync(FULL_WARP, v, 2);
    out[threadIdx.x] = v;
}
__global__ void unwritten_shared(float* out) {
    DYNAMIC_SHARED(float, s);
    if (threadIdx.x > 0) s[threadIdx.x] = 1.0f;
    __syncthreads();
    out[threadIdx.x] = s[threadIdx.x];
}
__global__ void unwritten_static_shared(float* out, int from) {
    STATIC_SHARED(float, s, [64]);
    if (int(threadIdx.x) >= from) s[threadIdx.x] = 1.0f;
    __syncthreads();
    out[threadIdx.x] = s[threadIdx.x];
}
__global__ void misaligned(float* out) {
    DYNAMIC_SHARED(bf16, s);
    uint32_t r[4];
    ldmatrix_x4(r, s + threadIdx.x * 9);
    out[threadIdx.x] = float(r[0]);
}
__global__ void missing_barrier(float* out) {
    DYNAMIC_SHARED(float, s);
    s[threadIdx.x] = float(threadIdx.x);
    out[threadIdx.x] = s[63 - threadIdx.x];
}
__global__ void missing_wait(float* out, const float* inp) {
    DYNAMIC_SHARED(float, s);
    cp_async_16(s + threadIdx.x * 4, inp + threadIdx.x * 4, true);
    cp_async_commit();
    out[threadIdx.x] = s[threadIdx.x * 4];
    cp_async_wait<0>();
}
__global__ void copies_under_way(float* out, const float* inp) {
    DYNAMIC_SHARED(float, s);
    cp_async_16(s + threadIdx.x * 4, inp + threadIdx.x * 4, true);
    cp_async_wait<0>();  // of no group: none was closed
    out[threadIdx.x] = 1.0f;
}
__global__ void some_do_not_wait(float* out) {
    if (threadIdx.x < 40) griddepcontrol_wait();
    out[threadIdx.x] = 1.0f;
}
__global__ void pack_before_waiting(float* out) {
    store_pack(out + 4 * threadIdx.x, Pack<float, 4>{});
    griddepcontrol_wait();
}
__global__ void copy_before_waiting(const float* inp) {
    DYNAMIC_SHARED(float, s);
    cp_async_16(s + threadIdx.x * 4, inp + threadIdx.x * 4, true);
    cp_async_commit();
    griddepcontrol_wait();
    cp_async_wait<0>();
}
__global__ void misaligned_pack(float* out) { store_pack(out + 2 * threadIdx.x, Pack<float, 4>{}); }
__global__ void nothing() {}
// The pre-Volta idiom: no __syncwarp between the steps.
__global__ void warp_synchronous(float* out) {
    DYNAMIC_SHARED(float, s);
    const int t = int(threadIdx.x);
    s[t] = 1.0f;
    __syncthreads();
    if (t < 32) {
        s[t] += s[t + 32];
        if (t < 16) s[t] += s[t + 16];
        if (t < 8) s[t] += s[t + 8];
    }
    __syncthreads();
    out[t] = s[0];
}
__global__ void global_race(float* out) { out[0] += 1.0f; }

class CpuDevice : public testing::Test {
  protected:
    void SetUp() override { testing::FLAGS_gtest_death_test_style = "threadsafe"; }
    alignas(16) float out[64] = {};
};
using CpuDeviceDeathTest = CpuDevice;

}  // namespace

TEST_F(CpuDevice, RunsBlocksOfThreadsInAnyOrder) {
    for (auto schedule :
         {cpu_device::Schedule::Forward, cpu_device::Schedule::Reverse, cpu_device::Schedule::Random}) {
        cpu_device::schedule = schedule;
        std::vector<int> got(5 * 96);
        launch(reverse, 5, 96, 96 * sizeof(int), nullptr, got.data(), 96);
        for (int b = 0; b < 5; b++)
            for (int t = 0; t < 96; t++) ASSERT_EQ(got[size_t(b * 96 + t)], b * 96 + 95 - t);
    }
    cpu_device::schedule = cpu_device::Schedule::Forward;
}

TEST_F(CpuDevice, ReductionsGiveEveryThreadTheSameBits) {
    for (int threads : {32, 64, 1024}) {
        std::vector<float> sum(static_cast<size_t>(threads)), max(sum);
        launch(sums, 1, threads, 0, nullptr, sum.data(), max.data());
        float want = 0, most = 0;
        for (int t = 0; t < threads; t++)
            want += float(t * 37 % 101), most = std::max(most, float(t * 37 % 101));
        for (int t = 0; t < threads; t++) {
            ASSERT_EQ(sum[size_t(t)], want);  // whole numbers: exact in any order
            ASSERT_EQ(max[size_t(t)], most);
        }
    }
}

TEST_F(CpuDeviceDeathTest, ReportsAWriteBehindSharedMemory) {
    EXPECT_DEATH(launch(overrun, 1, 64, 64 * 4, nullptr, out),
                 ADDRESS_SANITIZER ? "use-after-poison" : "wrote past 256 bytes of shared memory");
}
TEST_F(CpuDeviceDeathTest, ReportsAWriteBehindStaticSharedMemory) {
    launch(static_overrun, 1, 63, 0, nullptr, out);
    EXPECT_DEATH(launch(static_overrun, 1, 64, 0, nullptr, out),
                 ADDRESS_SANITIZER ? "use-after-poison" : "wrote past 252 bytes of shared memory");
}
TEST_F(CpuDeviceDeathTest, ReportsAWriteBehindGlobalMemory) {
    if (!ADDRESS_SANITIZER) GTEST_SKIP() << "needs SAN=address";
    std::vector<float> heap(64);
    EXPECT_DEATH(launch(global_overrun, 1, 64, 0, nullptr, heap.data()), "heap-buffer-overflow");
}
TEST_F(CpuDeviceDeathTest, ReportsADivergentBarrier) {
    EXPECT_DEATH(launch(divergent_barrier, 1, 64, 0, nullptr, out),
                 "divergent collective: __syncthreads at .* meets __syncthreads");
}
TEST_F(CpuDeviceDeathTest, ReportsADeadlock) {
    EXPECT_DEATH(launch(missing_arrival, 1, 32, 0, nullptr, out),
                 "deadlock(.|\n)*wait in __syncthreads(.|\n)*wait in __shfl_xor_sync");
}
TEST_F(CpuDeviceDeathTest, ReportsAThreadThatReturnedEarly) {
    EXPECT_DEATH(launch(early_return, 1, 64, 0, nullptr, out, 40), "returned before a collective|deadlock");
}
TEST_F(CpuDeviceDeathTest, ReportsAShuffleInABranch) {
    EXPECT_DEATH(launch(branch_shuffle, 1, 64, 0, nullptr, out), "divergent collective: __shfl_xor_sync");
}
TEST_F(CpuDeviceDeathTest, ReportsAMisalignedAddress) {
    EXPECT_DEATH(launch(misaligned, 1, 32, 4096, nullptr, out), "ldmatrix: address not 16-byte aligned");
}
TEST_F(CpuDeviceDeathTest, ReportsAMisalignedPack) {
    alignas(16) float aligned[64] = {};
    EXPECT_DEATH(launch(misaligned_pack, 1, 8, 0, nullptr, aligned), "none of its multiples");
}
TEST_F(CpuDeviceDeathTest, ReportsCopiesThatAThreadLeavesUnderWay) {
    alignas(16) float inp[4 * 64] = {};
    EXPECT_DEATH(launch(copies_under_way, 1, 64, sizeof inp, nullptr, out, static_cast<const float*>(inp)),
                 "returned with copies under way");
}
TEST_F(CpuDeviceDeathTest, ReportsAThreadOfAnOverlappedKernelThatDoesNotWait) {
    launch(some_do_not_wait, 1, 64, 0, nullptr, out);
    launch_overlapped(some_do_not_wait, 1, 40, 0, nullptr, out);
    EXPECT_DEATH(launch_overlapped(some_do_not_wait, 1, 64, 0, nullptr, out),
                 "returned without waiting for the kernels before");
}
TEST_F(CpuDeviceDeathTest, ReportsWhatAnOverlappedKernelTouchesBeforeItHasWaited) {
    launch(pack_before_waiting, 1, 8, 0, nullptr, out);
    EXPECT_DEATH(launch_overlapped(pack_before_waiting, 1, 8, 0, nullptr, out),
                 "before the thread has waited");
    launch(copy_before_waiting, 1, 8, 128, nullptr, out);
    EXPECT_DEATH(launch_overlapped(copy_before_waiting, 1, 8, 128, nullptr, out),
                 "before the thread has waited");
}
TEST_F(CpuDeviceDeathTest, ReportsALaunchThatNoDeviceTakes) {
    launch(nothing, dim3(1, 2, 3), dim3(64, 1, 16), 99 << 10, nullptr);
    EXPECT_DEATH(launch(nothing, 0, 32, 0, nullptr), "no device takes");
    EXPECT_DEATH(launch(nothing, dim3(1, 65536), 32, 0, nullptr), "no device takes");
    EXPECT_DEATH(launch(nothing, 1, 1056, 0, nullptr), "no device takes");
    EXPECT_DEATH(launch(nothing, 1, 32, (99 << 10) + 1, nullptr), "no device takes");
    launch_on_hopper(nothing, 1, 32, 227 << 10, nullptr);
    EXPECT_DEATH(launch_on_hopper(nothing, 1, 32, (227 << 10) + 1, nullptr), "no device takes");
}
// So that a test which passes by the host's exactness alone fails here already.
TEST_F(CpuDevice, ApproximationsMissAsADevicesMay) {
    int exp2_missed = 0, log2_missed = 0;
    for (int i = 1; i <= 100; i++) {
        const float x = float(i) / 7, e = std::exp2(x), l = std::log2(x);
        exp2_missed += exp2_approx(-x) != std::exp2(-x);
        log2_missed += log2_approx(x) != l;
        EXPECT_NEAR(exp2_approx(x), std::exp2(double(x)), 0x1p-22 * double(e));
        EXPECT_NEAR(log2_approx(x), std::log2(double(x)), 0x1p-22 * std::max(1.0, std::abs(double(l))));
    }
    EXPECT_GT(exp2_missed, 50);
    EXPECT_GT(log2_missed, 50);
    EXPECT_EQ(exp2_approx(0), 1);
}
TEST_F(CpuDevice, UnwrittenSharedMemoryIsNaN) {
    launch(unwritten_shared, 1, 64, 64 * 4, nullptr, out);
    EXPECT_TRUE(std::isnan(out[0]));
    EXPECT_EQ(out[1], 1.0f);
}
TEST_F(CpuDevice, UnwrittenStaticSharedMemoryIsNaNWhateverABlockBeforeLeft) {
    launch(unwritten_static_shared, 1, 64, 0, nullptr, out, 0);
    EXPECT_EQ(out[0], 1.0f);
    launch(unwritten_static_shared, 1, 64, 0, nullptr, out, 1);
    EXPECT_TRUE(std::isnan(out[0]));
    EXPECT_EQ(out[1], 1.0f);
}
TEST_F(CpuDevice, ACopyThatIsNotWaitedForIsNaN) {
    alignas(16) float inp[4 * 64] = {};
    launch(missing_wait, 1, 64, sizeof inp, nullptr, out, static_cast<const float*>(inp));
    for (float x : out) EXPECT_TRUE(std::isnan(x));
}
// What a real recording cannot hold ends the program here, too.
TEST_F(CpuDeviceDeathTest, ReportsWhatNeedsTheHostInAGraph) {
    const int on = 1;
    LoopGraph graph;
    EXPECT_DEATH(graph.record(nullptr, &on, [] { (void)cudaStreamSynchronize(nullptr); }),
                 "a wait for the stream while a graph is recorded");
    EXPECT_DEATH(graph.record(nullptr, &on,
                              [&] { (void)cudaMemcpyAsync(out, out, 4, cudaMemcpyHostToDevice, nullptr); }),
                 "a copy while a graph is recorded");
}
TEST_F(CpuDeviceDeathTest, ThreadSanitizerSeesAMissingBarrier) {
    if (!THREAD_SANITIZER) GTEST_SKIP() << "needs SAN=thread";
    EXPECT_DEATH(launch(missing_barrier, 1, 64, 64 * 4, nullptr, out), "data race");
    EXPECT_DEATH(launch(warp_synchronous, 1, 64, 64 * 4, nullptr, out), "data race");
    EXPECT_DEATH(launch(global_race, 1, 64, 0, nullptr, out), "data race");
}
