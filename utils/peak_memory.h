// peak_memory.h -- how much memory this process has needed so far.
#pragma once
#include <cstddef>

// The most of the host's memory that was resident at once, bytes; 0 where the system does not say.
size_t peak_host_memory();
