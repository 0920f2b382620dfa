// bpe.h -- byte-pair encoding of one piece: starting from its bytes, the pair of neighbours with the lowest
// rank (leftmost on ties) is merged until no pair is in the table.
#pragma once
#include <array>
#include <cstdint>
#include <mutex>
#include <string_view>
#include <vector>

constexpr int NO_TOKEN = -1;

struct Merge {
    int left, right, merged;  // ids; a merge's rank is its place in the list
};

class Bpe {
  public:
    // byte_ids: the id of every single byte; NO_TOKEN where the vocabulary lacks it (it is then left out of
    // the encoding). Where a pair is listed twice the later rank counts.
    Bpe(const std::array<int, 256>& byte_ids, const std::vector<Merge>& merges);

    // Appends the ids of a piece. O(n log n). Safe to call from many threads; they share a bounded cache of
    // short pieces, which one of them uses at a time (hold it by a Session) while the others go without.
    class Session;
    void encode(std::string_view piece, std::vector<int>& ids, Session& session) const;
    void encode_uncached(std::string_view piece, std::vector<int>& ids) const;
    bool has_merges() const { return !table_.empty(); }

  private:
    struct Slot {  // of the open-addressing table from pairs to merges
        uint64_t pair = EMPTY;
        int32_t rank = 0, merged = 0;
    };
    struct Cached {  // one cache line
        static constexpr size_t MAX_BYTES = 30, MAX_IDS = 8;
        uint8_t length = 0, n_ids = 0;
        char bytes[MAX_BYTES];
        int32_t ids[MAX_IDS];
    };
    static constexpr uint64_t EMPTY = ~uint64_t(0);
    static constexpr size_t CACHE_SLOTS = 1 << 15;  // 2 MiB
    static constexpr size_t SHORT = 32;  // bytes up to which looking at every pair beats keeping a heap

    const Slot* find(int left, int right) const;
    void merge_short(int* ids, size_t n, std::vector<int>& out) const;
    void merge_long(const std::vector<int>& start, std::vector<int>& out) const;

    std::array<int, 256> byte_ids_;
    std::vector<Slot> table_;  // a power of two of slots, at most half full; empty where there are no merges
    mutable std::mutex cache_mutex_;
    mutable std::vector<Cached>
        cache_;  // a piece has one place, where a later one replaces it; allocated on first use

  public:
    class Session {
      public:
        explicit Session(const Bpe& bpe);

      private:
        friend class Bpe;
        std::unique_lock<std::mutex> lock_;
    };
};
