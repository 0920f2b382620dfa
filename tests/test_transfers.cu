// Copies to the device and back: the host's memory may change as soon as an upload returns.
#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>

#include "kernels/device/transfers.h"
#include "tests/device_array.h"

TEST(Transfers, ReadTheHostsMemoryBeforeTheyReturn) {
    cudaStream_t stream;
    CUDA_CHECK(cudaStreamCreate(&stream));
    {
        Transfers transfers(stream, 1024);
        const std::vector<size_t> sizes = {1, 64, 3,    64, 64, 64,
                                           0, 64, 1000, 5,  64, 64};  // of the pinned block, and larger
        std::vector<int> want(std::accumulate(sizes.begin(), sizes.end(), size_t(0)));
        std::iota(want.begin(), want.end(), 1);
        const DeviceArray<int> device{std::vector<int>(want.size())};
        size_t at = 0;
        for (const size_t n : sizes) {
            std::vector<int> host(want.begin() + std::ptrdiff_t(at), want.begin() + std::ptrdiff_t(at + n));
            if (n) transfers.upload(device.data() + at, host.data(), n * sizeof(int));
            std::fill(host.begin(), host.end(), -1);
            at += n;
        }
        std::vector<int> got(want.size());
        transfers.download(got.data(), device.data(), got.size() * sizeof(int));
        EXPECT_EQ(got, want);
    }
    CUDA_CHECK(cudaStreamDestroy(stream));
}
