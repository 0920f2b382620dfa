// cpu_device.h -- just enough of CUDA, in plain C++, to run our kernels on the host. Tests only.
//
// Kept from the GPU: the index variables, shared memory, barriers, warp shuffles and votes, and (in ptx.h)
// ldmatrix, mma and cp.async with their real register layouts, (in wgmma.h and cpu_wgmma.h) wgmma with its
// descriptors; of the runtime, memory, copies and streams (which do nothing). Limits: no memory model, no
// timing, no registers, no bank conflicts, no forward progress guarantees, no races between blocks. It proves
// logic, not speed.
//
// What it reports (and aborts): a barrier or warp collective that not all threads reach, lanes that wait in
// different places, a misaligned ldmatrix, cp.async or pack, a thread that returns with copies under way, a
// write just past shared memory, a launch that no device would take, a stack overflow; in a kernel that is
// launched overlapped, a pack or a copy before the wait for the kernels before, and a thread that returns
// without it; of wgmma what stands in cpu_wgmma.h.
// Shared memory and a workspace's scratch start as NaNs, and a cp.async destination is NaN until it is waited
// for. What is copied from pinned memory is read when the stream's next operation starts, as late as a device
// may. Approximations (ptx.h) are off by about as much as a device's may be.
// ThreadSanitizer sees missing barriers (every thread of a block is a fiber with its own clock),
// AddressSanitizer overruns of every allocation.
#pragma once
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <vector>

#include "kernels/parallel.h"

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __restrict__
// STATIC_SHARED(float, name, [ROWS][COLS]): one block at a time per host thread.
#define STATIC_SHARED(T, name, ...)                                          \
    using name##_array = T __VA_ARGS__;                                      \
    static thread_local cpu_device::StaticShared<name##_array> name##_place; \
    auto& name = cpu_device::poisoned_once(name##_place)
#define DYNAMIC_SHARED(T, name) T* name = static_cast<T*>(cpu_device::dynamic_shared())

struct dim3 {
    unsigned x, y, z;
    constexpr dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}
};
extern constinit thread_local dim3 threadIdx, blockIdx, blockDim, gridDim;
using cudaStream_t = void*;

