// The lists of tiles against the dense mask they stand for.
#include <gtest/gtest.h>

#include <climits>
#include <map>
#include <set>

#include "kernels/attention_tiles.h"
#include "utils/philox.h"

namespace {

bool sees(const AttentionSpans& see, int slot) {
    for (int r = 0; r < 3; r++)
        if (slot >= see.begin[r] && slot < see.end[r]) return true;
    return false;
}

// A pair's list is its tiles' lists as one; pieces, the longest first, are all of it, and parts are joined in order.
void expect_pairs_match(const AttentionTiles& tiles, int wanted, int most_parts) {
    const KeyPairs pairs = build_key_pairs(tiles, wanted, most_parts);
    EXPECT_LE(pairs.parts, most_parts);
    const int n_pairs = (tiles.n_key_tiles() + 1) / 2;
    std::vector<std::map<int, KeyPairs::Piece>> pieces(static_cast<size_t>(n_pairs));  // by first visit
    int most = INT_MAX;
    for (const auto& piece : pairs.pieces) {
        EXPECT_LE(piece.end_visit - piece.first_visit, most);
        most = piece.end_visit - piece.first_visit;
        EXPECT_TRUE(pieces[size_t(piece.pair)].insert({piece.first_visit, piece}).second);
    }
    int next = 0, part = 0;
    size_t join = 0;
    for (int pair = 0; pair < n_pairs; pair++) {
        std::map<int, std::pair<int, int>> halves;  // of the query tiles that visit either: seen, full
        for (int key = 2 * pair; key < std::min(2 * pair + 2, tiles.n_key_tiles()); key++)
            for (int v = tiles.first_query[size_t(key)]; v < tiles.first_query[size_t(key) + 1]; v++) {
                auto& [seen, full] = halves[tiles.queries[size_t(v)].tile];
                seen += key % 2 + 1, full += tiles.queries[size_t(v)].full * (key % 2 + 1);
            }
        const auto& own = pieces[size_t(pair)];
        ASSERT_FALSE(own.empty());
        if (own.size() > 1) {
            ASSERT_LT(join, pairs.joins.size());
            EXPECT_EQ(pairs.joins[join].pair, pair);
            EXPECT_EQ(pairs.joins[join].first_part, part);
            EXPECT_EQ(pairs.joins[join++].end_part, part + int(own.size()));
        }
        auto expected = halves.begin();
        for (const auto& [first, piece] : own) {
            EXPECT_EQ(piece.part, own.size() > 1 ? part++ : -1);
            ASSERT_EQ(first, next);
            for (; next < piece.end_visit; next++, expected++) {
                ASSERT_NE(expected, halves.end());
                const KeyPairs::Visit& visit = pairs.visits[size_t(next)];
                EXPECT_EQ(visit.begin, tiles.query_tiles[size_t(expected->first)].begin);
                EXPECT_EQ(visit.end, tiles.query_tiles[size_t(expected->first)].end);
                EXPECT_EQ(visit.seen, expected->second.first);
                EXPECT_EQ(visit.full, expected->second.second);
            }
        }
        EXPECT_EQ(expected, halves.end());
    }
    EXPECT_EQ(join, pairs.joins.size());
    EXPECT_EQ(part, pairs.parts);
}

// Every visible (token, slot) is visited exactly once, by tiles and by pieces; `full` says the truth; nothing
// that nobody sees is visited.
void expect_tiles_match(const std::vector<AttentionSpans>& see, int n_slots, int tile_tokens, int split) {
    const AttentionTiles tiles = build_attention_tiles(see, n_slots, tile_tokens, split);
    int next = 0;
    for (const auto& q : tiles.query_tiles) {
        ASSERT_EQ(q.begin, next);
        ASSERT_LE(q.end - q.begin, tile_tokens);
        ASSERT_LT(q.begin, q.end);
        next = q.end;
    }
    ASSERT_EQ(next, int(see.size()));
    std::vector<std::set<int>> visited(tiles.query_tiles.size());
    const auto count = [&](int q, int key, int* visible) {
        *visible = 0;
        for (int t = tiles.query_tiles[size_t(q)].begin; t < tiles.query_tiles[size_t(q)].end; t++)
            for (int s = key * KEY_TILE; s < (key + 1) * KEY_TILE; s++) *visible += sees(see[size_t(t)], s);
    };
    for (int q = 0; q < int(tiles.query_tiles.size()); q++) {
        const auto& tile = tiles.query_tiles[size_t(q)];
        for (int v = tile.first_visit; v < tile.end_visit; v++) {
            const auto& visit = tiles.keys[size_t(v)];
            ASSERT_TRUE(visited[size_t(q)].insert(visit.tile).second) << "visited twice";
            int visible;
            count(q, visit.tile, &visible);
            EXPECT_GT(visible, 0);
            EXPECT_EQ(visit.full, visible == (tile.end - tile.begin) * KEY_TILE);
        }
        for (int key = 0; key < tiles.n_key_tiles(); key++) {
            int visible;
            count(q, key, &visible);
            EXPECT_EQ(visible > 0, visited[size_t(q)].contains(key));
        }
    }
    // the other direction holds the same pairs, in the order of query tiles
    size_t pairs = 0;
    for (int key = 0; key < tiles.n_key_tiles(); key++)
        for (int v = tiles.first_query[size_t(key)]; v < tiles.first_query[size_t(key) + 1]; v++, pairs++) {
            EXPECT_TRUE(visited[size_t(tiles.queries[size_t(v)].tile)].contains(key));
            if (v > tiles.first_query[size_t(key)]) {
                EXPECT_GT(tiles.queries[size_t(v)].tile, tiles.queries[size_t(v) - 1].tile);
            }
        }
    EXPECT_EQ(pairs, tiles.keys.size());
    expect_pairs_match(tiles, 1, 0);
    // pieces and joins
    std::vector<int> covered(tiles.keys.size());
    std::set<int> parts;
    int most = n_slots;
    for (const auto& piece : tiles.pieces) {
        const int length = piece.end_visit - piece.first_visit;
        EXPECT_LE(length, most) << "the longest first";
        most = length;
        if (split && piece.part < 0) {
            EXPECT_LE(length, std::max(split, WHOLE_VISITS));
        } else if (split) {
            EXPECT_LE(length, split);
        }
        for (int v = piece.first_visit; v < piece.end_visit; v++) covered[size_t(v)]++;
        const auto& tile = tiles.query_tiles[size_t(piece.query_tile)];
        EXPECT_GE(piece.first_visit, tile.first_visit);
        EXPECT_LE(piece.end_visit, tile.end_visit);
        if (piece.part < 0) {
            EXPECT_EQ(length, tile.end_visit - tile.first_visit);
        } else {
            EXPECT_TRUE(parts.insert(piece.part).second);
        }
    }
    for (const int n : covered) EXPECT_EQ(n, 1);
    EXPECT_EQ(int(parts.size()), tiles.parts);
    int joined = 0;
    for (const auto& join : tiles.joins) joined += join.end_part - join.first_part;
    EXPECT_EQ(joined, tiles.parts);
}

}  // namespace

