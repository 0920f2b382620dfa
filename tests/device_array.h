// device_array.h -- an array in device memory, for tests that launch kernels themselves.
#pragma once
#include <vector>

#include "kernels/device/device.h"

template <class T>
class DeviceArray {
  public:
    explicit DeviceArray(const std::vector<T>& host) : n_(host.size()) {
        CUDA_CHECK(cudaMalloc(&data_, n_ * sizeof(T)));
        CUDA_CHECK(cudaMemcpyAsync(data_, host.data(), n_ * sizeof(T), cudaMemcpyHostToDevice, nullptr));
        CUDA_CHECK(cudaStreamSynchronize(nullptr));  // `host` may be gone the next moment (transfers.h)
    }
    ~DeviceArray() { cudaFree(data_); }
    DeviceArray(const DeviceArray&) = delete;
    DeviceArray& operator=(const DeviceArray&) = delete;
    T* data() const { return static_cast<T*>(data_); }
    std::vector<T> host() const {
        std::vector<T> out(n_);
        CUDA_CHECK(cudaMemcpyAsync(out.data(), data_, n_ * sizeof(T), cudaMemcpyDeviceToHost, nullptr));
        CUDA_CHECK(cudaStreamSynchronize(nullptr));
        return out;
    }

  private:
    size_t n_;
    void* data_ = nullptr;
};
