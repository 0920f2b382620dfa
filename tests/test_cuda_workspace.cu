// The scratch of the CUDA kernels.
#pragma nv_diag_suppress 554  // Rows<const T> has a conversion to itself, which is never called
#include <gtest/gtest.h>

#include <cmath>

#include "kernels/cuda_kernels.h"
#include "kernels/device/graph.h"
#include "tests/device_array.h"

extern "C" int __asan_address_is_poisoned(const void*) __attribute__((weak));

// cuBLASLt refuses scratch that is not.
TEST(CudaWorkspace, GivesAddressesAlignedTo256) {
    const DeviceArray<char> block(std::vector<char>(4096));
    cuda::Workspace workspace(block.data(), 4096);
    workspace.take<char>(1);
    EXPECT_EQ(reinterpret_cast<uintptr_t>(workspace.take<float>(65)) % 256, 0u);
    EXPECT_EQ(reinterpret_cast<uintptr_t>(workspace.take<char>(1)) % 256, 0u);
}

static __global__ void end_loop(int* on) { *on = 0; }

// So that a kernel that reads what none has written, or behind its scratch, shows; also where the launches are recorded.
TEST(CudaWorkspace, EmulatedScratchStartsAsNaNs) {
    int devices = 0;
    if (cudaGetDeviceCount(&devices) == cudaSuccess && devices > 0)
        GTEST_SKIP() << "a device leaves what was there";
    const DeviceArray<float> block(std::vector<float>(1024, 1));
    cuda::Workspace workspace(block.data(), 4096);
    const auto check = [&](const float* scratch, int n) {
        for (int i = 0; i < n; i++) EXPECT_TRUE(std::isnan(scratch[i])) << i;
        if (!__asan_address_is_poisoned) return;
        EXPECT_FALSE(__asan_address_is_poisoned(scratch + n - 1));
        EXPECT_TRUE(__asan_address_is_poisoned(scratch + n));
        EXPECT_TRUE(__asan_address_is_poisoned(block.data() + 1023));
    };
    float* first = workspace.take<float>(65);
    check(first, 65);
    check(workspace.take<float>(3), 3);
    first[0] = 7;
    workspace.reset();

    const DeviceArray<int> on({1});
    LoopGraph graph;
    float* again = nullptr;
    const bool recorded = graph.record(nullptr, on.data(), [&] {
        again = workspace.take<float>(12);
        launch(end_loop, 1, 1, 0, nullptr, on.data());
    });
    if (!recorded) GTEST_SKIP() << "LOOPS_ON_HOST";
    ASSERT_EQ(again, first);
    EXPECT_EQ(first[0], 7) << "recording changes nothing";
    graph.launch(nullptr);
    check(again, 12);
}
