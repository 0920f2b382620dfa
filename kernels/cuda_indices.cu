// cuda_indices.cu -- see cuda_indices.h. Host code only.
#include <algorithm>
#include <cstring>

#include "kernels/cuda_indices.h"

namespace cuda {

DeviceBuffer::~DeviceBuffer() { cudaFree(data_); }

char* DeviceBuffer::at_least(size_t bytes) {
    if (bytes > bytes_) {
        bytes_ = std::max(bytes, 2 * bytes_);
        CUDA_CHECK(cudaFree(data_));  // waits for whoever still reads it
        data_ = nullptr;
        CUDA_CHECK(cudaMalloc(&data_, bytes_));
    }
    return static_cast<char*>(data_);
}

namespace {
// Pieces of a split list that one recording serves: of few, where the device is not full, more are empty.
int pieces_bucket(int n) {
    if (n > 64) return size_bucket(n);
    int power = 1;
    while (power < n) power *= 2;
    return power;
}

// Several arrays as one block of memory. same_places: arrays of about the same sizes lie at the same places, so that a
// recording serves lists that grow.
class Block {
  public:
    explicit Block(bool same_places = false) : same_places_(same_places) {}
    template <class T>
    size_t add(const std::vector<T>& array) {
        const size_t at = (bytes_.size() + 15) / 16 * 16;
        const size_t n = array.size();
        bytes_.resize(at + (same_places_ ? size_t(coarse_bucket(int(n))) : n) * sizeof(T));
        if (!array.empty()) memcpy(bytes_.data() + at, array.data(), array.size() * sizeof(T));
        return at;
    }
    char* upload(DeviceBuffer& buffer, Transfers& transfers) const {
        char* to = buffer.at_least(bytes_.size() + 16);
        transfers.upload(to, bytes_.data(), bytes_.size());
        return to;
    }

