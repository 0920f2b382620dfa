// ptx.h -- every inline-PTX instruction we use, one function each; those of Hopper's warpgroups are in wgmma.h.
// The host version next to each one is not only a test double: it is the readable statement of the register layout.
#pragma once
#include "kernels/device/device.h"

#ifdef __CUDACC__
#define PTX_SRC
#define PTX_SRC_FIRST
#define PTX_PASS
#define PTX_AT
#else
#define PTX_SRC , const char *file = __builtin_FILE(), int line = __builtin_LINE()
#define PTX_SRC_FIRST const char *file = __builtin_FILE(), int line = __builtin_LINE()
#define PTX_PASS , file, line
#define PTX_AT file, line
#endif

// D(16,8) += A(16,16) @ B(16,8): A row-major, B column-major, both bf16; D fp32.
// Lane l holds, with g = l/4 and t = l%4:
//   A: a[0] = A[g][2t..],  a[1] = A[g+8][2t..],  a[2] = A[g][2t+8..],  a[3] = A[g+8][2t+8..]   (pairs)
//   B: b[0] = B[2t..][g],  b[1] = B[2t+8..][g]                                                (pairs)
//   D: d[0] = D[g][2t], d[1] = D[g][2t+1], d[2] = D[g+8][2t], d[3] = D[g+8][2t+1]
__device__ inline void mma_m16n8k16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2] PTX_SRC) {
#ifdef __CUDACC__
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
        "{%0,%1,%2,%3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#else
    struct Args {
        float* d;
        const uint32_t *a, *b;
    } mine{d, a, b};
    struct Op {
        static float lo(uint32_t u) { return __uint_as_float(u << 16); }
        static float hi(uint32_t u) { return __uint_as_float(u & 0xffff0000u); }
        void operator()(Args** lanes, uint32_t) const {
            float A[16][16], B[16][8], D[16][8] = {};
            for (int l = 0; l < 32; l++) {
                const int g = l / 4, t = l % 4;
                for (int r = 0; r < 4; r++) {
                    A[g + r % 2 * 8][2 * t + r / 2 * 8] = lo(lanes[l]->a[r]);
                    A[g + r % 2 * 8][2 * t + r / 2 * 8 + 1] = hi(lanes[l]->a[r]);
                }
                for (int r = 0; r < 2; r++) {
                    B[2 * t + r * 8][g] = lo(lanes[l]->b[r]);
                    B[2 * t + r * 8 + 1][g] = hi(lanes[l]->b[r]);
                }
            }
            for (int i = 0; i < 16; i++)
                for (int k = 0; k < 16; k++)
                    for (int j = 0; j < 8; j++) D[i][j] += A[i][k] * B[k][j];
            for (int l = 0; l < 32; l++)
                for (int r = 0; r < 4; r++) lanes[l]->d[r] += D[l / 4 + r / 2 * 8][l % 4 * 2 + r % 2];
        }
    };
    cpu_device::warp_collective(FULL_WARP, mine, Op(), "mma.m16n8k16", PTX_AT);
#endif
}

// Four 8x8 bf16 matrices from shared memory. Lane l supplies the address of row l%8 of matrix l/8; it receives in r[m] the
// pair at row l/4, columns 2*(l%4).. of matrix m, or of its transpose.
constexpr bool TRANSPOSED = true;
template <bool TRANS = false>
__device__ inline void ldmatrix_x4(uint32_t (&r)[4], const void* row PTX_SRC) {
#ifdef __CUDACC__
    const uint32_t address = static_cast<uint32_t>(__cvta_generic_to_shared(row));
    if constexpr (TRANS)
        asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
                     : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                     : "r"(address)
                     : "memory");
    else
        asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                     : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                     : "r"(address)
                     : "memory");
#else
    if (reinterpret_cast<uintptr_t>(row) % 16)
        cpu_device::fail("ldmatrix: address not 16-byte aligned", PTX_AT);
    struct Args {
        uint32_t* r;
        const void* row;
    } mine{r, row};
    struct Op {
        void operator()(Args** lanes, uint32_t) const {
            for (int l = 0; l < 32; l++)
                for (int m = 0; m < 4; m++) {
                    uint16_t pair[2];
                    for (int i = 0; i < 2; i++) {
                        const int at_row = TRANS ? l % 4 * 2 + i : l / 4,
                                  at_col = TRANS ? l / 4 : l % 4 * 2 + i;
                        memcpy(&pair[i], static_cast<const uint16_t*>(lanes[m * 8 + at_row]->row) + at_col,
                               2);
                    }
                    lanes[l]->r[m] = uint32_t(pair[0]) | uint32_t(pair[1]) << 16;
                }
        }
    };
    cpu_device::warp_collective(FULL_WARP, mine, Op(), TRANS ? "ldmatrix.x4.trans" : "ldmatrix.x4", PTX_AT);
