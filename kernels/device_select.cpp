#include "kernels/device_select.h"

#include "kernels/cuda_ops.h"
#include "utils/log.h"

// The I of "cuda:I", 0 for "cuda", -1 for anything else.
static int device_index(const std::string& wish) {
    if (wish == "cuda") return 0;
    if (wish.rfind("cuda:", 0) != 0 || wish.size() < 6 || wish.size() > 8) return -1;
    int index = 0;
    for (const char c : wish.substr(5)) {
        if (c < '0' || c > '9') return -1;
        index = index * 10 + (c - '0');
    }
    return index;
}

std::unique_ptr<Ops> make_ops(const std::string& wish, std::string* note) {
    if (note) note->clear();
    if (wish == "cpu") return make_cpu_ops();
    const int found = cuda_device_count();
    const char* missing = built_with_cuda() ? "no GPU found" : "built without CUDA";
    if (wish == "auto") {
        if (found > 0) return make_cuda_ops(0);
        const std::string why = std::string(missing) + ", computing on the CPU";
        if (note)
            *note = why;
        else if (built_with_cuda())
            log_info("%s", why.c_str());
        return make_cpu_ops();
    }
    const int index = device_index(wish);
    if (index < 0) fail(Exit::Usage, "--device %s: want auto, cpu, cuda or cuda:I", wish.c_str());
    if (found == 0) fail(Exit::NoMemory, "--device %s: %s; use --device cpu", wish.c_str(), missing);
    if (index >= found)
        fail(Exit::NoMemory, "--device %s: this machine has %d, the last is cuda:%d", wish.c_str(), found,
             found - 1);
    return make_cuda_ops(index);
}