namespace cpu_device {
constexpr int MAX_BLOCK = 1024;
constexpr unsigned MAX_GRID_YZ = 65535;
// Bytes of shared memory a block may have: on every device of compute capability 8.0 and up, and on one of 9.0.
constexpr size_t MAX_SHARED = 99 << 10, MAX_SHARED_HOPPER = 227 << 10;
// Warpgroup: four warps that issue one instruction together. It orders no memory accesses of theirs, as on the
// device.
enum class Scope { Warp, Warpgroup, Block };
enum class Schedule { Forward, Reverse, Random };
extern Schedule schedule;  // order in which the threads of a block are first run

[[noreturn]] void fail(const char* what, const char* file, int line);
void run_block(dim3 grid, dim3 block, dim3 bid, size_t smem, void (*entry)(void*), void* closure);
void collective(Scope, uint32_t mask, void* mine, void (*combine)(void**, uint32_t), const char* op,
                const char* file, int line);
void named_barrier(int id, int threads, const char* file, int line);
void named_barrier_arrive(int id, int threads, const char* file, int line);  // without waiting
// Fails unless all threads of the warpgroup pass the same four values.
void warpgroup_agree(const uint64_t (&values)[4], const char* op, const char* file, int line);
void* dynamic_shared();
// The bytes of dynamic shared memory before p, which must be inside.
size_t shared_offset(const void* p, const char* file, int line);
size_t shared_bytes();
int lane_id();
int warp_id();
void poison(void* p, size_t bytes);
// Static shared memory, and what a block must not touch behind it. `block` is the last that came here.
template <class T>
struct StaticShared {
    T data;
    unsigned char behind[64];
    uint64_t block;
};
void poison_once(void* p, size_t bytes, void* behind, size_t bytes_behind, uint64_t& block);
// For the first thread of a block that comes here.
template <class T>
T& poisoned_once(StaticShared<T>& shared) {
    poison_once(&shared.data, sizeof shared.data, shared.behind, sizeof shared.behind, shared.block);
    return shared.data;
}
void poison_scratch(void* p, size_t bytes, size_t behind);
void check_launch(dim3 grid, dim3 block, size_t smem, size_t most_smem);

// cp.async: the destination is poisoned at the issue and filled at the wait, so both a read before the wait
// and a copy issued while somebody still reads the old tile are visible. `bytes` below 16: the rest is zeros.
struct CopyQueue {
    struct Copy {
        void* dst;
        const void* src;
        size_t bytes;
    };
    std::vector<Copy> open;
    std::vector<std::vector<Copy>> groups;
    void commit() {
        groups.push_back(std::move(open));
        open.clear();
    }
    void wait(size_t pending);
};
CopyQueue& copy_queue();
// Whether the calling thread has waited for the kernels before its own.
bool& waited_for_kernels();
// Fails if not: it is about to touch memory by a pack or a copy (what single elements touch the emulation does not see).
inline void check_waited(const char* file, int line) {
    if (!waited_for_kernels())
        fail("a pack or a copy before the thread has waited for the kernels before", file, line);
}
// What cp.async wrote is for wgmma to read only after a fence of the thread that copied it.
void fence_copies();
bool fenced(size_t shared_offset);

// wgmma: a warp's part of one instruction, from the issue to the wait that covers it (cpu_wgmma.h).
struct Product {
    int n;  // columns of D
    bool a_mn_major, b_mn_major, accumulate;
    uint64_t a_descriptor, b_descriptor;
    const uint32_t* a[32];           // of every lane; nullptr: by descriptor
    float* d[32];                    // of every lane, n / 2 each
    std::vector<float> before;       // what d held; empty while an earlier product is to write the same d
    std::vector<uint16_t> operands;  // A and B as they were at the issue
    const char* file;
    int line;
};
struct ProductQueue {
    bool fenced = false;
    std::vector<Product> open;
    std::vector<std::vector<Product>> groups;
};
ProductQueue& product_queue();  // of the calling thread's warp

// Host memory that a device may read at any time, and the copies from it that have not happened yet.
struct Pinned {
    char* begin;
    size_t bytes;
};
inline std::vector<Pinned>& pinned() {
    static std::vector<Pinned> blocks;
    return blocks;
}
inline std::vector<CopyQueue::Copy>& pending() {
    static std::vector<CopyQueue::Copy> copies;
    return copies;
}
void finish_pending();
// How often the host has waited for the stream.
inline int64_t& waits() {
    static int64_t n = 0;
    return n;
}

// Where launches go instead of being run, while a graph is recorded (graph.h).
inline std::vector<std::function<void()>>*& recording() {
    static thread_local std::vector<std::function<void()>>* list = nullptr;
    return list;
}
template <class F>
void run_or_record(F f) {
    if (recording()) return recording()->push_back(f);
    finish_pending();
    f();
}
inline void refuse_recording(const char* what) {
    if (!recording()) return;
    fprintf(stderr, "cpu_device: %s while a graph is recorded\n", what);
    abort();
}

template <class Args, class F>
void warp_collective(uint32_t mask, Args& mine, F, const char* op, const char* file, int line) {
    collective(
        Scope::Warp, mask, &mine,
        [](void** a, uint32_t m) {
            F()
            (reinterpret_cast<Args**>(a), m);
        },
        op, file, line);
}
}  // namespace cpu_device

// ---- barriers, shuffles, votes
#define SRC const char *file = __builtin_FILE(), int line = __builtin_LINE()

