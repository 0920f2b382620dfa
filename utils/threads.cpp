#include "utils/threads.h"

#include <sched.h>

#ifdef _OPENMP
#include <omp.h>
#endif

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <fstream>
#include <set>
#include <string>

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

int set_threads(int n) {
    if (n <= 0) {
        const char* wanted = getenv("OMP_NUM_THREADS");
        n = wanted ? atoi(wanted) : 0;  // a list such as "4,2" means its first number here
        if (n <= 0) n = available_cores();
    }
#ifdef _OPENMP
    omp_set_dynamic(0);
    omp_set_max_active_levels(1);
    omp_set_num_threads(n);
    return n;
#else
    return 1;
#endif
}
