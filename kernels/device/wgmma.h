// wgmma.h -- Hopper's products of a warpgroup (four warps, the first a multiple of 4): one function per PTX
// instruction, in the manner of ptx.h. Machine code for sm_90a alone has them; elsewhere they trap, and a launcher
// asks device_has_wgmma() first. How the emulation executes them: cpu_wgmma.h.
//
// D (64, N) [+]= A (64, 16) B (16, N) in bf16 with fp32 sums, asynchronous. B lies in shared memory, A there or in
// registers. The order of things:
//
//   copies or stores into shared memory (cp_async_wait<..>() for copies)
//   fence_proxy_async();              every thread that wrote: wgmma reads by another path
//   __syncthreads();                  or named_barrier_sync: all of it is there
//   warpgroup_fence(d);               the compiler keeps what it does to d, and to A in registers, before
//   wgmma_fence();                    and so does the hardware
//   wgmma(d, a, b, false); ...        as many as wanted, also into the same d
//   wgmma_commit();                   they are a group
//   wgmma_wait<0>();                  or <1> while a later group goes on
//   warpgroup_fence(d);               the compiler reads d after the wait only
//
// From the issue to the wait nobody touches d, the registers of A (arrays that outlive the wait), or the operands in
// shared memory; what overwrites these comes after a barrier that follows the wait.
#pragma once
#include "kernels/device/ptx.h"
#ifndef __CUDACC__
#include "kernels/device/cpu_wgmma.h"
#endif

#ifdef __CUDACC__
// As DYNAMIC_SHARED, for tiles: it starts at a multiple of 1024 bytes.
#define DYNAMIC_SHARED_TILES(T, name)                                        \
    extern __shared__ __align__(1024) unsigned char dynamic_shared_tiles_[]; \
    T* name = reinterpret_cast<T*>(dynamic_shared_tiles_)
#else
#define DYNAMIC_SHARED_TILES(T, name) DYNAMIC_SHARED(T, name)
#endif

// Whether the current device, and this program's code for it, have wgmma. True in the emulation.
inline bool device_has_wgmma() { return runs_code_for_hopper(); }

// Of the current device.
inline int multiprocessors() {
    int device = 0, n = 0;
    CUDA_CHECK(cudaGetDevice(&device));
    CUDA_CHECK(cudaDeviceGetAttribute(&n, cudaDevAttrMultiProcessorCount, device));
    return n;
}

// ---- tiles and their descriptors ----

// A tile is (ROWS, HD) bf16, HD a multiple of 64, at a multiple of 1024 bytes: HD / 64 panels of (ROWS, 64), whose
// rows of 128 bytes have their eight 16-byte chunks swizzled, chunk ^= row % 8. Element offset of (row, col).
template <int ROWS>
__host__ __device__ constexpr int tile_offset(int row, int col) {
    static_assert(ROWS % 8 == 0, "a panel is whole patterns of 8 rows");
    return (col / 64 * ROWS + row) * 64 + (col % 64 / 8 ^ row % 8) * 8 + col % 8;
}

// How an operand lies in its tile: the contraction runs along the tile's columns (K), or along its rows (MN).
enum class Major { K, MN };

