// A loop that is recorded once and repeated by the device (graph.h): on the host the emulation's, on a GPU a CUDA graph.
#include <gtest/gtest.h>

#include "kernels/device/graph.h"
#include "kernels/device/ptx.h"
#include "tests/device_array.h"

namespace {

// One thread: a step of the loop, which ends it after a number of steps.
__global__ void add_and_count_down(int* sum, int* left, int by) {
    *sum += by;
    *left -= 1;
}

// The same once the kernels before have ended: *sum = *sum * 3 + by.
__global__ void triple_and_count_down(int* sum, int* left, int by) {
    griddepcontrol_launch_dependents();
    griddepcontrol_wait();
    *sum = *sum * 3 + by;
    *left -= 1;
}

class LoopGraphTest : public testing::Test {
  protected:
    LoopGraphTest() { CUDA_CHECK(cudaStreamCreate(&stream)); }
    ~LoopGraphTest() override { cudaStreamDestroy(stream); }

    // A step that adds `by` twice as two kernels, the second of which ends it.
    bool record(int by) {
        return graph.record(stream, left.data(), [&] {
            steps_recorded++;
            launch(add_and_count_down, 1, 1, 0, stream, sum.data(), unused.data(), by);
            launch(add_and_count_down, 1, 1, 0, stream, sum.data(), left.data(), by);
        });
    }
    void set(const DeviceArray<int>& to, int value) {
        CUDA_CHECK(cudaMemcpyAsync(to.data(), &value, sizeof(int), cudaMemcpyHostToDevice, stream));
        CUDA_CHECK(cudaStreamSynchronize(stream));
    }
    int run(int steps) {
        set(left, steps);
        set(sum, 0);
        graph.launch(stream);
        CUDA_CHECK(cudaStreamSynchronize(stream));
        return sum.host()[0];
    }

    cudaStream_t stream;
    const DeviceArray<int> sum{{0}}, left{{0}}, unused{{0}};
    int steps_recorded = 0;
    LoopGraph graph;
};

}  // namespace

TEST_F(LoopGraphTest, RepeatsWhileItsFlagIsNotZero) {
    set(left, 3);
    if (!record(7)) GTEST_SKIP() << "this driver has no graphs with loops";
    CUDA_CHECK(cudaStreamSynchronize(stream));
    EXPECT_EQ(sum.host()[0], 0) << "recording starts nothing";
    EXPECT_EQ(left.host()[0], 3);
    EXPECT_EQ(run(3), 3 * 2 * 7);
    EXPECT_EQ(left.host()[0], 0);
    EXPECT_EQ(run(0), 0) << "not even once";
    EXPECT_EQ(run(1000), 1000 * 2 * 7);  // the same recording again
    EXPECT_EQ(steps_recorded, 1);
}

TEST_F(LoopGraphTest, ARecordingReplacesTheOneBefore) {
    if (!record(7)) GTEST_SKIP() << "this driver has no graphs with loops";
    EXPECT_EQ(run(2), 2 * 2 * 7);
    ASSERT_TRUE(record(5));
    EXPECT_EQ(run(2), 2 * 2 * 5);
}

TEST_F(LoopGraphTest, LaunchesRunAgainOnceARecordingIsMade) {
    if (!record(7)) GTEST_SKIP() << "this driver has no graphs with loops";
    set(left, 4);
    launch(add_and_count_down, 1, 1, 0, stream, sum.data(), left.data(), 9);
    CUDA_CHECK(cudaStreamSynchronize(stream));
    EXPECT_EQ(sum.host()[0], 9);
    EXPECT_EQ(left.host()[0], 3);
}

// As compute-sanitizer wants it.
TEST_F(LoopGraphTest, RecordsNothingWhereLoopsAreTheHosts) {
    const char* before = getenv("LOOPS_ON_HOST");
    setenv("LOOPS_ON_HOST", "1", 1);
    EXPECT_FALSE(record(7));
    EXPECT_EQ(steps_recorded, 0);
    if (!before) unsetenv("LOOPS_ON_HOST");
}

TEST_F(LoopGraphTest, OverlappedKernelsOfARecordingWaitForThoseBefore) {
    if (!device_overlaps_kernels()) GTEST_SKIP() << "this device does not overlap kernels";
    const auto step = [&] {
        for (int i = 0; i < 4; i++)
            launch_overlapped(triple_and_count_down, 1, 1, 0, stream, sum.data(),
                              (i < 3 ? unused : left).data(), i);
    };
    if (!graph.record(stream, left.data(), step)) GTEST_SKIP() << "this driver records no overlapped kernels";
    int want = 0;
    for (int n = 0; n < 3 * 4; n++) want = want * 3 + n % 4;
    EXPECT_EQ(run(3), want);
    EXPECT_EQ(run(0), 0);
}
