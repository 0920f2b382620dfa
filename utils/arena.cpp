#include "utils/arena.h"

#include <sys/mman.h>

namespace {
class HostMemory : public Memory {
  public:
    void* allocate(size_t bytes) override {
        if (bytes == 0) bytes = 1;
        void* block = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (block == MAP_FAILED)
            fail(Exit::NoMemory,
                 "cannot allocate %.1f MiB of host memory; use a smaller model or token budget",
                 double(bytes) / (1 << 20));
        return block;
    }
    void release(void* block, size_t bytes) override { munmap(block, bytes ? bytes : 1); }
};
}  // namespace

Memory& host_memory() {
    static HostMemory memory;
    return memory;
}

constexpr size_t ALIGNMENT = 128;  // a cache line pair on the CPU, a full memory transaction on the GPU

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