// What describes an operand to wgmma, equal in all threads of the warpgroup: in units of 16 bytes the address in
// bits 0-13, the leading offset in 16-29, the stride offset in 32-45; base offset 0 in 49-51; swizzle of 128 bytes,
// 1, in 62-63. Offsets in bytes.
__device__ inline uint64_t wgmma_descriptor(const void* start, int leading, int stride PTX_SRC) {
#ifdef __CUDACC__
    const uint32_t address = static_cast<uint32_t>(__cvta_generic_to_shared(start));
#else
    const size_t address = cpu_device::shared_offset(start, PTX_AT);
    if (address % 16) cpu_device::fail("wgmma: an operand that is not 16-byte aligned", PTX_AT);
#endif
    return uint64_t(address >> 4 & 0x3fff) | uint64_t(leading >> 4) << 16 | uint64_t(stride >> 4) << 32 |
           uint64_t(1) << 62;
}
// K-major: the tile's rows from row0 (a multiple of 8), 64 for A and N for B; its columns k0..k0+15 (k0 a multiple
// of 16). The next 8 rows are 1024 bytes on; the leading offset is not used.
template <int ROWS>
__device__ inline uint64_t k_major_descriptor(const bf16* tile, int row0, int k0 PTX_SRC) {
    return wgmma_descriptor(tile + (k0 / 64 * ROWS + row0) * 64 + k0 % 64, 16, 1024 PTX_PASS);
}
// MN-major: the tile's rows k0..k0+15 (k0 a multiple of 8) are the contraction, its columns from col0 (a multiple of 64)
// the 64 or N of the operand; N = 128 takes two panels. The next 8 rows are 1024 bytes on, the next 64 columns a panel.
template <int ROWS>
__device__ inline uint64_t mn_major_descriptor(const bf16* tile, int k0, int col0 PTX_SRC) {
    return wgmma_descriptor(tile + (col0 / 64 * ROWS + k0) * 64, ROWS * 128, 1024 PTX_PASS);
}
// The descriptor of what lies `bytes` (a multiple of 16) further on, in one addition: shared memory ends before the
// address's 14 bits do.
__device__ inline uint64_t further(uint64_t descriptor, int bytes) {
    return (descriptor >> 32 << 32) | (uint32_t(descriptor) + uint32_t(bytes >> 4));
}

// ---- order ----

// Shared memory that this thread wrote, by stores or by cp.async it has waited for, is for wgmma to read after the
// next barrier.
__device__ inline void fence_proxy_async() {
#ifndef __CUDACC__
    cpu_device::fence_copies();
#elif defined(__CUDA_ARCH_FEAT_SM90_ALL)
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
#else
    __trap();
#endif
}

// __syncthreads of `threads` threads (whole warps), all of which name the same of the barriers 1..15.
__device__ inline void named_barrier_sync(int id, int threads PTX_SRC) {
#ifdef __CUDACC__
    asm volatile("bar.sync %0, %1;" ::"r"(id), "r"(threads) : "memory");
#else
    cpu_device::named_barrier(id, threads, PTX_AT);
#endif
}

// Comes to the barrier without waiting there: what this thread did before is visible to those of the `threads` that wait.
__device__ inline void named_barrier_arrive(int id, int threads PTX_SRC) {
#ifdef __CUDACC__
    asm volatile("bar.arrive %0, %1;" ::"r"(id), "r"(threads) : "memory");
#else
    cpu_device::named_barrier_arrive(id, threads, PTX_AT);
#endif
}

// Keeps the compiler from moving what computes or reads these registers across the place.
template <int NT>
__device__ inline void warpgroup_fence([[maybe_unused]] float (&d)[NT][4]) {
#ifdef __CUDACC__
#pragma unroll
    for (int j = 0; j < NT; j++)
#pragma unroll
        for (int r = 0; r < 4; r++) asm volatile("" : "+f"(d[j][r])::"memory");
#endif
}
// The same, where the next product overwrites d: what it held is no input of the products, so that the compiler
// can tell who defines it.
template <int NT>
__device__ inline void warpgroup_forget([[maybe_unused]] float (&d)[NT][4]) {
#ifdef __CUDACC__
#pragma unroll
    for (int j = 0; j < NT; j++)
#pragma unroll
        for (int r = 0; r < 4; r++) asm volatile("" : "=f"(d[j][r])::"memory");
#endif
}
template <int K16>
__device__ inline void warpgroup_fence([[maybe_unused]] uint32_t (&a)[K16][4]) {
#ifdef __CUDACC__
#pragma unroll
    for (int k = 0; k < K16; k++)
#pragma unroll
        for (int r = 0; r < 4; r++) asm volatile("" : "+r"(a[k][r])::"memory");
#endif
}

#ifndef __CUDACC__
namespace cpu_device {
enum class ProductStep { Fence, Commit, Wait };
struct ProductStepArgs {
    ProductStep step;
    int pending;
};
struct ProductStepOp {
    void operator()(ProductStepArgs** lanes, uint32_t) const {
        ProductQueue& q = product_queue();
        if (lanes[0]->step == ProductStep::Fence) q.fenced = true;
        if (lanes[0]->step == ProductStep::Wait) wait(q, size_t(lanes[0]->pending));
        if (lanes[0]->step != ProductStep::Commit) return;
        q.groups.push_back(std::move(q.open));
        q.open.clear();
        q.fenced = false;
    }
};
inline void product_step(ProductStep step, int pending, const char* op, const char* file, int line) {
    ProductStepArgs mine{step, pending};
    warp_collective(FULL_WARP, mine, ProductStepOp(), op, file, line);
}
}  // namespace cpu_device
#endif

