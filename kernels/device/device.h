// device.h -- the one include of every kernel file: real CUDA under nvcc, the host emulation under g++.
#pragma once
#include <cstdlib>
#include <type_traits>

#include "utils/error.h"
#include "utils/tensor.h"

#ifdef __CUDACC__
#include <cuda_bf16.h>
#include <cuda_runtime.h>

using bf16 = __nv_bfloat16;
#define STATIC_SHARED(T, name, ...) __shared__ T name __VA_ARGS__
#define DYNAMIC_SHARED(T, name)                                       \
    extern __shared__ __align__(128) unsigned char dynamic_shared_[]; \
    T* name = reinterpret_cast<T*>(dynamic_shared_)
#else
#include "kernels/device/cpu_device.h"
#endif

// Throws Error(Runtime), or NoMemory where the device has none left, with the statement and what CUDA says.
#define CUDA_CHECK(call) cuda_check(call, #call, __FILE__, __LINE__)
inline void cuda_check(cudaError_t error, const char* call, const char* file, int line) {
    if (error == cudaSuccess) return;
    fail(error == cudaErrorMemoryAllocation ? Exit::NoMemory : Exit::Runtime, "%s:%d: %s: %s", file, line,
         call, cudaGetErrorString(error));
}

#ifdef __CUDACC__
template <class... P>
void allow_shared(void (*kernel)(P...), size_t smem) {
    if (smem > 40 * 1024)  // of the 48 KiB that need no permission the kernel's static arrays take their part
        CUDA_CHECK(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, int(smem)));
}
template <class... P, class... A>
void launch(void (*kernel)(P...), dim3 grid, dim3 block, size_t smem, cudaStream_t stream, A... args) {
    allow_shared(kernel, smem);
    kernel<<<grid, block, smem, stream>>>(args...);
    CUDA_CHECK(cudaGetLastError());
}
// Of a kernel for compute capability 9.0 alone, whose blocks have up to 227 KiB of shared memory.
template <class... P, class... A>
void launch_on_hopper(void (*kernel)(P...), dim3 grid, dim3 block, size_t smem, cudaStream_t stream,
                      A... args) {
    launch(kernel, grid, block, smem, stream, args...);
}
// The kernel may begin while the one before it in the stream, or in a recording, still runs: every thread of it calls
// griddepcontrol_wait (ptx.h) before it touches what kernels before it write, or writes what they touch. Only where
// device_overlaps_kernels().
template <class... P, class... A>
void launch_overlapped(void (*kernel)(P...), dim3 grid, dim3 block, size_t smem, cudaStream_t stream,
                       A... args) {
    allow_shared(kernel, smem);
    cudaLaunchAttribute overlapped = {};
    overlapped.id = cudaLaunchAttributeProgrammaticStreamSerialization;
    overlapped.val.programmaticStreamSerializationAllowed = 1;
    cudaLaunchConfig_t config = {};
    config.gridDim = grid;
    config.blockDim = block;
    config.dynamicSmemBytes = smem;
    config.stream = stream;
    config.attrs = &overlapped;
    config.numAttrs = 1;
    CUDA_CHECK(cudaLaunchKernelEx(&config, kernel, P(args)...));
}
__device__ inline void check_aligned(const void*, size_t) {}  // the hardware does
inline void mark_scratch(void*, size_t, size_t) {}
#endif

// Whether the current device is a Hopper and this program has code for it (sm_90a). True in the emulation.
inline bool runs_code_for_hopper() {
#if defined(__CUDACC__) && !defined(BUILT_FOR_SM_90A)
    return false;
#else
    int device = 0, major = 0, minor = 0;
    CUDA_CHECK(cudaGetDevice(&device));
    CUDA_CHECK(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device));
    CUDA_CHECK(cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, device));
    return major == 9 && minor == 0;
#endif
}
// Whether kernels may be launched overlapped. Code for older devices does not wait, whatever it runs on. With
// KERNELS_IN_TURN in the environment none are: compute-sanitizer's racecheck (2025.3) fails with an internal error where
// kernels overlap.
inline bool device_overlaps_kernels() { return runs_code_for_hopper() && !getenv("KERNELS_IN_TURN"); }

constexpr int WARP = 32;
constexpr unsigned FULL_WARP = 0xffffffffu;

template <>
constexpr DType dtype_of<bf16>() {
    return DType::BF16;
}

// ---- numbers: arithmetic is fp32, whatever the memory holds ----
__host__ __device__ inline float to_float(float x) { return x; }
__host__ __device__ inline float to_float(bf16 x) { return float(x); }
template <class T>
__host__ __device__ inline T from_float(float x) {
    return T(x);
}

