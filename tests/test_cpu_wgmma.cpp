// What the emulation reports of wgmma: one deliberate mistake per launch.
#include <gtest/gtest.h>

#include "kernels/device/wgmma.h"

#if defined(__SANITIZE_THREAD__)
constexpr bool THREAD_SANITIZER = true;
#else
constexpr bool THREAD_SANITIZER = false;
#endif

namespace {

enum Mistake {
    NONE,
    READS_EARLY,
    WRITES_ACCUMULATORS,
    WRITES_REGISTERS,
    WRITES_SHARED,
    NO_WAIT,
    NO_COMMIT,
    NO_FENCE,
    NO_FENCE_OF_SECOND_GROUP,
    NO_PROXY_FENCE,
    PROXY_FENCE_LATE,
    NO_BARRIER,
    TWO_DESCRIPTORS,
    TWO_FLAGS,
    ONE_WARP,
    UNALIGNED,
    IN_THE_PATTERN,
    COLUMNS_IN_THE_PATTERN,
    NO_SWIZZLE,
    BASE_OFFSET,
    OUTSIDE,
    NOT_SHARED
};

// d = A B^T, all ones, with A (64, 16) in registers and B (64, 64) in shared memory.
__global__ void multiply(float* out, const bf16* ones, Mistake mistake) {
    DYNAMIC_SHARED_TILES(bf16, smem);
    const int t = int(threadIdx.x);
    for (int i = t; i < 64 * 8; i += int(blockDim.x)) cp_async_16(smem + i * 8, ones + i * 8, true);
    cp_async_commit();
    cp_async_wait<0>();
    if (mistake != NO_PROXY_FENCE && mistake != PROXY_FENCE_LATE) fence_proxy_async();
    if (mistake != NO_BARRIER) __syncthreads();
    if (mistake == PROXY_FENCE_LATE) fence_proxy_async();
    uint64_t b = k_major_descriptor<64>(smem, 0, 16);
    if (mistake == TWO_DESCRIPTORS && t == 77) b = k_major_descriptor<64>(smem, 0, 32);
    if (mistake == UNALIGNED) b = k_major_descriptor<64>(smem, 0, 4);
    if (mistake == IN_THE_PATTERN) b = k_major_descriptor<64>(smem, 1, 0);
    if (mistake == COLUMNS_IN_THE_PATTERN) b = mn_major_descriptor<64>(smem, 4, 0);
    if (mistake == NO_SWIZZLE) b &= ~(uint64_t(3) << 62);
    if (mistake == BASE_OFFSET) b |= uint64_t(1) << 49;
    if (mistake == OUTSIDE) b = k_major_descriptor<64>(smem, 8, 0);
    if (mistake == NOT_SHARED) b = k_major_descriptor<64>(ones, 0, 0);
    uint32_t a[4];
    for (uint32_t& pair : a) pair = pack_bf16(1.0f, 1.0f);
    float d[8][4], other[8][4] = {};
    if (mistake != NO_FENCE) wgmma_fence();
    if (mistake == ONE_WARP && t / WARP != 2) return;
    if (mistake == COLUMNS_IN_THE_PATTERN)
        wgmma<Major::MN>(d, a, b, false);
    else
        wgmma(d, a, b, mistake == TWO_FLAGS && t == 5);
    if (mistake != NO_COMMIT) wgmma_commit();
    if (mistake == NO_FENCE_OF_SECOND_GROUP) wgmma(other, a, b, false);
    if (mistake == READS_EARLY) out[t] = d[7][3];
    if (mistake == WRITES_ACCUMULATORS) d[0][0] = 0;
    if (mistake == WRITES_REGISTERS) a[3] = 0;
    if (mistake == WRITES_SHARED && t == 9) smem[64 * 8 + 16] = bf16(2.0f);
    if (mistake != NO_WAIT) wgmma_wait<0>();
    if (mistake != READS_EARLY) out[t] = d[7][3];
}

class CpuWgmma : public testing::Test {
  protected:
    void SetUp() override { testing::FLAGS_gtest_death_test_style = "threadsafe"; }
    void run(Mistake mistake, int threads = 128) {
        launch(multiply, 1, threads, sizeof ones, nullptr, out, static_cast<const bf16*>(ones), mistake);
    }
    CpuWgmma() {
        for (bf16& x : ones) x = bf16(1.0f);
    }
    alignas(16) bf16 ones[64 * 64];
    float out[128] = {};
};
using CpuWgmmaDeathTest = CpuWgmma;

__global__ void barriers(int id, int threads, int others) {
    named_barrier_sync(id, threadIdx.x < 32 ? threads : others);
}
__global__ void arrivals(int waiting) {
    if (int(threadIdx.x) < waiting)
        named_barrier_sync(1, 64);
    else
        named_barrier_arrive(1, 64);
}

}  // namespace