// Before the first wgmma of a group: accumulators, and A in registers, are as computed.
__device__ inline void wgmma_fence(PTX_SRC_FIRST) {
#ifndef __CUDACC__
    cpu_device::product_step(cpu_device::ProductStep::Fence, 0, "wgmma.fence", PTX_AT);
#elif defined(__CUDA_ARCH_FEAT_SM90_ALL)
    asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
#else
    __trap();
#endif
}
__device__ inline void wgmma_commit(PTX_SRC_FIRST) {
#ifndef __CUDACC__
    cpu_device::product_step(cpu_device::ProductStep::Commit, 0, "wgmma.commit_group", PTX_AT);
#elif defined(__CUDA_ARCH_FEAT_SM90_ALL)
    asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
#else
    __trap();
#endif
}
// Until at most PENDING of the warp's groups are under way.
template <int PENDING>
__device__ inline void wgmma_wait(PTX_SRC_FIRST) {
#ifndef __CUDACC__
    cpu_device::product_step(cpu_device::ProductStep::Wait, PENDING, "wgmma.wait_group", PTX_AT);
#elif defined(__CUDA_ARCH_FEAT_SM90_ALL)
    asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(PENDING) : "memory");
#else
    __trap();
#endif
}

// ---- products ----

#ifndef __CUDACC__
namespace cpu_device {
struct ProductOp {
    void operator()(Product** lanes, uint32_t) const {
        Product whole = *lanes[0];
        for (int l = 0; l < 32; l++) whole.a[l] = lanes[l]->a[0], whole.d[l] = lanes[l]->d[0];
        issue(product_queue(), std::move(whole));
    }
};
// The calling thread's part, in which it is lane 0.
inline void product(Product mine, const char* file, int line) {
    check_descriptor(mine.b_descriptor, mine.b_mn_major, file, line);
    if (!mine.a[0]) check_descriptor(mine.a_descriptor, mine.a_mn_major, file, line);
    const uint64_t common[4] = {mine.a_descriptor, mine.b_descriptor, uint64_t(mine.accumulate),
                                uint64_t(mine.n)};
    warpgroup_agree(common, "wgmma.mma_async", file, line);
    warp_collective(FULL_WARP, mine, ProductOp(), "wgmma.mma_async", file, line);
}
}  // namespace cpu_device
#else
#define ACCUMULATORS_4(d, j) "+f"(d[j][0]), "+f"(d[j][1]), "+f"(d[j][2]), "+f"(d[j][3])
#define ACCUMULATORS_32(d, j)                                                                           \
    ACCUMULATORS_4(d, j), ACCUMULATORS_4(d, j + 1), ACCUMULATORS_4(d, j + 2), ACCUMULATORS_4(d, j + 3), \
        ACCUMULATORS_4(d, j + 4), ACCUMULATORS_4(d, j + 5), ACCUMULATORS_4(d, j + 6),                   \
        ACCUMULATORS_4(d, j + 7)
#endif

