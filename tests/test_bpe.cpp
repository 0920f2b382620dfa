// The fast merging of pieces against the definition: look at all pairs, merge the best one, start over.
#include <gtest/gtest.h>

#include <map>
#include <string>
#include <thread>

#include "tokenizer/bpe.h"
#include "utils/philox.h"

namespace {

std::array<int, 256> identity() {
    std::array<int, 256> ids;
    for (int i = 0; i < 256; i++) ids[size_t(i)] = i;
    return ids;
}

std::vector<int> naive(const std::array<int, 256>& byte_ids, const std::vector<Merge>& merges,
                       const std::string& piece) {
    std::map<std::pair<int, int>, size_t> rank;
    for (size_t i = 0; i < merges.size(); i++) rank[{merges[i].left, merges[i].right}] = i;
    std::vector<int> ids;
    for (const char c : piece) {
        if (byte_ids[uint8_t(c)] != NO_TOKEN) ids.push_back(byte_ids[uint8_t(c)]);
    }
    for (;;) {
        size_t best = merges.size(), at = 0;
        for (size_t i = 0; i + 1 < ids.size(); i++) {
            const auto found = rank.find({ids[i], ids[i + 1]});
            if (found != rank.end() && found->second < best) {
                best = found->second;
                at = i;
            }
        }
        if (best == merges.size()) return ids;
        ids[at] = merges[best].merged;
        ids.erase(ids.begin() + ptrdiff_t(at) + 1);
    }
}

// Merges of anything with anything, in no sensible order: worse than what training a vocabulary gives.
std::vector<Merge> random_merges(Rng& rng, int n, const std::string& letters) {
    std::vector<int> ids(letters.begin(), letters.end());
    std::vector<Merge> merges;
    std::map<std::pair<int, int>, bool> seen;
    while (int(merges.size()) < n) {
        const int left = ids[rng.below(uint32_t(ids.size()))], right = ids[rng.below(uint32_t(ids.size()))];
        if (seen[{left, right}]) continue;
        seen[{left, right}] = true;
        merges.push_back({left, right, 256 + int(merges.size())});
        ids.push_back(merges.back().merged);
    }
    for (size_t i = merges.size(); i-- > 1;) std::swap(merges[i], merges[rng.below(uint32_t(i + 1))]);
    return merges;
}

std::string random_piece(Rng& rng, uint32_t length, const std::string& letters) {
    std::string piece;
    for (uint32_t i = 0; i < length; i++) piece += letters[rng.below(uint32_t(letters.size()))];
    return piece;
}

TEST(Bpe, MergesAsTheDefinitionSays) {
    Rng rng(1, Stream::Task);
    for (int round = 0; round < 40; round++) {
        const std::string letters = std::string("abcdef").substr(0, 1 + rng.below(5));
        const auto merges = random_merges(rng, 1 + int(rng.below(12)), letters);
        const Bpe bpe(identity(), merges);
        Bpe::Session session(bpe);
        for (int i = 0; i < 60; i++) {
            // short pieces, those about the length where the algorithm changes, and long ones
            const uint32_t length = i < 20   ? 1 + rng.below(12)
                                    : i < 45 ? 28 + rng.below(10)
                                             : 100 + rng.below(100);
            const std::string piece = random_piece(rng, length, letters + "z");
            std::vector<int> ids;
            bpe.encode(piece, ids, session);
            ASSERT_EQ(ids, naive(identity(), merges, piece)) << piece;
            bpe.encode(piece, ids, session);  // once more, from the cache
            ASSERT_EQ(ids.size() % 2, 0u);
            ASSERT_EQ(std::vector<int>(ids.begin() + ptrdiff_t(ids.size() / 2), ids.end()),
                      naive(identity(), merges, piece))
                << piece;
        }
    }
}

TEST(Bpe, RunsOfOneLetterMergeFromTheLeft) {
    const Bpe bpe(identity(), {{'a', 'a', 256}, {256, 256, 257}});
    for (size_t n : {1, 2, 3, 7, 31, 32, 33, 255}) {
        std::vector<int> ids;
        bpe.encode_uncached(std::string(n, 'a'), ids);
        std::vector<int> want(n / 4, 257);
        if (n % 4 >= 2) want.push_back(256);
        if (n % 2 == 1) want.push_back('a');
        EXPECT_EQ(ids, want) << n;
    }
}

TEST(Bpe, AHugePiece) {
    const Bpe bpe(identity(), {{'a', 'a', 256}, {256, 256, 257}, {257, 257, 258}});
    std::vector<int> ids;
    bpe.encode_uncached(std::string(1 << 18, 'a'), ids);
    EXPECT_EQ(ids, std::vector<int>(1 << 15, 258));
}

TEST(Bpe, ALaterRankOfTheSamePairCounts) {
    const Bpe bpe(identity(), {{'a', 'b', 256}, {'b', 'c', 257}, {'a', 'b', 256}});
    std::vector<int> ids;
    bpe.encode_uncached("abc", ids);
    EXPECT_EQ(ids, (std::vector<int>{'a', 257}));
}

TEST(Bpe, BytesWithoutAnIdAreLeftOut) {
    auto byte_ids = identity();
    byte_ids['x'] = NO_TOKEN;
    for (const auto& merges : {std::vector<Merge>{}, std::vector<Merge>{{'a', 'b', 256}}}) {
        const Bpe bpe(byte_ids, merges);
        for (const std::string& piece : {std::string("axb"), std::string("x"), std::string(50, 'x') + "ab"}) {
            std::vector<int> ids;
            bpe.encode_uncached(piece, ids);
            EXPECT_EQ(ids, naive(byte_ids, merges, piece)) << piece;
        }
    }
}

// Far more pieces than the cache has places, twice.
TEST(Bpe, TheCacheForgetsButNeverLies) {
    Rng rng(3, Stream::Task);
    const auto merges = random_merges(rng, 30, "abcd");
    const Bpe bpe(identity(), merges);
    Bpe::Session session(bpe);
    for (int i = 0; i < 100000; i++) {
        const std::string piece = random_piece(rng, 1 + rng.below(12), "abcd");
        std::vector<int> cached, fresh;
        bpe.encode(piece, cached, session);
        bpe.encode_uncached(piece, fresh);
        ASSERT_EQ(cached, fresh) << piece;
    }
}

TEST(Bpe, ThreadsShareIt) {
    Rng rng(4, Stream::Task);
    const auto merges = random_merges(rng, 20, "abc");
    const Bpe bpe(identity(), merges);
    std::vector<std::string> pieces;
    for (int i = 0; i < 300; i++) pieces.push_back(random_piece(rng, 1 + rng.below(20), "abc"));
    std::vector<std::vector<int>> out(4);
    std::vector<std::thread> threads;
    for (auto& ids : out) {
        threads.emplace_back([&] {
            for (const std::string& piece : pieces) {
                Bpe::Session session(bpe);
                bpe.encode(piece, ids, session);
            }
        });
    }
    for (std::thread& thread : threads) thread.join();
    std::vector<int> want;
    for (const std::string& piece : pieces) bpe.encode_uncached(piece, want);
    for (const auto& ids : out) EXPECT_EQ(ids, want);
}

}  // namespace
