#include "utils/threads.h"

#include <sched.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cmath>
#include <cstdlib>
#include <ctime>
#include <fstream>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <system_error>
#include <thread>
#include <vector>

#include "utils/error.h"

// The CPU time per wall time that the container may use, 0 where unlimited (control groups, version 2, then
// 1).
static double cpu_quota() {
    std::string quota;
    double period = 0;
    if (std::ifstream("/sys/fs/cgroup/cpu.max") >> quota >> period && quota != "max")
        return atof(quota.c_str()) / period;
    double quota_us = 0;
    if (std::ifstream("/sys/fs/cgroup/cpu/cpu.cfs_quota_us") >> quota_us && quota_us > 0 &&
        std::ifstream("/sys/fs/cgroup/cpu/cpu.cfs_period_us") >> period)
        return quota_us / period;
    return 0;
}

int available_cores() {
    cpu_set_t allowed;
    if (sched_getaffinity(0, sizeof allowed, &allowed) != 0) return 1;
    std::set<std::string> cores;  // a core is the list of its hyper-threads
    for (int cpu = 0; cpu < CPU_SETSIZE; cpu++) {
        if (!CPU_ISSET(cpu, &allowed)) continue;
        const std::string path = format("/sys/devices/system/cpu/cpu%d/topology/thread_siblings_list", cpu);
        std::string siblings;
        if (!(std::ifstream(path) >> siblings)) siblings = std::to_string(cpu);
        cores.insert(siblings);
    }
    int n = int(cores.size());
    const double quota = cpu_quota();
    if (quota > 0) n = std::min(n, int(std::ceil(quota)));
    return std::max(n, 1);
}

namespace {

// A pause of some ten nanoseconds.
void pause_core() {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    asm volatile("isb");
#endif
}

// Returns when *at is no longer `old`: at first without giving the core away, then asleep.
void wait_for_change(const std::atomic<uint32_t>& at, uint32_t old) {
    constexpr int SPINS = 16000;  // some 300 microseconds: what lies between the loops of a pass is shorter
    for (int i = 0; i < SPINS; i++) {
        if (at.load(std::memory_order_acquire) != old) return;
        pause_core();
    }
    at.wait(old, std::memory_order_acquire);
}

thread_local int own_index = 0;
thread_local bool in_loop = false;

using Clock = std::chrono::steady_clock;

// Nanoseconds of the calling thread's life without a core, from some origin: only differences mean something.
int64_t ns_off_core() {
    timespec cpu;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &cpu);
    return std::chrono::nanoseconds(Clock::now().time_since_epoch()).count() - cpu.tv_sec * 1000000000 -
           cpu.tv_nsec;
}

class Team {
  public:
    explicit Team(int n) : n_(n), rows_(std::make_unique<Row[]>(size_t(n))) {
        for (int i = 1; i < n; i++) try {
                workers_.emplace_back([this, i] { work(i); });
            } catch (const std::system_error&) {
                stop();
                fail(Exit::Runtime, "of %d threads only %d can be started; choose fewer with --threads", n,
                     i);
            }
    }
    ~Team() { stop(); }
    int size() const { return n_; }

    void run(int64_t n, int64_t chunk, void (*f)(const void*, int64_t, int64_t),
             const void* context) noexcept {
        const Clock::time_point start = Clock::now();
        if (start < alone_until_) return f(context, 0, n);
        loop_ = {n, chunk, f, context};
        const int64_t chunks = (n + chunk - 1) / chunk;
        unfinished_.store(uint32_t(chunks), std::memory_order_relaxed);
        off_core_.store(0, std::memory_order_relaxed);
        for (int i = 0; i < n_; i++) {
            const auto first = [&](int64_t i) { return uint64_t((chunks * i + n_ - 1) / n_); };
            rows_[size_t(i)].left.store(first(i) << 32 | first(i + 1), std::memory_order_release);
        }
        loops_.fetch_add(1, std::memory_order_release);
        loops_.notify_all();
        const int done = do_chunks();
        const Clock::time_point own_end = Clock::now();
        for (uint32_t left; (left = unfinished_.load(std::memory_order_acquire)) != 0;)
            wait_for_change(unfinished_, left);
        // A thread had lost its core in the middle of a chunk, and may again.
        const Clock::duration waited = Clock::now() - own_end;
        if (done && waited > std::chrono::milliseconds(1) + 4 * (own_end - start) / done &&
            std::chrono::nanoseconds(off_core_.load(std::memory_order_relaxed)) > waited / 2)
            alone_until_ = own_end + 9 * waited;
    }

