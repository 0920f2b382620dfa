// threads.h -- the program's threads: never more than the cores this process may use, and never waited for where they
// have not begun.
//
// A loop is cut into chunks, of which each thread owns a row; who is done with its own takes what the others have not
// begun. On a busy machine a thread gets its core milliseconds too late: the others have done its work by then. Only a
// chunk that a thread is in the middle of must be waited for, and where that takes long, because it lost its core there, the
// caller does the next loops alone, for eight times as long. Who waits spins for a fraction of a millisecond, then sleeps:
// a core that another program could use is not kept.
#pragma once
#include <cstdint>

// Physical cores this process may run on: by affinity, hyper-threads counted once, at most the container's
// CPU quota.
int available_cores();

// Sets the number of threads: n, or with n = 0 what OMP_NUM_THREADS says, else available_cores(); returns it. Not while a
// loop runs. Without a call it is as with 0.
int set_threads(int n);
int max_threads();
int thread_index();  // of the calling thread, below max_threads(); 0 outside of loops

// f(context, begin, end) over ranges of at most `chunk` items that cover [0, n), on any thread; returns when all are done.
// Inside of a loop, and beside one of another thread's, it is a plain call. f must not throw.
void run_in_threads(int64_t n, int64_t chunk, void (*f)(const void* context, int64_t begin, int64_t end),
                    const void* context);
