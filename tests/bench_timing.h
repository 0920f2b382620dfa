// bench_timing.h -- what the CPU benchmarks share: clocks, random tensors, and the machine's measured limits.
//
// Every figure is the fastest of several calls: on a machine that others use too, the fastest says most about
// the code.
#pragma once
#include <algorithm>
#include <ctime>
#include <functional>
#include <memory>
#include <vector>

#include "kernels/ops.h"
#include "kernels/parallel.h"
#include "utils/arena.h"
#include "utils/philox.h"
#if OPENBLAS
#include <cblas.h>
#endif

struct Buffers {
    Arena arena{"bench", host_memory()};
    std::vector<std::unique_ptr<Tensor>> tensors;
    Tensor* add(int64_t rows, int64_t cols, DType dtype = DType::F32) {
        tensors.push_back(std::make_unique<Tensor>());
        arena.add(tensors.back().get(), "t", rows, cols, dtype);
        return tensors.back().get();
    }
    // Uniform in [-0.5, 0.5): a run of 2^16 numbers, repeated.
    void fill() {
        arena.allocate();
        Rng rng(1, Stream::Noise);
        std::vector<float> run(1 << 16);
        for (float& x : run) x = rng.uniform() - 0.5f;
        for (auto& t : tensors)
            for (int64_t i = 0; i < t->size(); i++) {
                const float x = run[size_t(i & 0xffff)];
                if (t->dtype == DType::F32) t->as<float>()[i] = x;
                if (t->dtype == DType::BF16) t->as<Bf16>()[i] = to_bf16(x);
            }
    }
};

// With one thread, processor time: what the call would take on a machine of its own.
inline double now() {
    timespec t;
    clock_gettime(max_threads() == 1 ? CLOCK_THREAD_CPUTIME_ID : CLOCK_MONOTONIC, &t);
    return double(t.tv_sec) + 1e-9 * double(t.tv_nsec);
}

// Seconds of one call: the fastest of up to 20, of as many as fit in `budget` seconds, but one.
inline double fastest(const std::function<void()>& call, double budget = 0.1) {
    double best = 1e9, total = 0;
    for (int i = 0; i < 20 && total < budget; i++) {
        const double begin = now();
        call();
        const double seconds = now() - begin;
        if (i > 0 || seconds > budget) best = std::min(best, seconds);
        total += seconds;
    }
    return best < 1e9 ? best : total;
}

// OpenBLAS's out (M, N) = a b, with its operands' transposition; 0 where it is not linked.
#if OPENBLAS
inline double sgemm(bool transpose_a, bool transpose_b, int M, int N, int K, const float* a, const float* b,
                    float beta, float* out) {
    return fastest([&] {
        cblas_sgemm(CblasRowMajor, transpose_a ? CblasTrans : CblasNoTrans,
                    transpose_b ? CblasTrans : CblasNoTrans, M, N, K, 1, a, transpose_a ? M : K, b,
                    transpose_b ? K : N, beta, out, N);
    });
}
#else
inline double sgemm(bool, bool, int, int, int, const float*, const float*, float, float*) { return 0; }
#endif

// What this machine can do with the threads it is given.
struct MachineLimits {
    double flops = 0;      // per second: the better of OpenBLAS and our own at 1024 x 1024 x 1024, fp32
    double bandwidth = 0;  // bytes per second read from memory
};

inline MachineLimits measure_limits(Ops& ops) {
    MachineLimits limits;
    constexpr int N = 1024;
    Buffers b;
    Tensor *x = b.add(N, N), *w = b.add(N, N), *out = b.add(N, N);
    constexpr int64_t ROWS = 1024, COLS = 66000;  // 258 MiB: more than any cache; no power of two
    Tensor* large = b.add(ROWS, COLS);
    b.fill();
    double best = fastest([&] { ops.linear_forward(*out, *x, *w); }, 0.5);
    if (const double peer = sgemm(false, true, N, N, N, x->as<float>(), w->as<float>(), 0, out->as<float>()))
        best = std::min(best, peer);
    limits.flops = 2.0 * N * N * N / best;
    std::vector<int> sums(ROWS);
    double read = 1e9;
    for (const int64_t streams :
         {1, 16})  // a thread reads so many rows at once: which is faster, machines differ
        read = std::min(read, fastest(
                                  [&] {
                                      parallel_for(ROWS / streams, streams * COLS / 16, [&](int64_t r) {
                                          const int* p =
                                              reinterpret_cast<const int*>(large->row<float>(r * streams));
                                          unsigned sum = 0;  // of one number of every cache line
                                          for (int64_t i = 0; i < COLS; i += 16)
                                              for (int64_t s = 0; s < streams; s++)
                                                  sum += unsigned(p[s * COLS + i]);
                                          sums[size_t(r)] = int(sum);
                                      });
                                  },
                                  0.5));
    limits.bandwidth = double(large->bytes()) / read;
    return limits;
}