  private:
    bool same_places_;
    std::vector<char> bytes_;
};
}  // namespace

void IndexMirrors::remember(const Tensor& t, const void* host) {
    const char* begin = static_cast<const char*>(t.data);
    const auto same = mirrors_.find(begin);
    if (same != mirrors_.end()) {  // its buffers serve the next batch
        auto node = mirrors_.extract(same);
        forget(begin, t.bytes());
        node.mapped().groups.valid = false;
        for (auto& [key, tiles] : node.mapped().tiles) tiles.valid = false;
        for (auto& [key, pairs] : node.mapped().pairs) pairs.valid = false;
        mirrors_.insert(std::move(node));
    } else {
        forget(begin, t.bytes());
    }
    Mirror& mirror = mirrors_[begin];
    const int* values = static_cast<const int*>(host);
    mirror.values.assign(values, values + t.size());
}

void IndexMirrors::forget(const void* memory, size_t bytes) {
    const char *begin = static_cast<const char*>(memory), *end = begin + bytes;
    std::erase_if(mirrors_, [&](const auto& entry) {
        return entry.first < end && entry.first + entry.second.values.size() * sizeof(int) > begin;
    });
}

IndexMirrors::Mirror& IndexMirrors::mirror_of(const Tensor& t) {
    const char* begin = static_cast<const char*>(t.data);
    const auto at = mirrors_.find(begin);
    if (at != mirrors_.end() && at->second.values.size() == size_t(t.size())) return at->second;
    // made on the device, or a part of what was uploaded: ask for it
    CHECK(t.contiguous() && t.dtype == DType::I32, "indices of type %s", name_of(t.dtype));
    std::vector<int> values(static_cast<size_t>(t.size()));
    transfers_.download(values.data(), t.data, t.bytes());
    remember(t, values.data());
    return mirrors_[begin];
}

DeviceRowGroups IndexMirrors::row_groups(const Tensor& destination) {
    Mirror& mirror = mirror_of(destination);
    if (mirror.groups.valid) return mirror.groups.device;
    const RowGroups host = group_rows(mirror.values.data(), int(mirror.values.size()));
    Block block;
    const size_t order = block.add(host.order), groups = block.add(host.groups),
                 joins = block.add(host.joins);
    const char* at = block.upload(mirror.groups.buffer, transfers_);
    mirror.groups.device = {.order = reinterpret_cast<const int*>(at + order),
                            .groups = reinterpret_cast<const RowGroups::Group*>(at + groups),
                            .joins = reinterpret_cast<const RowGroups::Join*>(at + joins),
                            .n_groups = int(host.groups.size()),
                            .n_joins = int(host.joins.size()),
                            .parts = host.parts};
    mirror.groups.valid = true;
    return mirror.groups.device;
}

std::span<const AttentionSpans> IndexMirrors::spans_of(const Mirror& mirror) {
    return {reinterpret_cast<const AttentionSpans*>(mirror.values.data()), mirror.values.size() / SPAN_INTS};
}

DeviceTiles IndexMirrors::attention_tiles(const Tensor& see, int n_slots, int tokens, int warps, int split) {
    CHECK(see.cols == SPAN_INTS, "spans of %lld numbers", (long long)see.cols);
    Mirror& mirror = mirror_of(see);
    Tiles& tiles = mirror.tiles[{n_slots, tokens, warps, split}];
    if (tiles.valid) return tiles.device;
    AttentionTiles host = build_attention_tiles(spans_of(mirror), n_slots, tokens, split);
    if (split) {
        host.pieces.resize(size_t(pieces_bucket(int(host.pieces.size()))), {-1, 0, 0, -1, 0, 0});
        if (host.parts) {  // most that they can be
            host.joins.resize(host.query_tiles.size(), {-1, 0, 0});
            host.parts = int(host.pieces.size());
        }
    }
    Block block(true);
    const size_t query_tiles = block.add(host.query_tiles), keys = block.add(host.keys),
                 queries = block.add(host.queries), first_query = block.add(host.first_query),
                 pieces = block.add(host.pieces), joins = block.add(host.joins);
    const char* at = block.upload(tiles.buffer, transfers_);
    tiles.device = {.query_tiles = reinterpret_cast<const AttentionTiles::QueryTile*>(at + query_tiles),
                    .keys = reinterpret_cast<const AttentionTiles::Visit*>(at + keys),
                    .queries = reinterpret_cast<const AttentionTiles::Visit*>(at + queries),
                    .first_query = reinterpret_cast<const int*>(at + first_query),
                    .pieces = reinterpret_cast<const AttentionTiles::Piece*>(at + pieces),
                    .joins = reinterpret_cast<const AttentionTiles::Join*>(at + joins),
                    .n_query_tiles = int(host.query_tiles.size()),
                    .n_key_tiles = host.n_key_tiles(),
                    .n_pieces = int(host.pieces.size()),
                    .n_joins = int(host.joins.size()),
                    .parts = host.parts,
                    .n_visits = size_bucket(int(host.keys.size())),
                    .warps = warps};
    tiles.valid = true;
    return tiles.device;
}

DeviceKeyPairs IndexMirrors::key_pairs(const Tensor& see, int n_slots, int tokens, int wanted,
                                       int most_parts) {
    CHECK(see.cols == SPAN_INTS, "spans of %lld numbers", (long long)see.cols);
    Mirror& mirror = mirror_of(see);
    Pairs& pairs = mirror.pairs[{n_slots, tokens, wanted, most_parts}];
    if (pairs.valid) return pairs.device;
    const KeyPairs host =
        build_key_pairs(build_attention_tiles(spans_of(mirror), n_slots, tokens, 0), wanted, most_parts);
    Block block;
    const size_t visits = block.add(host.visits), pieces = block.add(host.pieces),
                 joins = block.add(host.joins);
    const char* at = block.upload(pairs.buffer, transfers_);
    pairs.device = {.visits = reinterpret_cast<const KeyPairs::Visit*>(at + visits),
                    .pieces = reinterpret_cast<const KeyPairs::Piece*>(at + pieces),
                    .joins = reinterpret_cast<const KeyPairs::Join*>(at + joins),
                    .n_pieces = int(host.pieces.size()),
                    .n_joins = int(host.joins.size()),
                    .parts = host.parts};
    pairs.valid = true;
    return pairs.device;
}

}  // namespace cuda
