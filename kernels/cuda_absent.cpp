// cuda_absent.cpp -- cuda_ops.h in a build without CUDA.
#include "kernels/cuda_ops.h"

bool built_with_cuda() { return false; }
int cuda_device_count() { return 0; }
std::unique_ptr<Ops> make_cuda_ops(int device, size_t) {
    fail(Exit::NoMemory,
         "no CUDA device %d: this program was built without CUDA; build it on a machine with nvcc, or use "
         "--device cpu",
         device);
}