TEST(AttentionTiles, AreTheDenseMask) {
    Rng rng(1, Stream::Noise);
    for (int round = 0; round < 60; round++) {
        const int T = 1 + int(rng.below(40)), S = 1 + int(rng.below(round % 3 ? 500 : 1500));
        std::vector<AttentionSpans> see;
        for (int t = 0; t < T; t++) {
            if (t && rng.below(3)) {
                see.push_back(see.back());
                continue;
            }
            AttentionSpans a;
            int at = 0;
            for (int r = 0; r < 3; r++) {
                a.begin[r] = at + int(rng.below(uint32_t(S - at + 1)));
                a.end[r] = a.begin[r] + (rng.below(3) ? int(rng.below(uint32_t(S - a.begin[r] + 1))) : 0);
                at = a.end[r];
            }
            see.push_back(a);
        }
        for (const int split : {0, 1, 3, 8}) expect_tiles_match(see, S, 1 + int(rng.below(20)), split);
    }
}

// Long lists are cut into even pieces, unless the partial results would have no place.
TEST(AttentionTiles, PairsAreCut) {
    std::vector<AttentionSpans> see;
    for (int t = 0; t < 400; t++) see.push_back({{0, 0, 0}, {1 + t, 0, 0}});
    const AttentionTiles tiles = build_attention_tiles(see, 400, 4, 0);
    for (const int wanted : {1, 5, 1000})
        for (const int most_parts : {0, 2, 5, 100}) expect_pairs_match(tiles, wanted, most_parts);
    const KeyPairs pairs = build_key_pairs(tiles, 10, 100);  // 100, 68, 36 and 4 visits: at most 20 a piece
    ASSERT_EQ(pairs.joins.size(), 3u);
    EXPECT_EQ(pairs.parts, 5 + 4 + 2);
    for (const auto& piece : pairs.pieces) {
        EXPECT_LE(piece.end_visit - piece.first_visit, 20);
    }
}

