// Any bytes as a .safetensors file: either Error(BadFile), or tensors that cover its data and can all be read.
#include <sys/mman.h>
#include <unistd.h>

#include "weights_tools/safetensors.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    static const int fd = memfd_create("fuzz", 0);
    if (ftruncate(fd, 0) != 0 || pwrite(fd, data, size, 0) != ssize_t(size)) abort();
    try {
        const SafetensorsFile file("/proc/self/fd/" + std::to_string(fd));
        uint64_t bytes = 0;
        for (const FileTensor& t : file.tensors()) {
            bytes += t.bytes;
            if (file.find(t.name) != &t) abort();
            std::vector<float> numbers(size_t(t.size()));
            const DType dtype = t.dtype == DType::I32 ? DType::I32 : DType::F32;
            load_tensors({{&t, tensor(numbers.data(), 1, t.size(), dtype)}});
        }
        if (bytes > size) abort();
    } catch (const Error& e) {
        if (e.code != Exit::BadFile) abort();
    }
    return 0;
}