TEST_F(CpuWgmma, MultipliesWithoutAMistake) {
    run(NONE);
    for (const float x : out) EXPECT_EQ(x, 16.0f);
}
TEST_F(CpuWgmma, AccumulatorsAreNaNBeforeTheWait) {
    run(READS_EARLY);
    for (const float x : out) EXPECT_TRUE(std::isnan(x));
}
TEST_F(CpuWgmmaDeathTest, ReportsWhatIsTouchedBeforeTheWait) {
    EXPECT_DEATH(run(WRITES_ACCUMULATORS), "accumulators of wgmma were written before the wait");
    EXPECT_DEATH(run(WRITES_REGISTERS), "an operand of wgmma changed before the wait");
    EXPECT_DEATH(run(WRITES_SHARED), THREAD_SANITIZER ? "data race|an operand of wgmma changed"
                                                      : "an operand of wgmma changed before the wait");
}
TEST_F(CpuWgmmaDeathTest, ReportsProductsThatAThreadLeavesUnderWay) {
    EXPECT_DEATH(run(NO_WAIT), "returned with wgmma products under way");
    EXPECT_DEATH(run(NO_COMMIT), "returned with wgmma products under way");
}
TEST_F(CpuWgmmaDeathTest, ReportsAMissingFence) {
    EXPECT_DEATH(run(NO_FENCE), "does not begin with wgmma_fence");
    EXPECT_DEATH(run(NO_FENCE_OF_SECOND_GROUP), "does not begin with wgmma_fence");
    EXPECT_DEATH(run(NO_PROXY_FENCE), "no fence_proxy_async followed");
}
TEST_F(CpuWgmmaDeathTest, ReportsAWarpgroupThatDisagrees) {
    EXPECT_DEATH(run(TWO_DESCRIPTORS), "different descriptors");
    EXPECT_DEATH(run(TWO_FLAGS), "different descriptors or flags");
    EXPECT_DEATH(run(ONE_WARP), "returned before a collective|deadlock");
    EXPECT_DEATH(run(NONE, 96), "warpgroup is not whole");
}
TEST_F(CpuWgmmaDeathTest, ReportsADescriptorThatDoesNotFit) {
    EXPECT_DEATH(run(UNALIGNED), "not 16-byte aligned");
    EXPECT_DEATH(run(IN_THE_PATTERN), "K-major operand that does not start in the first row of 8");
    EXPECT_DEATH(run(COLUMNS_IN_THE_PATTERN), "MN-major operand that does not start at a multiple of 1024");
    EXPECT_DEATH(run(NO_SWIZZLE), "swizzle is not of 128 bytes");
    EXPECT_DEATH(run(BASE_OFFSET), "with a base offset");
    EXPECT_DEATH(run(OUTSIDE), "outside dynamic shared memory");
    EXPECT_DEATH(run(NOT_SHARED), "not in dynamic shared memory");
}
TEST_F(CpuWgmmaDeathTest, ThreadSanitizerSeesAMissingBarrier) {
    if (!THREAD_SANITIZER) GTEST_SKIP() << "needs SAN=thread";
    EXPECT_DEATH(run(NO_BARRIER), "data race");
    EXPECT_DEATH(run(PROXY_FENCE_LATE), "data race");
}
TEST_F(CpuWgmmaDeathTest, ReportsANamedBarrierThatCannotBe) {
    launch(barriers, 1, 64, 0, nullptr, 15, 64, 64);
    EXPECT_DEATH(launch(barriers, 1, 64, 0, nullptr, 0, 64, 64), "none of 1..15");
    EXPECT_DEATH(launch(barriers, 1, 64, 0, nullptr, 16, 64, 64), "none of 1..15");
    EXPECT_DEATH(launch(barriers, 1, 64, 0, nullptr, 1, 40, 40), "no whole number of the block's warps");
    EXPECT_DEATH(launch(barriers, 1, 64, 0, nullptr, 1, 96, 96), "no whole number of the block's warps");
    EXPECT_DEATH(launch(barriers, 1, 64, 0, nullptr, 1, 64, 32), "disagree on how many");
    EXPECT_DEATH(launch(barriers, 1, 96, 0, nullptr, 1, 64, 64), "deadlock(.|\n)*wait in a named barrier");
    launch(arrivals, 1, 64, 0, nullptr, 32);
    EXPECT_DEATH(launch(arrivals, 1, 32, 0, nullptr, 0), "of no whole number of the block's warps");
    EXPECT_DEATH(launch(arrivals, 1, 96, 0, nullptr, 0),
                 "arrived at a named barrier that others never reached");
    EXPECT_DEATH(launch(arrivals, 1, 96, 0, nullptr, 32), "arrived at a named barrier that others never");
}
