#include "kernels/attention_tiles.h"

#include <algorithm>
#include <climits>
#include <cstring>
#include <numeric>

#include "utils/error.h"

// Who sees no more slots shares a tile with any neighbour: the key tile that he alone sees is one visit more,
// about what a tile of his own would take.
constexpr int FEW_SLOTS = KEY_TILE / 2;

namespace {

struct Range {  // half-open, of slots or of key tiles
    int begin, end;
};

// Tokens [begin, end) that see the same: those of a block.
struct Run {
    int begin, end;
    int64_t seen;  // slots
};

std::vector<Run> runs_of(std::span<const AttentionSpans> see, int n_slots) {
    std::vector<Run> runs;
    for (int t = 0; t < int(see.size()); t++) {
        const AttentionSpans& a = see[size_t(t)];
        if (t && memcmp(&a, &see[size_t(t) - 1], sizeof a) == 0) {
            runs.back().end++;
            continue;
        }
        runs.push_back({t, t + 1, 0});
        for (int i = 0; i < 3; i++) {
            if (a.begin[i] >= a.end[i]) continue;
            CHECK(a.begin[i] >= 0 && a.end[i] <= n_slots, "a token sees slots %d to %d of %d", a.begin[i],
                  a.end[i], n_slots);
            runs.back().seen += a.end[i] - a.begin[i];
        }
    }
    return runs;
}

int64_t seen_by_both(const AttentionSpans& a, const AttentionSpans& b) {
    int64_t sum = 0;
    for (int i = 0; i < 3; i++)
        for (int j = 0; j < 3; j++)
            sum += std::max(0, std::min(a.end[i], b.end[j]) - std::max(a.begin[i], b.begin[j]));
    return sum;
}

std::vector<AttentionTiles::QueryTile> cut_tokens(std::span<const AttentionSpans> see,
                                                  std::span<const Run> runs, int tile_tokens) {
    std::vector<AttentionTiles::QueryTile> tiles;
    AttentionSpans widest{};  // what the token of the last tile sees that sees the most
    int64_t most = 0;
    for (const Run& run : runs) {
        const AttentionSpans& now = see[size_t(run.begin)];
        int t = run.begin;
        if (!tiles.empty() && t - tiles.back().begin < tile_tokens &&
            (most <= FEW_SLOTS || 2 * seen_by_both(widest, now) >= most)) {
            t = std::min(run.end, tiles.back().begin + tile_tokens);
            tiles.back().end = t;
            if (run.seen > most) widest = now, most = run.seen;
        }
        for (; t < run.end; t = tiles.back().end) {  // new tiles
            tiles.push_back({t, std::min(run.end, t + tile_tokens), 0, 0});
            widest = now, most = run.seen;
        }
    }
    return tiles;
}

// Joins `r` to what it overlaps or touches of these, which are ascending and do neither among themselves.
void unite(std::vector<Range>& ranges, Range r) {
    auto first = ranges.begin();
    while (first != ranges.end() && first->end < r.begin) ++first;
    if (first == ranges.end() || r.end < first->begin) {
        ranges.insert(first, r);
        return;
    }
    auto last = first;  // behind what it joins
    while (last != ranges.end() && last->begin <= r.end) r.end = std::max(r.end, (last++)->end);
    *first = {std::min(first->begin, r.begin), r.end};
    ranges.erase(first + 1, last);
}

// A tile's visits. An object, so that the lists are allocated once for all tiles.
class VisitLister {
  public:
    // Appends the key tiles that any of the runs sees, ascending.
    void append(std::vector<AttentionTiles::Visit>& visits, std::span<const AttentionSpans> see,
                std::span<const Run> runs) {
        seen_.clear();
        for (const Run& run : runs) {
            look_at(see[size_t(run.begin)]);
            if (&run == runs.data())
                full_.swap(whole_);
            else
                intersect_full();
        }
        auto full = full_.begin();
        for (const Range& r : seen_)
            for (int k = r.begin; k < r.end; k++) {
                while (full != full_.end() && full->end <= k) ++full;
                visits.push_back({k, full != full_.end() && full->begin <= k});
            }
    }

  private:
    void look_at(const AttentionSpans& a) {
        slots_.clear(), whole_.clear();
        for (int i = 0; i < 3; i++)
            if (a.begin[i] < a.end[i]) unite(slots_, {a.begin[i], a.end[i]});
        for (const Range& r : slots_) {
            unite(seen_, {r.begin / KEY_TILE, (r.end + KEY_TILE - 1) / KEY_TILE});
            const Range whole{(r.begin + KEY_TILE - 1) / KEY_TILE, r.end / KEY_TILE};
            if (whole.begin < whole.end) whole_.push_back(whole);
        }
    }
    void intersect_full() {
        both_.clear();
        for (const Range& a : full_)
            for (const Range& b : whole_)
                if (const Range r{std::max(a.begin, b.begin), std::min(a.end, b.end)}; r.begin < r.end)
                    both_.push_back(r);
        full_.swap(both_);
    }

    // Of slots: what one run sees, spans that touch joined. Of key tiles: what any run sees, what every run sees all of,
    // what one does. All ascending.
    std::vector<Range> slots_, seen_, full_, whole_, both_;
};

constexpr auto MORE_VISITS = [](const auto& a, const auto& b) {
    return a.end_visit - a.first_visit > b.end_visit - b.first_visit;
};

// The visits as lists of the key tiles.
void turn(AttentionTiles& tiles, int n_slots) {
    const auto n_key_tiles = size_t((n_slots + KEY_TILE - 1) / KEY_TILE);
    tiles.first_query.assign(n_key_tiles + 1, 0);
    for (const auto& visit : tiles.keys) tiles.first_query[size_t(visit.tile) + 1]++;
    std::partial_sum(tiles.first_query.begin(), tiles.first_query.end(), tiles.first_query.begin());
    std::vector<int> next(tiles.first_query.begin(), tiles.first_query.end() - 1);
    tiles.queries.resize(tiles.keys.size());
    for (int q = 0; q < int(tiles.query_tiles.size()); q++)
        for (int v = tiles.query_tiles[size_t(q)].first_visit; v < tiles.query_tiles[size_t(q)].end_visit;
             v++) {
            const auto& visit = tiles.keys[size_t(v)];
            tiles.queries[size_t(next[size_t(visit.tile)]++)] = {q, visit.full};
        }
}

}  // namespace

AttentionTiles build_attention_tiles(std::span<const AttentionSpans> see, int n_slots, int tile_tokens,
                                     int split) {
    AttentionTiles r;
    const std::vector<Run> runs = runs_of(see, n_slots);
    r.query_tiles = cut_tokens(see, runs, tile_tokens);
    VisitLister lister;
    auto first_run = runs.begin(), end_run = first_run;  // of a tile
    for (int q = 0; q < int(r.query_tiles.size()); q++) {
        AttentionTiles::QueryTile& tile = r.query_tiles[size_t(q)];
        while (first_run->end <= tile.begin) ++first_run;
        while (end_run != runs.end() && end_run->begin < tile.end) ++end_run;
        tile.first_visit = int(r.keys.size());
        lister.append(r.keys, see, {first_run, end_run});
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
    turn(r, n_slots);
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
