#include "tokenizer/bpe.h"

#include <algorithm>
#include <climits>
#include <cstring>
#include <queue>

namespace {

uint64_t pair_of(int left, int right) { return uint64_t(uint32_t(left)) << 32 | uint32_t(right); }

uint64_t mix(uint64_t x) {
    x *= 0x9E3779B97F4A7C15;
    return x ^ (x >> 32);
}

uint64_t hash_of(std::string_view bytes) {
    uint64_t hash = bytes.size();
    size_t at = 0;
    for (; at + 8 <= bytes.size(); at += 8) {
        uint64_t word;
        memcpy(&word, bytes.data() + at, 8);
        hash = mix(hash ^ word);
    }
    uint64_t word = 0;
    memcpy(&word, bytes.data() + at, bytes.size() - at);
    return mix(hash ^ word);
}

}  // namespace

Bpe::Bpe(const std::array<int, 256>& byte_ids, const std::vector<Merge>& merges) : byte_ids_(byte_ids) {
    if (merges.empty()) return;
    size_t slots = 16;
    while (slots < 2 * merges.size()) slots *= 2;
    table_.resize(slots);
    for (size_t rank = 0; rank < merges.size(); rank++) {
        const uint64_t pair = pair_of(merges[rank].left, merges[rank].right);
        size_t at = mix(pair) & (slots - 1);
        while (table_[at].pair != EMPTY && table_[at].pair != pair) at = (at + 1) & (slots - 1);
        table_[at] = {pair, int32_t(rank), merges[rank].merged};
    }
}

const Bpe::Slot* Bpe::find(int left, int right) const {
    const uint64_t pair = pair_of(left, right);
    for (size_t at = mix(pair) & (table_.size() - 1);; at = (at + 1) & (table_.size() - 1)) {
        if (table_[at].pair == pair) return &table_[at];
        if (table_[at].pair == EMPTY) return nullptr;
    }
}

Bpe::Session::Session(const Bpe& bpe) : lock_(bpe.cache_mutex_, std::try_to_lock) {
    if (lock_ && bpe.cache_.empty() && bpe.has_merges()) bpe.cache_.resize(CACHE_SLOTS);
}

void Bpe::encode(std::string_view piece, std::vector<int>& ids, Session& session) const {
    if (!session.lock_ || piece.size() > Cached::MAX_BYTES || !has_merges())
        return encode_uncached(piece, ids);
    Cached& place = cache_[hash_of(piece) & (CACHE_SLOTS - 1)];
    if (place.length == piece.size() && memcmp(place.bytes, piece.data(), piece.size()) == 0) {
        ids.insert(ids.end(), place.ids, place.ids + place.n_ids);
        return;
    }
    const size_t before = ids.size();
    encode_uncached(piece, ids);
    const size_t n = ids.size() - before;
    if (n > Cached::MAX_IDS) return;
    place.length = uint8_t(piece.size());
    place.n_ids = uint8_t(n);
    memcpy(place.bytes, piece.data(), piece.size());
    std::copy(ids.begin() + ptrdiff_t(before), ids.end(), place.ids);
}

void Bpe::encode_uncached(std::string_view piece, std::vector<int>& ids) const {
    if (!has_merges()) {
        for (const char c : piece) {
            if (byte_ids_[uint8_t(c)] != NO_TOKEN) ids.push_back(byte_ids_[uint8_t(c)]);
        }
        return;
    }
    if (piece.size() <= SHORT) {
        int start[SHORT];
        size_t n = 0;
        for (const char c : piece) {
            if (byte_ids_[uint8_t(c)] != NO_TOKEN) start[n++] = byte_ids_[uint8_t(c)];
        }
        merge_short(start, n, ids);
        return;
    }
    std::vector<int> start;
    start.reserve(piece.size());
    for (const char c : piece) {
        if (byte_ids_[uint8_t(c)] != NO_TOKEN) start.push_back(byte_ids_[uint8_t(c)]);
    }
    merge_long(start, ids);
}

void Bpe::merge_short(int* ids, size_t n, std::vector<int>& out) const {
    const Slot* pairs[SHORT];  // pairs[i]: the merge of ids[i] and ids[i + 1], if there is one
    for (size_t i = 0; i + 1 < n; i++) pairs[i] = find(ids[i], ids[i + 1]);
    for (;;) {
        int rank = INT_MAX;
        size_t at = 0;
        for (size_t i = 0; i + 1 < n; i++) {
            if (pairs[i] && pairs[i]->rank < rank) {
                rank = pairs[i]->rank;
                at = i;
            }
        }
        if (rank == INT_MAX) break;
        ids[at] = pairs[at]->merged;
        n--;
        for (size_t i = at + 1; i < n; i++) {
            ids[i] = ids[i + 1];
            pairs[i - 1] = pairs[i];
        }
        if (at + 1 < n) pairs[at] = find(ids[at], ids[at + 1]);
        if (at > 0) pairs[at - 1] = find(ids[at - 1], ids[at]);
    }
    out.insert(out.end(), ids, ids + n);
}

void Bpe::merge_long(const std::vector<int>& start, std::vector<int>& out) const {
    // A linked list of symbols in place, and a heap of the merges that were possible when they were pushed:
    // one whose symbols have changed since is dropped when it comes up.
    struct Symbol {
        int id;
        int64_t previous, next;  // -1 and n at the ends
    };
    struct Candidate {
        int rank;
        int64_t at;
        int left, right, merged;
        bool operator<(const Candidate& other) const {  // priority_queue gives the largest
            return rank != other.rank ? rank > other.rank : at > other.at;
        }
    };
    const int64_t n = int64_t(start.size());
    std::vector<Symbol> symbols(start.size());
    std::priority_queue<Candidate> heap;
    const auto push = [&](int64_t at) {
        const int64_t next = symbols[size_t(at)].next;
        if (next >= n) return;
        const int left = symbols[size_t(at)].id, right = symbols[size_t(next)].id;
        if (const Slot* slot = find(left, right)) heap.push({slot->rank, at, left, right, slot->merged});
    };
    for (int64_t i = 0; i < n; i++) symbols[size_t(i)] = {start[size_t(i)], i - 1, i + 1};
    for (int64_t i = 0; i < n; i++) push(i);
    while (!heap.empty()) {
        const Candidate best = heap.top();
        heap.pop();
        Symbol& left = symbols[size_t(best.at)];
        if (left.id != best.left || left.next >= n || symbols[size_t(left.next)].id != best.right) continue;
        Symbol& right = symbols[size_t(left.next)];
        left.id = best.merged;
        left.next = right.next;
        right.id = NO_TOKEN;  // gone; no candidate has this id
        if (left.next < n) symbols[size_t(left.next)].previous = best.at;
        push(best.at);
        if (left.previous >= 0) push(left.previous);
    }
    for (int64_t i = 0; i < n; i = symbols[size_t(i)].next) out.push_back(symbols[size_t(i)].id);
}
