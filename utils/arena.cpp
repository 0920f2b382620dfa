#include "utils/arena.h"

#include <sys/mman.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <fstream>

namespace {
class HostMemory : public Memory {
  public:
    void* allocate(size_t bytes) override {
        if (bytes == 0) bytes = 1;
        // Linux grants what it does not have and kills the process when the pages are touched, hours later.
        if (const size_t available = available_host_memory(); bytes > available)
            fail(Exit::NoMemory,
                 "%.1f MiB of host memory are needed, %.1f MiB are available; use a smaller model or token "
                 "budget",
                 double(bytes) / (1 << 20), double(available) / (1 << 20));
        void* block = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (block == MAP_FAILED)
            fail(Exit::NoMemory,
                 "cannot allocate %.1f MiB of host memory; use a smaller model or token budget",
                 double(bytes) / (1 << 20));
        return block;
    }
    void release(void* block, size_t bytes) override { munmap(block, bytes ? bytes : 1); }
    size_t available() const override { return available_host_memory(); }
};
}  // namespace

Memory& host_memory() {
    static HostMemory memory;
    return memory;
}

// The number after `key` in a file of "key value" lines (an empty key: the first word); 0 where there is
// none.
static size_t number_in(const char* path, const std::string& key) {
    std::ifstream file(path);
    size_t value = 0;
    if (key.empty()) return file >> value ? value : 0;
    for (std::string word; file >> word;)
        if (word == key) return file >> value ? value : 0;
    return 0;
}

size_t available_host_memory() {
    size_t available = number_in("/proc/meminfo", "MemAvailable:") * 1024;
    if (available == 0) return SIZE_MAX;
    for (const auto& [limit, used, stat, cache] :
         {std::array{"/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current",
                     "/sys/fs/cgroup/memory.stat", "inactive_file"},
          std::array{"/sys/fs/cgroup/memory/memory.limit_in_bytes",
                     "/sys/fs/cgroup/memory/memory.usage_in_bytes", "/sys/fs/cgroup/memory/memory.stat",
                     "total_inactive_file"}}) {
        const size_t most = number_in(limit, "");  // "max" is no number
        if (most == 0) continue;
        const size_t now = number_in(used, ""), reclaimable = number_in(stat, cache);
        const size_t busy = now - std::min(now, reclaimable);
        available = std::min(available, most - std::min(most, busy));
    }
    return available;
}

size_t peak_host_memory() { return number_in("/proc/self/status", "VmHWM:") * 1024; }

// As cudaMalloc aligns: which algorithm multiplies two matrices then does not depend on what else their arena holds.
constexpr size_t ALIGNMENT = 256;

void Arena::add(Tensor* t, std::string name, int64_t rows, int64_t cols, DType dtype) {
    CHECK(!block_, "arena %s: %s added after allocate()", name_.c_str(), name.c_str());
    *t = {nullptr, rows, cols, cols, dtype};
    entries_.push_back({t, std::move(name), rows, cols, dtype, bytes_});
    bytes_ += (t->bytes() + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
}

void Arena::allocate() {
    CHECK(!block_, "arena %s allocated twice", name_.c_str());
    block_ = memory_.allocate(bytes_);
    for (Entry& e : entries_) e.tensor->data = static_cast<char*>(block_) + e.offset;
}

Arena::~Arena() {
    if (block_) memory_.release(block_, bytes_);
}

void Arena::print(FILE* out) const {
    for (const Entry& e : entries_)
        fprintf(out, "  %-44s (%ld, %ld) %s %.2f MiB\n", e.name.c_str(), long(e.rows), long(e.cols),
                name_of(e.dtype), double(e.rows * e.cols) * double(size_of(e.dtype)) / (1 << 20));
    fprintf(out, "%-46s %.2f MiB\n", name_.c_str(), double(bytes_) / (1 << 20));
}

void SharedMemory::reserve(size_t bytes) {
    CHECK(!block_, "shared memory reserved after it was allocated");
    bytes_ = bytes;
}

void* SharedMemory::allocate(size_t bytes) {
    CHECK(bytes <= bytes_, "%zu bytes of a shared block of %zu", bytes, bytes_);
    if (!block_) block_ = memory_.allocate(bytes_);
    return block_;
}

bool SharedMemory::claim(const Arena* arena) {
    const bool lost = user_ != arena;
    user_ = arena;
    return lost;
}

SharedMemory::~SharedMemory() {
    if (block_) memory_.release(block_, bytes_);
}