  private:
    struct Loop {
        int64_t n, chunk;
        void (*f)(const void*, int64_t, int64_t);
        const void* context;
    };
    struct alignas(64) Row {
        std::atomic<uint64_t> left{0};  // chunks [high half, low half)
    };

    // Takes the first chunk of a row; false if none is left. A loop lives until its last chunk is finished, so a thread that
    // has taken a chunk may read the loop, even if it came for an earlier one.
    static bool take(Row& row, int64_t& chunk) {
        uint64_t left = row.left.load(std::memory_order_acquire);
        do {
            chunk = int64_t(left >> 32);
            if (chunk >= int64_t(left & 0xffffffff)) return false;
        } while (!row.left.compare_exchange_weak(left, left + (uint64_t(1) << 32), std::memory_order_acq_rel,
                                                 std::memory_order_acquire));
        return true;
    }

    int do_chunks() noexcept {  // how many it found
        constexpr auto LONG = std::chrono::microseconds(500);
        in_loop = true;
        int done = 0;
        const int64_t away = own_index ? ns_off_core() : 0;
        for (int i = 0; i < n_; i++)
            for (int64_t chunk; take(rows_[size_t((own_index + i) % n_)], chunk);) {
                const Loop& l = loop_;
                done++;
                const Clock::time_point begun = Clock::now();
                l.f(l.context, chunk * l.chunk, std::min(l.n, (chunk + 1) * l.chunk));
                if (own_index && Clock::now() - begun > LONG) {
                    const int64_t lost = ns_off_core() - away;
                    int64_t most = off_core_.load(std::memory_order_relaxed);
                    while (lost > most && !off_core_.compare_exchange_weak(most, lost)) {
                    }
                }
                if (unfinished_.fetch_sub(1, std::memory_order_acq_rel) == 1) unfinished_.notify_all();
            }
        in_loop = false;
        return done;
    }

    void stop() {
        stop_ = true;
        loops_.fetch_add(1, std::memory_order_release);
        loops_.notify_all();
        for (std::thread& worker : workers_) worker.join();
    }

    void work(int index) {
        own_index = index;
        for (uint32_t seen = 0; !stop_;) {
            wait_for_change(loops_, seen);
            seen = loops_.load(std::memory_order_acquire);
            do_chunks();
        }
    }

    const int n_;
    std::unique_ptr<Row[]> rows_;
    Loop loop_{};
    alignas(64) std::atomic<uint32_t> loops_{0};       // that were begun
    alignas(64) std::atomic<uint32_t> unfinished_{0};  // chunks of this one
    std::atomic<int64_t> off_core_{
        0};  // nanoseconds a worker was without a core around a long chunk, the most
    std::atomic<bool> stop_{false};
    Clock::time_point alone_until_{};  // the caller does everything itself
    std::vector<std::thread> workers_;
};

int wanted_threads(int n) {
    if (n > 0) return n;
    const char* wanted = getenv("OMP_NUM_THREADS");
    n = wanted ? atoi(wanted) : 0;  // a list such as "4,2" means its first number here
    return n > 0 ? std::min(n, 1024) : available_cores();
}

// Never destroyed: threads that sleep do not keep a program from ending. Null before the first use.
std::unique_ptr<Team>& team() {
    static auto& team = *new std::unique_ptr<Team>;
    return team;
}
Team& started_team() {
    static std::once_flag started;
    std::call_once(started, [] {
        if (!team()) team() = std::make_unique<Team>(wanted_threads(0));
    });
    return *team();
}
std::atomic<bool> running{false};

}  // namespace

int set_threads(int n) {
    n = wanted_threads(n);
    if (team() && team()->size() == n) return n;
    team().reset();
    team() = std::make_unique<Team>(n);
    return n;
}

int max_threads() { return started_team().size(); }
int thread_index() { return own_index; }

void run_in_threads(int64_t n, int64_t chunk, void (*f)(const void*, int64_t, int64_t), const void* context) {
    if (in_loop || running.exchange(true, std::memory_order_acquire)) return f(context, 0, n);
    started_team().run(n, chunk, f, context);
    running.store(false, std::memory_order_release);
}
