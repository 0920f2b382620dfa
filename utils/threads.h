// threads.h -- the program's threads: never more than the cores this process may use, and nobody waits for one that has
// not begun.
//
// A loop is cut into chunks, and each thread owns a run of them; a thread that is done with its own takes chunks that
// others have not begun. On a busy machine a thread may get its core milliseconds late: by then the others have done its
// work. Only a chunk that a thread is in the middle of must be waited for. If that takes long, because the thread lost
// its core there, the caller does the next loops alone, for eight times as long. A waiting thread spins for a fraction of
// a millisecond, then sleeps, so that it does not keep a core another program could use.
#pragma once
#include <cstdint>

// Physical cores this process may run on: by affinity, hyper-threads counted once, at most the container's CPU quota.
int available_cores();

// Sets the number of threads: n, or with n = 0 what OMP_NUM_THREADS says, else available_cores(); returns it. Not while a
// loop runs. Never called, it is as if called with 0.
int set_threads(int n);
int max_threads();
int thread_index();  // of the calling thread, below max_threads(); 0 outside of loops

// f(context, begin, end) over ranges of at most `chunk` items that cover [0, n), on any thread; returns when all are done.
// Inside a loop, or while another thread's loop runs, it is a plain call. f must not throw.
void run_in_threads(int64_t n, int64_t chunk, void (*f)(const void* context, int64_t begin, int64_t end),
                    const void* context);
