// cuda_ops.h -- Ops on a CUDA device. Two implementations, chosen by the Makefile: cuda_ops.cu where there is
// nvcc (and, as host code, in the tests), cuda_absent.cpp where there is not.
#pragma once
#include <memory>

#include "kernels/ops.h"

constexpr size_t CUDA_WORKSPACE = size_t(512) << 20;
// What plans leave free: kernels are loaded when they are first used, lists of tiles and recordings are made during a run.
constexpr size_t CUDA_RESERVE = size_t(512) << 20;

bool built_with_cuda();
int cuda_device_count();  // 0 where there is no driver, no device, or no CUDA in this build
// workspace_bytes: scratch of the operations (tiles of logits, partial sums, cuBLASLt), allocated here, once.
// Throws Error(NoMemory) where the device cannot be had.
std::unique_ptr<Ops> make_cuda_ops(int device, size_t workspace_bytes = CUDA_WORKSPACE);