inline void __syncthreads(SRC) {
    cpu_device::collective(cpu_device::Scope::Block, 0, nullptr, nullptr, "__syncthreads", file, line);
}
inline void __syncwarp(uint32_t mask = ~0u, SRC) {
    cpu_device::collective(cpu_device::Scope::Warp, mask, nullptr, nullptr, "__syncwarp", file, line);
}

namespace cpu_device {
template <class T>
struct ShuffleArgs {
    T in, out;
    int src;
};
template <class T>
struct ShuffleOp {
    void operator()(ShuffleArgs<T>** a, uint32_t mask) const {
        for (int l = 0; l < 32; l++)
            if (mask >> l & 1) a[l]->out = (mask >> a[l]->src & 1) ? a[a[l]->src]->in : a[l]->in;
    }
};
template <class T>
T shuffle(uint32_t mask, T v, int src, const char* op, const char* file, int line) {
    ShuffleArgs<T> args{v, v, src};
    warp_collective(mask, args, ShuffleOp<T>(), op, file, line);
    return args.out;
}
struct VoteArgs {
    bool in;
    uint32_t out;
};
struct VoteOp {
    void operator()(VoteArgs** a, uint32_t mask) const {
        uint32_t bits = 0;
        for (int l = 0; l < 32; l++)
            if (mask >> l & 1) bits |= uint32_t(a[l]->in) << l;
        for (int l = 0; l < 32; l++)
            if (mask >> l & 1) a[l]->out = bits;
    }
};
}  // namespace cpu_device

template <class T>
T __shfl_sync(uint32_t m, T v, int src, SRC) {
    return cpu_device::shuffle(m, v, src & 31, "__shfl_sync", file, line);
}
template <class T>
T __shfl_xor_sync(uint32_t m, T v, int x, SRC) {
    return cpu_device::shuffle(m, v, cpu_device::lane_id() ^ x, "__shfl_xor_sync", file, line);
}
template <class T>
T __shfl_up_sync(uint32_t m, T v, unsigned d, SRC) {
    const int l = cpu_device::lane_id();
    return cpu_device::shuffle(m, v, l >= int(d) ? l - int(d) : l, "__shfl_up_sync", file, line);
}
inline uint32_t __ballot_sync(uint32_t m, int pred, SRC) {
    cpu_device::VoteArgs a{pred != 0, 0};
    cpu_device::warp_collective(m, a, cpu_device::VoteOp(), "__ballot_sync", file, line);
    return a.out;
}

inline void check_aligned(const void* p, size_t bytes, SRC) {
    cpu_device::check_waited(file, line);
    if (reinterpret_cast<uintptr_t>(p) % bytes)
        cpu_device::fail("a pack at an address that is none of its multiples", file, line);
}
// A workspace hands out `bytes` of scratch, of the `behind` bytes after them none yet: scratch starts as NaNs, and behind it is out of
// bounds to AddressSanitizer. In the order of the stream, as a kernel that did so would be.
inline void mark_scratch(void* p, size_t bytes, size_t behind) {
    if (cpu_device::recording())
        cpu_device::recording()->push_back([=] { cpu_device::poison_scratch(p, bytes, behind); });
    else
        cpu_device::poison_scratch(p, bytes, behind);
}
inline int __popc(unsigned x) { return __builtin_popcount(x); }
// Integers only: the order of additions does not matter to them.
inline unsigned atomicAdd(unsigned* p, unsigned v) { return __atomic_fetch_add(p, v, __ATOMIC_RELAXED); }

// ---- numbers
using std::max;
using std::min;
inline float rsqrtf(float x) { return 1.0f / std::sqrt(x); }
inline unsigned __float_as_uint(float f) {
    unsigned u;
    memcpy(&u, &f, 4);
    return u;
}
inline float __uint_as_float(unsigned u) {
    float f;
    memcpy(&f, &u, 4);
    return f;
}

