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

static const char* why_no_gpu() { return built_with_cuda() ? "no GPU found" : "built without CUDA"; }

void check_device(const std::string& wish) {
    if (wish == "cpu" || wish == "auto") return;
    const int index = device_index(wish), found = cuda_device_count();
    if (index < 0) fail(Exit::Usage, "--device %s: want auto, cpu, cuda or cuda:I", wish.c_str());
    if (found == 0) fail(Exit::NoMemory, "--device %s: %s; use --device cpu", wish.c_str(), why_no_gpu());
    if (index >= found)
        fail(Exit::NoMemory, "--device %s: this machine has %d, the last is cuda:%d", wish.c_str(), found,
             found - 1);
}

bool is_host_device(const std::string& wish) {
    return wish == "cpu" || (wish == "auto" && cuda_device_count() == 0);
}

std::unique_ptr<Ops> make_ops(const std::string& wish, std::string* note) {
    if (note) note->clear();
    check_device(wish);
    if (!is_host_device(wish)) return make_cuda_ops(wish == "auto" ? 0 : device_index(wish));
    if (wish == "auto") {
        const std::string why = std::string(why_no_gpu()) + ", computing on the CPU";
        if (note)
            *note = why;
        else if (built_with_cuda())
            log_info("%s", why.c_str());
    }
    return make_cpu_ops();
}
