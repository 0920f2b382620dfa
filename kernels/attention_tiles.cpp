#include "kernels/attention_tiles.h"

#include <algorithm>
#include <climits>

#include "utils/error.h"

// Who sees no more slots shares a tile with any neighbour: the key tile that he alone sees is one visit more,
// about what a tile of his own would take.
constexpr int FEW_SLOTS = KEY_TILE / 2;

static int64_t seen_by_both(const AttentionSpans& a, const AttentionSpans& b) {
    int64_t sum = 0;
    for (int i = 0; i < 3; i++)
        for (int j = 0; j < 3; j++)
            sum += std::max(0, std::min(a.end[i], b.end[j]) - std::max(a.begin[i], b.begin[j]));
    return sum;
}

static std::vector<AttentionTiles::QueryTile> cut_tokens(std::span<const AttentionSpans> see,
                                                         int tile_tokens) {
    std::vector<AttentionTiles::QueryTile> tiles;
    AttentionSpans widest{};  // what the token of the last tile sees that sees the most
    int64_t most = 0;
    for (int t = 0; t < int(see.size()); t++) {
        const AttentionSpans& now = see[size_t(t)];
        const int64_t seen = seen_by_both(now, now);
        if (!tiles.empty() && t - tiles.back().begin < tile_tokens &&
            (most <= FEW_SLOTS || 2 * seen_by_both(widest, now) >= most)) {
            tiles.back().end = t + 1;
            if (seen <= most) continue;
        } else {
            tiles.push_back({t, t + 1, 0, 0});
        }
        widest = now, most = seen;
    }
    return tiles;
}

// Slots of key tile k that `a` sees.
static int seen_in_tile(const AttentionSpans& a, int k) {
    int sum = 0;
    for (int i = 0; i < 3; i++)
        sum += std::max(0, std::min(a.end[i], (k + 1) * KEY_TILE) - std::max(a.begin[i], k * KEY_TILE));
    return sum;
}

// The key tiles that any of the tokens sees, ascending.
static std::vector<AttentionTiles::Visit> visits_of(std::span<const AttentionSpans> all) {
    std::vector<AttentionSpans>
        tokens;  // that see something else than the one before: the first of each block
    for (const AttentionSpans& a : all)
        if (tokens.empty() || !std::equal(a.begin, a.begin + 3, tokens.back().begin) ||
            !std::equal(a.end, a.end + 3, tokens.back().end))
            tokens.push_back(a);
    std::vector<std::pair<int, int>> ranges;  // of key tiles
    for (const AttentionSpans& a : tokens)
        for (int i = 0; i < 3; i++)
            if (a.begin[i] < a.end[i])
                ranges.push_back({a.begin[i] / KEY_TILE, (a.end[i] + KEY_TILE - 1) / KEY_TILE});
    std::sort(ranges.begin(), ranges.end());
    std::vector<AttentionTiles::Visit> visits;
    int next = 0;
    for (const auto& [begin, end] : ranges)
        for (int k = std::max(begin, next); k < end; k++, next = k) {
            const bool full = std::all_of(tokens.begin(), tokens.end(), [&](const AttentionSpans& a) {
                return seen_in_tile(a, k) == KEY_TILE;
            });
            visits.push_back({k, full});
        }
    return visits;
}

static constexpr auto MORE_VISITS = [](const auto& a, const auto& b) {
    return a.end_visit - a.first_visit > b.end_visit - b.first_visit;
};

