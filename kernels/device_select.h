// device_select.h -- the one place where a program chooses what it computes on.
#pragma once
#include <memory>
#include <string>

#include "kernels/ops.h"

// wish: "auto", "cpu", "cuda" or "cuda:I", as --device has it.
//   auto    the first GPU, else the CPU: `note` then says why; without a note the log does, if CUDA was built in
//   cpu     the CPU
//   cuda    that GPU, or Error(NoMemory) saying what is missing
// Anything else: Error(Usage).
// check_device() throws the same without making anything.
std::unique_ptr<Ops> make_ops(const std::string& wish, std::string* note = nullptr);
void check_device(const std::string& wish);
// Whether make_ops() would take the CPU.
bool is_host_device(const std::string& wish);
