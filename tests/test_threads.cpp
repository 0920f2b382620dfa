#include <gtest/gtest.h>
#include <sched.h>

#include <cstdlib>
#include <thread>

#include "utils/threads.h"

TEST(Threads, CoresFollowAffinity) {
    const int all = available_cores();
    EXPECT_GE(all, 1);
    EXPECT_LE(all, int(std::thread::hardware_concurrency()));
    cpu_set_t before, one;
    ASSERT_EQ(sched_getaffinity(0, sizeof before, &before), 0);
    CPU_ZERO(&one);
    for (int cpu = 0; cpu < CPU_SETSIZE && CPU_COUNT(&one) == 0; cpu++)
        if (CPU_ISSET(cpu, &before)) CPU_SET(cpu, &one);
    ASSERT_EQ(sched_setaffinity(0, sizeof one, &one), 0);
    EXPECT_EQ(available_cores(), 1);
    sched_setaffinity(0, sizeof before, &before);
}

#ifdef _OPENMP
TEST(Threads, TheNumberAskedForRuns) {
    const auto running = [] {
        int n = 0;
#pragma omp parallel reduction(+ : n)
        n++;
        return n;
    };
    unsetenv("OMP_NUM_THREADS");
    EXPECT_EQ(set_threads(3), 3);
    EXPECT_EQ(running(), 3);
    setenv("OMP_NUM_THREADS", "2", 1);
    EXPECT_EQ(set_threads(0), 2);
    EXPECT_EQ(running(), 2);
    EXPECT_EQ(set_threads(1), 1);
    EXPECT_EQ(running(), 1);
    unsetenv("OMP_NUM_THREADS");
    EXPECT_EQ(set_threads(0), available_cores());
}
#endif
