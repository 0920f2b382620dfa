#include "utils/peak_memory.h"

#include <fstream>
#include <string>

size_t peak_host_memory() {
    std::ifstream status("/proc/self/status");
    size_t kib = 0;
    for (std::string word; status >> word;)
        if (word == "VmHWM:") return status >> kib ? kib * 1024 : 0;
    return 0;
}