#endif
}

// Copies 16 bytes global -> shared without going through registers; complete after the matching wait. With valid = false
// nothing is read (`global` need only be an aligned address inside an allocation) and the 16 bytes become zeros.
//   REUSED        through the first-level cache: other blocks of the multiprocessor read the same
//   WHOLE_LINES   brings the whole line of 128 bytes to the second-level cache: the rest of it is read soon, in pieces
enum CopyHint { NO_HINT, REUSED, WHOLE_LINES };
template <CopyHint HINT = NO_HINT>
__device__ inline void cp_async_16(void* smem, const void* global, bool valid PTX_SRC) {
#ifdef __CUDACC__
    const uint32_t address = static_cast<uint32_t>(__cvta_generic_to_shared(smem));
    if constexpr (HINT == REUSED)
        asm volatile("cp.async.ca.shared.global [%0], [%1], 16, %2;" ::"r"(address), "l"(global),
                     "r"(valid ? 16 : 0)
                     : "memory");
    else if constexpr (HINT == WHOLE_LINES)
        asm volatile("cp.async.cg.shared.global.L2::128B [%0], [%1], 16, %2;" ::"r"(address), "l"(global),
                     "r"(valid ? 16 : 0)
                     : "memory");
    else
        asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(address), "l"(global),
                     "r"(valid ? 16 : 0)
                     : "memory");
#else
    if ((reinterpret_cast<uintptr_t>(smem) | reinterpret_cast<uintptr_t>(global)) % 16)
        cpu_device::fail("cp.async: address not 16-byte aligned", PTX_AT);
    cpu_device::check_waited(PTX_AT);
    cpu_device::poison(smem, 16);
    cpu_device::copy_queue().open.push_back({smem, global, valid ? size_t(16) : 0});
#endif
}
__device__ inline void cp_async_commit() {
#ifdef __CUDACC__
    asm volatile("cp.async.commit_group;" ::: "memory");
#else
    cpu_device::copy_queue().commit();
#endif
}
// Waits until at most PENDING of this thread's groups are under way. What other threads copied is visible only after a
// barrier.
template <int PENDING>
__device__ inline void cp_async_wait() {
#ifdef __CUDACC__
    asm volatile("cp.async.wait_group %0;" ::"n"(PENDING) : "memory");
#else
    cpu_device::copy_queue().wait(PENDING);
#endif
}

// In a kernel launched by launch_overlapped: waits until all kernels before it have ended and what they wrote is visible.
// In any other: does nothing.
__device__ inline void griddepcontrol_wait() {
#ifndef __CUDACC__
    cpu_device::waited_for_kernels() = true;
#elif defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}
// Lets the next kernel begin, if it is launched by launch_overlapped, as soon as every block of this one has come here or
// ended: it then takes the resources that this one's blocks leave free, and waits.
__device__ inline void griddepcontrol_launch_dependents() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}

#ifndef __CUDACC__
namespace cpu_device {
// By what share of the error that an approximation may have the emulation's misses: from -3/4 to 3/4, since the result is
// rounded besides. As good as random, but always the same for an x.
inline double miss(float x) {
    uint32_t h = __float_as_uint(x) * 2654435761u;
    h = (h ^ h >> 15) * 0x2c1b3c6du;
    return 0.75 * (double(h ^ h >> 13) / 0x1p31 - 1);
}
}  // namespace cpu_device
#endif

// 2^x, to 2 units in the last place; 2^0 is 1; results below the smallest normal number are 0.
__device__ inline float exp2_approx(float x) {
#ifdef __CUDACC__
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
#else
    const float y = float(std::exp2(double(x)) * (x == 0 ? 1 : 1 + cpu_device::miss(x) * 0x1p-22));
    return y < 0x1p-126f ? 0 : y;
#endif
}

// log2 x, to within 2^-22 where |log2 x| < 1, elsewhere to that relative error; of 0: -inf.
__device__ inline float log2_approx(float x) {
#ifdef __CUDACC__
    float y;
    asm("lg2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
#else
    const double y = std::log2(double(x));
    return float(std::isfinite(y) ? y + cpu_device::miss(x) * std::max(1.0, std::abs(y)) * 0x1p-22 : y);
#endif
}

// Two fp32 as a pair of bf16, rounded to nearest even: `lo` in the lower half, where memory has it first.
__device__ inline uint32_t pack_bf16(float lo, float hi) {
#ifdef __CUDACC__
    uint32_t pair;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(hi), "f"(lo));
    return pair;
#else
    return uint32_t(bf16(lo).bits) | uint32_t(bf16(hi).bits) << 16;
#endif
}