// bf16: round to nearest even, as the hardware does.
struct bf16 {
    uint16_t bits;
    bf16() = default;
    explicit bf16(float f) {
        const uint32_t u = __float_as_uint(f);
        bits = (u & 0x7fffffff) > 0x7f800000 ? uint16_t(u >> 16 | 64)
                                             : uint16_t((u + 0x7fff + (u >> 16 & 1)) >> 16);
    }
    explicit operator float() const { return __uint_as_float(uint32_t(bits) << 16); }
};

// ---- launches
template <class F>
void launch_within(size_t most_smem, dim3 grid, dim3 block, size_t smem, F body) {
    cpu_device::check_launch(grid, block, smem, most_smem);
    cpu_device::run_or_record([=] {
        const int64_t blocks = int64_t(grid.x) * grid.y * grid.z;
        parallel_for_uneven(blocks, block.x * 4, [&](int64_t i) {
            const dim3 bid(unsigned(i % grid.x), unsigned(i / grid.x % grid.y),
                           unsigned(i / (int64_t(grid.x) * grid.y)));
            cpu_device::run_block(
                grid, block, bid, smem, [](void* c) { (*static_cast<const decltype(body)*>(c))(); },
                const_cast<void*>(static_cast<const void*>(&body)));
        });
    });
}

// launch(kernel, grid, block, dynamic shared bytes, stream, arguments...): blocks run in parallel on host
// threads.
template <class... P, class... A>
void launch(void (*kernel)(P...), dim3 grid, dim3 block, size_t smem, cudaStream_t, A... args) {
    launch_within(cpu_device::MAX_SHARED, grid, block, smem, [=] { kernel(args...); });
}
// The same, one after another, but a thread that returns without griddepcontrol_wait is reported.
template <class... P, class... A>
void launch_overlapped(void (*kernel)(P...), dim3 grid, dim3 block, size_t smem, cudaStream_t, A... args) {
    launch_within(cpu_device::MAX_SHARED, grid, block, smem, [=] {
        cpu_device::waited_for_kernels() = false;
        kernel(args...);
        if (!cpu_device::waited_for_kernels())
            cpu_device::fail("a thread returned without waiting for the kernels before", __FILE__, __LINE__);
    });
}
// The same of a kernel for compute capability 9.0 alone.
template <class... P, class... A>
void launch_on_hopper(void (*kernel)(P...), dim3 grid, dim3 block, size_t smem, cudaStream_t, A... args) {
    launch_within(cpu_device::MAX_SHARED_HOPPER, grid, block, smem, [=] { kernel(args...); });
}