AttentionTiles build_attention_tiles(std::span<const AttentionSpans> see, int n_slots, int tile_tokens,
                                     int split) {
    AttentionTiles r;
    for (const AttentionSpans& a : see)
        for (int i = 0; i < 3; i++)
            CHECK(a.begin[i] >= a.end[i] || (a.begin[i] >= 0 && a.end[i] <= n_slots),
                  "a token sees slots %d to %d of %d", a.begin[i], a.end[i], n_slots);
    r.query_tiles = cut_tokens(see, tile_tokens);
    std::vector<std::vector<AttentionTiles::Visit>> by_key(size_t((n_slots + KEY_TILE - 1) / KEY_TILE));
    for (int q = 0; q < int(r.query_tiles.size()); q++) {
        AttentionTiles::QueryTile& tile = r.query_tiles[size_t(q)];
        tile.first_visit = int(r.keys.size());
        for (const AttentionTiles::Visit& visit :
             visits_of(see.subspan(size_t(tile.begin), size_t(tile.end - tile.begin)))) {
            r.keys.push_back(visit);
            by_key[size_t(visit.tile)].push_back({q, visit.full});
        }
        tile.end_visit = int(r.keys.size());
        const int n = tile.end_visit - tile.first_visit;
        if (split == 0 || n <= std::max(split, WHOLE_VISITS)) {
            r.pieces.push_back({q, tile.first_visit, tile.end_visit, -1, tile.begin, tile.end});
            continue;
        }
        r.joins.push_back({q, r.parts, 0});
        const int pieces = (n + split - 1) / split;
        for (int64_t i = 0; i < pieces; i++)
            r.pieces.push_back({q, tile.first_visit + int(i * n / pieces),
                                tile.first_visit + int((i + 1) * n / pieces), r.parts++, tile.begin,
                                tile.end});
        r.joins.back().end_part = r.parts;
    }
    std::stable_sort(r.pieces.begin(), r.pieces.end(), MORE_VISITS);
    r.first_query.push_back(0);
    for (const auto& queries : by_key) {
        r.queries.insert(r.queries.end(), queries.begin(), queries.end());
        r.first_query.push_back(int(r.queries.size()));
    }
    return r;
}

// Two key tiles' lists of query tiles as one.
static void add_visits(std::vector<KeyPairs::Visit>& visits, const AttentionTiles& tiles, int pair) {
    int at[2], end[2];
    for (int i = 0; i < 2; i++) {
        const int key = std::min(2 * pair + i, tiles.n_key_tiles());  // behind the last: an empty list
        at[i] = tiles.first_query[size_t(key)];
        end[i] = tiles.first_query[size_t(std::min(key + 1, tiles.n_key_tiles()))];
    }
    while (at[0] < end[0] || at[1] < end[1]) {
        int query = INT_MAX, seen = 0, full = 0;
        for (int i = 0; i < 2; i++)
            if (at[i] < end[i]) query = std::min(query, tiles.queries[size_t(at[i])].tile);
        for (int i = 0; i < 2; i++)
            if (at[i] < end[i] && tiles.queries[size_t(at[i])].tile == query)
                seen |= 1 << i, full |= tiles.queries[size_t(at[i]++)].full << i;
        const AttentionTiles::QueryTile& tile = tiles.query_tiles[size_t(query)];
        visits.push_back({tile.begin, tile.end, seen, full});
    }
}

// A block of one more piece loads its keys and values and writes its partial sums: about as much as four visits.
constexpr int SHORTEST_PIECE = 16;

KeyPairs build_key_pairs(const AttentionTiles& tiles, int wanted, int most_parts) {
    KeyPairs r;
    std::vector<int> first(1, 0);
    for (int pair = 0; 2 * pair < tiles.n_key_tiles(); pair++) {
        add_visits(r.visits, tiles, pair);
        first.push_back(int(r.visits.size()));
    }
    for (int most = std::max(int(r.visits.size()) / std::max(wanted, 1), SHORTEST_PIECE);; most *= 2) {
        r.pieces.clear(), r.joins.clear(), r.parts = 0;
        for (int pair = 0; pair + 1 < int(first.size()); pair++) {
            const int begin = first[size_t(pair)], n = first[size_t(pair) + 1] - begin,
                      pieces = std::max((n + most - 1) / most, 1);
            if (pieces > 1) r.joins.push_back({pair, r.parts, r.parts + pieces});
            for (int i = 0; i < pieces; i++)
                r.pieces.push_back({pair, begin + int(int64_t(n) * i / pieces),
                                    begin + int(int64_t(n) * (i + 1) / pieces), pieces > 1 ? r.parts++ : -1});
        }
        if (r.parts <= most_parts) break;
    }
    std::stable_sort(r.pieces.begin(), r.pieces.end(), MORE_VISITS);
    return r;
}