// N neighbouring elements that move in one instruction (up to 16 bytes).
template <class T, int N>
struct alignas(N * sizeof(T)) Pack {
    T v[N];
};
template <int N, class T>
__device__ inline Pack<T, N> load_pack(const T* p) {
    check_aligned(p, N * sizeof(T));
    return *reinterpret_cast<const Pack<T, N>*>(p);
}
template <int N, class T>
__device__ inline void store_pack(T* p, const Pack<T, N>& pack) {
    check_aligned(p, N * sizeof(T));
    *reinterpret_cast<Pack<T, N>*>(p) = pack;
}
template <class T>
constexpr int FULL_PACK = int(16 / sizeof(T));

// Rows of a strided tensor, as a kernel sees them.
template <class T>
struct DeviceRows {
    T* data;
    int64_t stride;
    __host__ __device__ T* operator[](int64_t r) const { return data + r * stride; }
};

// ---- reductions ----

// Every lane gets the same bits: the butterfly adds the same pairs in every lane.
template <class T>
__device__ inline T warp_sum(T v) {
    for (int o = WARP / 2; o > 0; o /= 2) v += __shfl_xor_sync(FULL_WARP, v, o);
    return v;
}
// Over groups of n neighbouring lanes, n a power of two, the same bits in every lane of a group.
__device__ inline float group_sum(float v, int n) {
    for (int o = WARP / 2; o > 0; o /= 2) {
        const float other = __shfl_xor_sync(FULL_WARP, v, o);
        if (o < n) v += other;
    }
    return v;
}
__device__ inline float warp_max(float v) {
    for (int o = WARP / 2; o > 0; o /= 2) v = fmaxf(v, __shfl_xor_sync(FULL_WARP, v, o));
    return v;
}

// Over the whole block (whole warps of threads), the same bits in every thread.
template <class T>
__device__ inline T block_sum(T v) {
    STATIC_SHARED(T, partial, [32]);
    const int warp = int(threadIdx.x) / WARP, lane = int(threadIdx.x) % WARP, warps = int(blockDim.x) / WARP;
    v = warp_sum(v);
    if (lane == 0) partial[warp] = v;
    __syncthreads();  // every warp's part is written before anybody reads it
    v = warp_sum(lane < warps ? partial[lane] : T(0));
    __syncthreads();  // everybody has read the parts before the next reduction overwrites them
    return v;
}
__device__ inline float block_max(float v) {
    STATIC_SHARED(float, partial, [32]);
    const int warp = int(threadIdx.x) / WARP, lane = int(threadIdx.x) % WARP, warps = int(blockDim.x) / WARP;
    v = warp_max(v);
    if (lane == 0) partial[warp] = v;
    __syncthreads();  // every warp's part is written before anybody reads it
    v = warp_max(lane < warps ? partial[lane] : -INFINITY);
    __syncthreads();  // everybody has read the parts before the next reduction overwrites them
    return v;
}

// ---- launch sizes ----
inline int ceil_div(int64_t a, int64_t b) { return int((a + b - 1) / b); }
// Threads for a row of n work items: whole warps, at most `most`.
inline int threads_for(int64_t n, int most) {
    const int warps = ceil_div(n, WARP);
    return warps < 1 ? WARP : warps * WARP < most ? warps * WARP : most;
}

// ---- host side: from a Tensor's type to a template's ----

// f(T()) with T float or bf16, as the tensor's elements are.
template <class F>
void with_type(DType dtype, const char* what, F f) {
    if (dtype == DType::F32) return f(float());
    if (dtype == DType::BF16) return f(bf16());
    CHECK(false, "%s is of type %s; the CUDA kernels take F32 and BF16", what, name_of(dtype));
}
// Whether every row of t can be moved in packs of 16 bytes.
inline bool packs(const Tensor& t) {
    const int64_t size = int64_t(size_of(t.dtype));
    return reinterpret_cast<uintptr_t>(t.data) % 16 == 0 && t.cols * size % 16 == 0 &&
           (t.rows <= 1 || t.stride * size % 16 == 0);
}
template <class T>
DeviceRows<T> device_rows(const Tensor& t) {
    return {t.as<std::remove_const_t<T>>(), t.stride};
}
// The data of a contiguous tensor that may be absent.
template <class T>
T* optional(const Tensor& t) {
    return t ? t.as<std::remove_const_t<T>>() : nullptr;
}
// Whether a vector can be read in packs of n.
inline bool aligned_for(const Tensor& t, int n) {
    return reinterpret_cast<uintptr_t>(t.data) % (size_t(n) * size_of(t.dtype)) == 0;
}
