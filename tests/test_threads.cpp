#include <gtest/gtest.h>
#include <sched.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cstdlib>
#include <ctime>
#include <mutex>
#include <set>
#include <thread>
#include <vector>

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

namespace {

// Sets the number of threads for one test.
struct Threads {
    explicit Threads(int n) { set_threads(n); }
    ~Threads() { set_threads(0); }
};

template <class F>
void loop(int64_t n, int64_t chunk, const F& f) {
    run_in_threads(
        n, chunk, [](const void* f, int64_t begin, int64_t end) { (*static_cast<const F*>(f))(begin, end); },
        &f);
}

// Whether so many threads are in a loop at once: each waits in its chunk for the others, ten seconds at most.
bool run_at_once(int n) {
    std::atomic<int> arrived{0};
    std::set<int> indices;
    std::mutex mutex;
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(10);
    loop(n, 1, [&](int64_t, int64_t) {
        {
            const std::lock_guard lock(mutex);
            indices.insert(thread_index());
        }
        arrived++;
        while (arrived < n && std::chrono::steady_clock::now() < deadline) std::this_thread::yield();
    });
    return int(indices.size()) == n && *indices.begin() == 0 && *indices.rbegin() == n - 1;
}

}  // namespace

TEST(Threads, TheNumberAskedForRuns) {
    unsetenv("OMP_NUM_THREADS");
    EXPECT_EQ(set_threads(3), 3);
    EXPECT_EQ(max_threads(), 3);
    EXPECT_TRUE(run_at_once(3));
    setenv("OMP_NUM_THREADS", "2", 1);
    EXPECT_EQ(set_threads(0), 2);
    EXPECT_TRUE(run_at_once(2));
    EXPECT_EQ(set_threads(1), 1);
    EXPECT_TRUE(run_at_once(1));
    unsetenv("OMP_NUM_THREADS");
    EXPECT_EQ(set_threads(0), available_cores());
}

TEST(Threads, EveryItemIsDoneOnce) {
    for (int threads = 1; threads <= 4; threads++) {
        const Threads now(threads);
        for (int n = 0; n < 200; n++) {  // loops that follow each other closely
            const int chunk = n % 7 + 1;
            std::vector<int> done(size_t(n), 0);
            loop(n, chunk, [&](int64_t begin, int64_t end) {
                EXPECT_TRUE(begin % chunk == 0 && begin < end && (end == begin + chunk || end == n));
                for (int64_t i = begin; i < end; i++) done[size_t(i)]++;
            });
            EXPECT_EQ(done, std::vector<int>(size_t(n), 1)) << threads << " threads";
        }
    }
}

TEST(Threads, LoopsInALoopAndBesideIt) {
    const Threads now(3);
    std::atomic<int64_t> sum{0};
    const auto loops = [&] {
        for (int i = 0; i < 50; i++)
            loop(20, 1, [&](int64_t begin, int64_t end) {
                const int index = thread_index();
                loop(10, 3, [&](int64_t from, int64_t to) {
                    EXPECT_EQ(thread_index(), index);
                    for (int64_t i = begin; i < end; i++) sum += i * (to - from);
                });
            });
    };
    std::thread other(loops);
    loops();
    other.join();
    EXPECT_EQ(sum, 2 * 50 * 190 * 10);
}

// What the others were to do and have not begun, the caller does. In a forked process no other thread ever begins.
TEST(Threads, NoThreadIsWaitedForThatHasNotBegun) {
    const Threads now(4);
    loop(8, 1, [](int64_t, int64_t) {});
    const pid_t child = fork();
    if (child == 0) {
        alarm(10);
        int done = 0;
        for (int i = 0; i < 100; i++)
            loop(64, 3, [&](int64_t begin, int64_t end) { done += int(end - begin); });
        _exit(done == 6400 ? 0 : 1);
    }
    int status = 0;
    ASSERT_EQ(waitpid(child, &status, 0), child);
    EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0) << status;
}

// Who has nothing to do lets go of its core: threads that wait for a loop and a caller that waits for a chunk use little
// processor time.
TEST(Threads, WaitingIsAsleep) {
    const Threads now(4);
    const auto cpu_seconds = [] {
        timespec t;
        clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
        return double(t.tv_sec) + 1e-9 * double(t.tv_nsec);
    };
    const double before = cpu_seconds();
    loop(4, 1, [](int64_t i, int64_t) { usleep(i == 3 ? 300000 : 0); });
    usleep(100000);
    EXPECT_LT(cpu_seconds() - before, 0.1);
}

// A thread that lost its core in the middle of a chunk is not given another for a while.
TEST(Threads, AfterALongWaitTheCallerGoesOnAlone) {
    const Threads now(2);
    std::atomic<bool> began{false};
    const auto start = std::chrono::steady_clock::now();
    loop(2, 1, [&](int64_t, int64_t) {
        if (thread_index() == 0) {
            while (!began) usleep(100);
        } else {
            began = true;
            std::this_thread::sleep_for(std::chrono::milliseconds(20) +
                                        10 * (std::chrono::steady_clock::now() - start));
        }
    });
    std::atomic<int> others{0};
    loop(100, 1, [&](int64_t, int64_t) {
        others += thread_index() != 0;
        usleep(10);
    });
    EXPECT_EQ(others, 0);
}

// Nor is one that merely took long: a thread that was on a core all the time is given more.
TEST(Threads, AnExpensiveChunkIsNoReasonToGoOnAlone) {
    const Threads now(2);
    int others_of_all = 0;
    for (int attempt = 0; attempt < 200 && others_of_all == 0;
         attempt++) {  // other programs may take a core in many
        std::atomic<bool> began{false};
        const auto start = std::chrono::steady_clock::now(),
                   deadline = start + std::chrono::milliseconds(100);
        loop(2, 1, [&](int64_t, int64_t) {
            if (thread_index() == 0) {
                while (!began && std::chrono::steady_clock::now() < deadline) usleep(100);
            } else {
                began = true;
                const auto now = std::chrono::steady_clock::now(),
                           end = now + std::chrono::milliseconds(5) + 10 * (now - start);
                while (std::chrono::steady_clock::now() < end) {
                }
            }
        });
        std::atomic<int> others{0};
        loop(100, 1, [&](int64_t, int64_t) {
            others += thread_index() != 0;
            usleep(10);
        });
        if (began) others_of_all += others;
    }
    EXPECT_GT(others_of_all, 0);
}
