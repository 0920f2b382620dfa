// cuda_indices.h -- what the host knows of index arrays it has uploaded, and what it makes of them.
//
// Backward passes without atomics and attention that skips tiles need lists made from the indices. They are
// made on the host, from the copy kept at the upload, once per batch however many layers use them.
#pragma once
#include <map>
#include <memory>
#include <tuple>

#include "kernels/cuda_kernels.h"
#include "kernels/device/transfers.h"

namespace cuda {

// Device memory that only grows: after the largest batch nothing is allocated any more.
class DeviceBuffer {
  public:
    DeviceBuffer() = default;
    ~DeviceBuffer();
    DeviceBuffer(const DeviceBuffer&) = delete;
    DeviceBuffer& operator=(const DeviceBuffer&) = delete;
    char* at_least(size_t bytes);

  private:
    void* data_ = nullptr;
    size_t bytes_ = 0;
};

class IndexMirrors {
  public:
    explicit IndexMirrors(Transfers& transfers) : transfers_(transfers) {}
    // A tensor of I32 has been uploaded from `host`.
    void remember(const Tensor& t, const void* host);
    // Something else has been written to, or happened to, this memory.
    void forget(const void* begin, size_t bytes);

    DeviceRowGroups row_groups(const Tensor& destination);
    DeviceTiles attention_tiles(const Tensor& see, int n_slots, int tile_tokens, int warps, int split);
    DeviceKeyPairs key_pairs(const Tensor& see, int n_slots, int tile_tokens, int wanted, int most_parts);

  private:
    struct Groups {
        DeviceBuffer buffer;
        bool valid = false;
        DeviceRowGroups device;
    };
    struct Tiles {
        DeviceBuffer buffer;
        bool valid = false;
        DeviceTiles device;
    };
    struct Pairs {
        DeviceBuffer buffer;
        bool valid = false;
        DeviceKeyPairs device;
    };
    struct Mirror {
        std::vector<int> values;
        Groups groups;
        std::map<std::tuple<int, int, int, int>, Tiles> tiles;  // by slots, tokens, warps, split
        std::map<std::tuple<int, int, int, int>, Pairs> pairs;  // by slots, tokens, wanted, most_parts
    };
    Mirror& mirror_of(const Tensor& t);
    static std::span<const AttentionSpans> spans_of(const Mirror& mirror);
    Transfers& transfers_;
    std::map<const char*, Mirror> mirrors_;  // by device address
};

}  // namespace cuda
