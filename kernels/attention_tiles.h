// attention_tiles.h -- which tiles of (query rows x slots) span attention has to look at. Host only, from the
// spans alone.
//
// Slots are cut into key tiles of KEY_TILE at multiples of KEY_TILE; tokens, in order, into query tiles of at
// most tile_tokens, and sooner where a token sees less than half of what the tile's widest token sees (another
// sequence of a decoding batch) and that is more than a few slots. A query tile lists the key tiles that any of
// its tokens sees; a key tile lists its query tiles, in order, for a backward pass without atomics.
#pragma once
#include <cstdint>
#include <span>
#include <vector>

#include "kernels/ops.h"

constexpr int KEY_TILE = 64;
// A query tile of at most so many key tiles is never cut: a block goes over two of them in about 1.2 us on an H200,
// and the kernel that joins pieces costs 2.5 to 3.
constexpr int WHOLE_VISITS = 6;

struct AttentionTiles {
    struct alignas(8) Visit {  // of a key tile by a query tile
        int tile;              // the other side's
        int full;  // every token of the query tile sees every slot of the key tile: no mask is needed
    };
    struct alignas(16) QueryTile {
        int begin, end;              // tokens
        int first_visit, end_visit;  // of `keys`
    };
    struct alignas(
        16) Piece {  // of a query tile's visits: a block takes one, or with wgmma one after another
        int query_tile, first_visit, end_visit;
        int part;        // where its result goes among the partial results; -1: the tile is not split
        int begin, end;  // the query tile's tokens
    };
    struct Join {  // of a split tile
        int query_tile, first_part, end_part;
    };
    std::vector<QueryTile> query_tiles;
    std::vector<Visit> keys;       // of all query tiles, tile = key tile
    std::vector<int> first_query;  // (key tiles + 1) into `queries`
    std::vector<Visit> queries;    // of all key tiles, tile = query tile
    std::vector<Piece> pieces;     // the most visits first, so that no block that starts late works long
    std::vector<Join> joins;
    int parts = 0;
    int n_key_tiles() const { return int(first_query.size()) - 1; }
};

// split: a query tile with more visits than that, and than WHOLE_VISITS, is cut into even pieces of at most that many;
// 0: none is.
AttentionTiles build_attention_tiles(std::span<const AttentionSpans> see, int n_slots, int tile_tokens,
                                     int split);

// Key tiles 2 i and 2 i + 1 together, and the query tiles that visit either: for a backward kernel whose blocks take as
// many slots.
struct KeyPairs {
    struct alignas(16) Visit {
        int begin, end;  // the query tile's tokens
        int seen;        // bit i: any of them sees a slot of key tile 2 pair + i
        int full;        // bit i: every one of them sees every slot of it
    };
    struct alignas(16) Piece {  // of a pair's visits, the work of one block
        int pair, first_visit, end_visit;
        int part;  // where its result goes among the partial results; -1: the pair is not split
    };
    struct Join {  // of a split pair
        int pair, first_part, end_part;
    };
    std::vector<Visit> visits;  // of all pairs, in the order of query tiles
    std::vector<Piece> pieces;  // the most visits first
    std::vector<Join> joins;
    int parts = 0;
};

// Pairs are cut into even pieces, so that no piece is longer than it would be if there were about `wanted` of all visits,
// but into no more than most_parts, and into none shorter than a piece is worth.
KeyPairs build_key_pairs(const AttentionTiles& tiles, int wanted, int most_parts);
