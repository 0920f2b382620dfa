// threads.h -- how many OpenMP threads there are: never more than the cores this process may use.
#pragma once

// Physical cores this process may run on: by affinity, hyper-threads counted once, at most the container's
// CPU quota.
int available_cores();

// Sets OpenMP's number of threads: n, or with n = 0 what OMP_NUM_THREADS says, else available_cores().
// Returns it.
int set_threads(int n);
