// cublaslt_absent.cu -- matrix products where there is no cuBLASLt, under the emulation: our own kernel computes all of them.
#include "kernels/cuda_kernels.h"

namespace cuda {

struct MatmulState {};
MatmulState* create_matmul_state() { return new MatmulState; }
void destroy_matmul_state(MatmulState* state) { delete state; }

void matmul_library(const Context& ctx, const Matmul& p) { matmul_tiles(ctx, p); }

}  // namespace cuda