// ---- the runtime
using cudaError_t = int;
constexpr cudaError_t cudaSuccess = 0, cudaErrorMemoryAllocation = 2;
enum cudaMemcpyKind { cudaMemcpyHostToDevice, cudaMemcpyDeviceToHost, cudaMemcpyDeviceToDevice };
inline const char* cudaGetErrorString(cudaError_t e) {
    return e == cudaSuccess ? "no error" : "out of memory";
}
inline cudaError_t cudaGetLastError() { return cudaSuccess; }
inline cudaError_t cudaSetDevice(int) { return cudaSuccess; }
inline cudaError_t cudaGetDevice(int* device) {
    *device = 0;
    return cudaSuccess;
}
enum cudaDeviceAttr {
    cudaDevAttrComputeCapabilityMajor,
    cudaDevAttrComputeCapabilityMinor,
    cudaDevAttrMultiProcessorCount
};
constexpr int EMULATED_PROCESSORS = 4;
inline cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int) {
    *value = attribute == cudaDevAttrMultiProcessorCount      ? EMULATED_PROCESSORS
             : attribute == cudaDevAttrComputeCapabilityMajor ? 9
                                                              : 0;
    return cudaSuccess;
}
// A block of its own for every allocation: AddressSanitizer sees what runs over its end.
inline cudaError_t cudaMalloc(void** p, size_t bytes) {
    cpu_device::refuse_recording("cudaMalloc");
    return posix_memalign(p, 256, bytes ? bytes : 1) ? cudaErrorMemoryAllocation : cudaSuccess;
}
inline cudaError_t cudaFree(void* p) {
    cpu_device::refuse_recording("cudaFree");
    cpu_device::finish_pending();
    free(p);
    return cudaSuccess;
}
inline cudaError_t cudaMallocHost(void** p, size_t bytes) {
    *p = malloc(bytes);
    cpu_device::pinned().push_back({static_cast<char*>(*p), bytes});
    return *p ? cudaSuccess : cudaErrorMemoryAllocation;
}
inline cudaError_t cudaFreeHost(void* p) {
    cpu_device::finish_pending();
    std::erase_if(cpu_device::pinned(), [p](const cpu_device::Pinned& block) { return block.begin == p; });
    free(p);
    return cudaSuccess;
}
inline cudaError_t cudaMemGetInfo(size_t* free_bytes, size_t* total) {
    *free_bytes = *total = 0;
    return cudaSuccess;
}
// No device to choose: who wants the emulation makes it, nobody gets it by accident.
inline cudaError_t cudaGetDeviceCount(int* n) {
    *n = 0;
    return cudaSuccess;
}
struct cudaDeviceProp {
    char name[256];
    int multiProcessorCount;
};
inline cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int) {
    strcpy(properties->name, "CUDA emulated on the CPU");
    properties->multiProcessorCount = EMULATED_PROCESSORS;
    return cudaSuccess;
}
inline cudaError_t cudaMemcpyAsync(void* dst, const void* src, size_t bytes, cudaMemcpyKind, cudaStream_t) {
    cpu_device::refuse_recording("a copy");
    for (const cpu_device::Pinned& block : cpu_device::pinned())
        if (src >= block.begin && src < block.begin + block.bytes) {
            cpu_device::pending().push_back({dst, src, bytes});
            return cudaSuccess;
        }
    cpu_device::finish_pending();
    memcpy(dst, src, bytes);
    return cudaSuccess;
}
inline cudaError_t cudaMemsetAsync(void* dst, int value, size_t bytes, cudaStream_t) {
    cpu_device::run_or_record([=] { memset(dst, value, bytes); });
    return cudaSuccess;
}
inline cudaError_t cudaMemset2DAsync(void* dst, size_t pitch, int value, size_t width, size_t height,
                                     cudaStream_t) {
    cpu_device::run_or_record([=] {
        for (size_t r = 0; r < height; r++) memset(static_cast<char*>(dst) + r * pitch, value, width);
    });
    return cudaSuccess;
}
inline cudaError_t cudaStreamCreate(cudaStream_t* s) {
    *s = nullptr;
    return cudaSuccess;
}
inline cudaError_t cudaStreamDestroy(cudaStream_t) { return cudaSuccess; }
inline cudaError_t cudaStreamSynchronize(cudaStream_t) {
    cpu_device::refuse_recording("a wait for the stream");
    cpu_device::waits()++;
    cpu_device::finish_pending();
    return cudaSuccess;
}
struct CpuDeviceEvent {
    std::chrono::steady_clock::time_point at;
};
using cudaEvent_t = CpuDeviceEvent*;
inline cudaError_t cudaEventCreate(cudaEvent_t* e) {
    *e = new CpuDeviceEvent;
    return cudaSuccess;
}
inline cudaError_t cudaEventDestroy(cudaEvent_t e) {
    delete e;
    return cudaSuccess;
}
inline cudaError_t cudaEventRecord(cudaEvent_t e, cudaStream_t = nullptr) {
    e->at = std::chrono::steady_clock::now();
    return cudaSuccess;
}
inline cudaError_t cudaEventSynchronize(cudaEvent_t) { return cudaSuccess; }
inline cudaError_t cudaEventElapsedTime(float* ms, cudaEvent_t from, cudaEvent_t to) {
    *ms = std::chrono::duration<float, std::milli>(to->at - from->at).count();
    return cudaSuccess;
}
