// arena.h -- one allocation that holds many named tensors.
//
// First every tensor is added (nothing is allocated: the plan can be printed and checked against the memory
// there is), then allocate() makes one zero-filled block and fills in the data pointers.
#pragma once
#include <cstdio>
#include <memory>
#include <string>
#include <vector>

#include "utils/tensor.h"

class Arena;

// Where an arena's block comes from: the host's memory, or a device's.
class Memory {
  public:
    virtual ~Memory() = default;
    virtual void* allocate(size_t bytes) = 0;  // zero-filled, aligned to 256 bytes; throws Error(NoMemory)
    virtual void release(void* block, size_t bytes) = 0;
    virtual size_t available() const = 0;  // bytes that can still be allocated
    // `arena` is used from now on. True where another has used its block since, and what was in it is lost.
    virtual bool claim(const Arena* /*arena*/) { return false; }
};
Memory& host_memory();
// Bytes that can still be used without swapping or being killed: the machine's, or the container's if that is less.
size_t available_host_memory();
size_t peak_host_memory();  // the most that this process has had in RAM so far, bytes; 0 where unknown

class Arena {
  public:
    Arena(std::string name, Memory& memory) : name_(std::move(name)), memory_(memory) {}
    ~Arena();
    Arena(const Arena&) = delete;
    Arena& operator=(const Arena&) = delete;

    // Plans a contiguous tensor. `t` must stay where it is until allocate() has set its data pointer.
    void add(Tensor* t, std::string name, int64_t rows, int64_t cols, DType dtype = DType::F32);
    size_t bytes() const { return bytes_; }
    const std::string& name() const { return name_; }
    void allocate();
    bool claim() const { return memory_.claim(this); }
    void print(FILE* out) const;  // name, shape, type, MiB of every tensor

  private:
    struct Entry {
        Tensor* tensor;
        std::string name;
        int64_t rows, cols;
        DType dtype;
        size_t offset;
    };
    std::string name_;
    Memory& memory_;
    std::vector<Entry> entries_;
    size_t bytes_ = 0;
    void* block_ = nullptr;
};

// One block for arenas that are used in turn, such as the keys and values of a rollout and the activations of
// the update after it. Whoever uses one of them claims it first.
class SharedMemory : public Memory {
  public:
    explicit SharedMemory(Memory& memory) : memory_(memory) {}
    ~SharedMemory() override;
    SharedMemory(const SharedMemory&) = delete;
    SharedMemory& operator=(const SharedMemory&) = delete;

    void reserve(size_t bytes);  // at least what the largest arena needs, before any of them allocates
    void* allocate(size_t bytes) override;
    void release(void*, size_t) override {}
    size_t available() const override { return memory_.available(); }
    bool claim(const Arena* arena) override;

  private:
    Memory& memory_;
    size_t bytes_ = 0;
    void* block_ = nullptr;
    const Arena* user_ = nullptr;
};
