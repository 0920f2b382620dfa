// cuda_ops.h -- Ops on a CUDA device. Two implementations, chosen by the Makefile: cuda_ops.cu where there is
// nvcc (and, as host code, in the tests), cuda_absent.cpp where there is not.
#pragma once
#include <memory>

#include "kernels/ops.h"

constexpr size_t CUDA_WORKSPACE = size_t(512) << 20;
// What plans leave free for what comes during a run: kernels loaded when first used, lists of tiles, recordings.
constexpr size_t CUDA_RESERVE = size_t(512) << 20;

bool built_with_cuda();
int cuda_device_count();  // 0 without a driver, a device, or CUDA in this build
// workspace_bytes: scratch of the operations (tiles of logits, partial sums, cuBLASLt), allocated here, once.
// Throws Error(NoMemory) if the device cannot be used.
std::unique_ptr<Ops> make_cuda_ops(int device, size_t workspace_bytes = CUDA_WORKSPACE);