// D (64, N) = A (64, 16) B (16, N), or with `accumulate` +=; N = 8 NT is 64 or 128. Warp w of the warpgroup has rows
// 16 w..16 w + 15, in the layout of mma_m16n8k16: d[j] are the columns 8 j..8 j + 7, with g = lane / 4, t = lane % 4
//   d[j][0] = D[16 w + g][8 j + 2 t], d[j][1] = the next, d[j][2] = D[16 w + g + 8][8 j + 2 t], d[j][3] = the next.
// A and B by descriptor.
template <Major A = Major::K, Major B = Major::K, int NT>
__device__ inline void wgmma(float (&d)[NT][4], uint64_t a, uint64_t b, bool accumulate PTX_SRC) {
    static_assert(NT == 8 || NT == 16, "N is 64 or 128");
#ifndef __CUDACC__
    cpu_device::product({.n = 8 * NT,
                         .a_mn_major = A == Major::MN,
                         .b_mn_major = B == Major::MN,
                         .accumulate = accumulate,
                         .a_descriptor = a,
                         .b_descriptor = b,
                         .a = {},
                         .d = {&d[0][0]},
                         .before = {},
                         .operands = {},
                         .file = file,
                         .line = line},
                        PTX_AT);
#elif defined(__CUDA_ARCH_FEAT_SM90_ALL)
    if constexpr (NT == 8)
        asm volatile(
            "{\n.reg .pred p;\n"
            "setp.ne.b32 p, %34, 0;\n"
            "wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 {"
            "%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,"
            "%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,%26,%27,%28,%29,%30,%31"
            "}, %32, %33, p, 1, 1, %35, %36;\n}\n"
            : ACCUMULATORS_32(d, 0)
            : "l"(a), "l"(b), "r"(int(accumulate)), "n"(A == Major::MN), "n"(B == Major::MN));
    else
        asm volatile(
            "{\n.reg .pred p;\n"
            "setp.ne.b32 p, %66, 0;\n"
            "wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 {"
            "%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,"
            "%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,%26,%27,%28,%29,%30,%31,"
            "%32,%33,%34,%35,%36,%37,%38,%39,%40,%41,%42,%43,%44,%45,%46,%47,"
            "%48,%49,%50,%51,%52,%53,%54,%55,%56,%57,%58,%59,%60,%61,%62,%63"
            "}, %64, %65, p, 1, 1, %67, %68;\n}\n"
            : ACCUMULATORS_32(d, 0), ACCUMULATORS_32(d, 8)
            : "l"(a), "l"(b), "r"(int(accumulate)), "n"(A == Major::MN), "n"(B == Major::MN));
#else
    __trap();
#endif
}
// A from registers, as mma_m16n8k16 has it: a[0] = A[16 w + g][2 t..], a[1] = A[16 w + g + 8][2 t..],
// a[2] = A[16 w + g][2 t + 8..], a[3] = A[16 w + g + 8][2 t + 8..] (pairs).
template <Major B = Major::K, int NT>
__device__ inline void wgmma(float (&d)[NT][4], const uint32_t (&a)[4], uint64_t b, bool accumulate PTX_SRC) {
    static_assert(NT == 8 || NT == 16, "N is 64 or 128");
#ifndef __CUDACC__
    cpu_device::product({.n = 8 * NT,
                         .a_mn_major = false,
                         .b_mn_major = B == Major::MN,
                         .accumulate = accumulate,
                         .a_descriptor = 0,
                         .b_descriptor = b,
                         .a = {a},
                         .d = {&d[0][0]},
                         .before = {},
                         .operands = {},
                         .file = file,
                         .line = line},
                        PTX_AT);
#elif defined(__CUDA_ARCH_FEAT_SM90_ALL)
    if constexpr (NT == 8)
        asm volatile(
            "{\n.reg .pred p;\n"
            "setp.ne.b32 p, %37, 0;\n"
            "wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 {"
            "%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,"
            "%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,%26,%27,%28,%29,%30,%31"
            "}, {%32,%33,%34,%35}, %36, p, 1, 1, %38;\n}\n"
            : ACCUMULATORS_32(d, 0)
            : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(int(accumulate)), "n"(B == Major::MN));
    else
        asm volatile(
            "{\n.reg .pred p;\n"
            "setp.ne.b32 p, %69, 0;\n"
            "wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 {"
            "%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,"
            "%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,%26,%27,%28,%29,%30,%31,"
            "%32,%33,%34,%35,%36,%37,%38,%39,%40,%41,%42,%43,%44,%45,%46,%47,"
            "%48,%49,%50,%51,%52,%53,%54,%55,%56,%57,%58,%59,%60,%61,%62,%63"
            "}, {%64,%65,%66,%67}, %68, p, 1, 1, %70;\n}\n"
            : ACCUMULATORS_32(d, 0), ACCUMULATORS_32(d, 8)
            : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(int(accumulate)), "n"(B == Major::MN));
#else
    __trap();
#endif
}
#undef ACCUMULATORS_4
#undef ACCUMULATORS_32
