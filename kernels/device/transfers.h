// transfers.h -- copies between the host's memory and the device's, on one stream.
//
// An asynchronous copy out of ordinary memory may still read it when the call has returned: whether it does depends on driver
// and kernel. So small uploads pass through pinned memory of our own, and large ones are waited for.
#pragma once
#include <cstring>

#include "kernels/device/device.h"

class Transfers {
  public:
    explicit Transfers(cudaStream_t stream, size_t pinned_bytes = size_t(4) << 20)
        : stream_(stream), bytes_(pinned_bytes) {
        void* block = nullptr;
        CUDA_CHECK(cudaMallocHost(&block, bytes_));
        pinned_ = static_cast<char*>(block);
    }
    ~Transfers() { cudaFreeHost(pinned_); }
    Transfers(const Transfers&) = delete;
    Transfers& operator=(const Transfers&) = delete;

    // In the order of the stream; `host` may be reused at once.
    void upload(void* device, const void* host, size_t bytes) {
        const bool large = bytes > bytes_ / 4;
        const void* from = large ? host : copy_of(host, bytes);
        CUDA_CHECK(cudaMemcpyAsync(device, from, bytes, cudaMemcpyHostToDevice, stream_));
        if (large) wait();
    }
    // Waits for everything before it.
    void download(void* host, const void* device, size_t bytes) {
        CUDA_CHECK(cudaMemcpyAsync(host, device, bytes, cudaMemcpyDeviceToHost, stream_));
        wait();
    }

  private:
    void wait() {
        CUDA_CHECK(cudaStreamSynchronize(stream_));
        used_ = 0;  // nobody reads it any more
    }
    const void* copy_of(const void* host, size_t bytes) {
        if (bytes > bytes_ - used_) wait();
        char* to = pinned_ + used_;
        memcpy(to, host, bytes);
        used_ += (bytes + 127) / 128 * 128;
        return to;
    }

    cudaStream_t stream_;
    char* pinned_ = nullptr;
    size_t bytes_, used_ = 0;
};
