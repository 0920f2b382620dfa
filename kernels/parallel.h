// parallel.h -- loops in threads.
//
// Every loop here is split into items whose results do not depend on who computes them, so nothing depends on
// the number of threads.
#pragma once
#include <algorithm>
#include <cstdint>

#include "utils/threads.h"

// Work is counted in vector instructions, roughly. Below this much a parallel region costs more than it
// saves: waking the threads takes some microseconds.
constexpr int64_t PARALLEL_WORK = 1 << 15;

// f(i) for i in [0, n), in chunks of so many items; work: vector instructions of one item. f must not throw.
template <class F>
void parallel_chunks(int64_t n, int64_t chunk, int64_t work, const F& f) {
    const auto range = [](const void* f, int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; i++) (*static_cast<const F*>(f))(i);
    };
    if (n > 1 && n * work >= PARALLEL_WORK && max_threads() > 1)
        run_in_threads(n, chunk, range, &f);
    else
        range(&f, 0, n);
}

// Items of about equal size.
template <class F>
void parallel_for(int64_t n, int64_t work, const F& f) {
    parallel_chunks(n, std::max<int64_t>(1, n / (16 * max_threads())), work, f);
}

// The same for items of unequal size.
template <class F>
void parallel_for_uneven(int64_t n, int64_t work, const F& f) {
    parallel_chunks(n, std::max<int64_t>(1, n >> 24), work, f);
}

// f(begin, end) for ranges of at most `grain` items that cover [0, n); work: vector instructions of one item.
template <class F>
void parallel_ranges(int64_t n, int64_t grain, int64_t work, F&& f) {
    const int64_t ranges = (n + grain - 1) / grain;
    parallel_for(ranges, grain * work,
                 [&](int64_t r) { f(r * grain, (r + 1) * grain < n ? (r + 1) * grain : n); });
}
