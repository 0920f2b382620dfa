// parallel.h -- the one place that knows of OpenMP.
//
// Every loop here is split into items whose results do not depend on who computes them, so nothing depends on
// the number of threads.
#pragma once
#include <cstdint>
#ifdef _OPENMP
#include <omp.h>
#endif

// Work is counted in vector instructions, roughly. Below this much a parallel region costs more than it
// saves: waking the threads takes some microseconds, and milliseconds where other programs use the cores.
constexpr int64_t PARALLEL_WORK = 1 << 15;

inline int max_threads() {
#ifdef _OPENMP
    return omp_get_max_threads();
#else
    return 1;
#endif
}

inline int thread_index() {
#ifdef _OPENMP
    return omp_get_thread_num();
#else
    return 0;
#endif
}

// f(i) for i in [0, n); work: vector instructions of one item. f must not throw.
template <class F>
void parallel_for(int64_t n, int64_t work, F&& f) {
#ifdef _OPENMP
    const bool worth = n > 1 && n * work >= PARALLEL_WORK;
#pragma omp parallel for schedule(static) if (worth)
#else
    (void)work;
#endif
    for (int64_t i = 0; i < n; i++) f(i);
}

// The same for items of unequal size: a thread takes the next one when it is done.
template <class F>
void parallel_for_uneven(int64_t n, int64_t work, F&& f) {
#ifdef _OPENMP
    const bool worth = n > 1 && n * work >= PARALLEL_WORK;
#pragma omp parallel for schedule(dynamic) if (worth)
#else
    (void)work;
#endif
    for (int64_t i = 0; i < n; i++) f(i);
}

// f(begin, end) for ranges of at most `grain` items that cover [0, n); work: vector instructions of one item.
template <class F>
void parallel_ranges(int64_t n, int64_t grain, int64_t work, F&& f) {
    const int64_t ranges = (n + grain - 1) / grain;
    parallel_for(ranges, grain * work,
                 [&](int64_t r) { f(r * grain, (r + 1) * grain < n ? (r + 1) * grain : n); });
}