// A key tile that no span covers alone is whole all the same where two that touch do.
TEST(AttentionTiles, SpansThatTouchCoverATileTogether) {
    const std::vector<AttentionSpans> see = {{{100, 0, 0}, {200, 100, 0}}, {{0, 64, 0}, {64, 192, 0}}};
    const AttentionTiles tiles = build_attention_tiles(see, 256, 2, 0);
    std::vector<std::pair<int, int>> visits;
    for (const auto& visit : tiles.keys) visits.push_back({visit.tile, visit.full});
    EXPECT_EQ(visits, (std::vector<std::pair<int, int>>{{0, 1}, {1, 1}, {2, 1}, {3, 0}}));
}

// Two sequences of a decoding batch do not share a tile, blocks of one sequence do.
TEST(AttentionTiles, SequencesDoNotShareATile) {
    std::vector<AttentionSpans> see;
    for (int sequence = 0; sequence < 3; sequence++)
        for (int row = 0; row < 4; row++)
            see.push_back({{0, 1000 * sequence, 1000 * sequence + 300},
                           {0, 1000 * sequence + 300, 1000 * sequence + 304}});
    const AttentionTiles tiles = build_attention_tiles(see, 3000, 16, 0);
    ASSERT_EQ(tiles.query_tiles.size(), 3u);
    for (int q = 0; q < 3; q++) EXPECT_EQ(tiles.query_tiles[size_t(q)].begin, 4 * q);
    // a causal text does share
    see.clear();
    for (int t = 0; t < 32; t++) see.push_back({{0, 0, 0}, {100 + t, 0, 0}});
    EXPECT_EQ(build_attention_tiles(see, 200, 16, 0).query_tiles.size(), 2u);
}

// Who sees a few slots begins no tile of its own, nor keeps those behind him out. The first noisy copies behind a
// text see their own block alone: each would have a tile, and the tiles behind them lie askew to the key tiles.
TEST(AttentionTiles, TokensOfFewSlotsShareATile) {
    std::vector<AttentionSpans> see;
    for (int t = 0; t < 64; t++) see.push_back({{0, 0, 0}, {t / 4 * 4 + 4, 0, 0}});
    for (int t = 0; t < 64; t++) see.push_back({{0, 64 + t / 4 * 4, 0}, {t / 4 * 4, 68 + t / 4 * 4, 0}});
    const AttentionTiles tiles = build_attention_tiles(see, 128, 32, 0);
    ASSERT_EQ(tiles.query_tiles.size(), 4u);
    for (int q = 0; q < 4; q++) EXPECT_EQ(tiles.query_tiles[size_t(q)].begin, 32 * q);
    // small sequences of a decoding batch together, each large one by itself
    see.clear();
    for (int sequence = 0; sequence < 4; sequence++)
        for (int row = 0; row < 4; row++)
            see.push_back({{1000 * sequence, 0, 0}, {1000 * sequence + (sequence < 2 ? 8 : 300), 0, 0}});
    std::vector<int> begins;
    for (const auto& tile : build_attention_tiles(see, 4000, 16, 0).query_tiles) begins.push_back(tile.begin);
    EXPECT_EQ(begins, (std::vector{0, 12}));
}

// Blocks that run at the same time should end at the same time; what a block is done with soon is not cut.
TEST(AttentionTiles, PiecesAreEven) {
    const auto lengths = [](int visits, int split) {
        const std::vector<AttentionSpans> see = {{{0, 0, 0}, {visits * KEY_TILE, 0, 0}}};
        std::vector<int> out;
        for (const auto& piece : build_attention_tiles(see, visits * KEY_TILE, 16, split).pieces)
            out.push_back(piece.end_visit - piece.first_visit);
        return out;
    };
    EXPECT_EQ(lengths(33, 16), (std::vector{11, 11, 11}));
    EXPECT_EQ(lengths(WHOLE_VISITS + 1, 2), (std::vector{2, 2, 2, 1}));
    EXPECT_EQ(lengths(WHOLE_VISITS, 2), std::vector{WHOLE_VISITS});
    EXPECT_EQ(lengths(100, 0), std::vector{100});
}

TEST(AttentionTiles, RefusesSlotsThatAreNotThere) {
    for (const auto& [begin, end] : {std::pair{-1, 3}, {0, 9}}) {
        const std::vector<AttentionSpans> see = {{{begin, 0, 0}, {end, 0, 0}}};
        EXPECT_THROW(build_attention_tiles(see, 8, 4, 0), Error);
    }
}
