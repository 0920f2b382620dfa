// The layouts against their definition, row by row: what a row's key and value are depends on its id, its
// position and, through what it sees, on the same of others. So a layout is right if every row that is seen
// is, recursively, the row it should be.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <set>

#include "model/layout.h"
#include "utils/philox.h"

namespace {

constexpr int MASK = 999;

std::vector<int> visible_rows(const TokenBatch& b, int row) {
    std::vector<int> rows;
    for (int i = 0; i < 3; i++)
        for (int r = b.see[size_t(row)].begin[i]; r < b.see[size_t(row)].end[i]; r++) rows.push_back(r);
    return rows;
}

// `rows` must be one row for every position 0..ids.size()-1, with these ids; sorted by position.
void expect_text(const TokenBatch& b, std::vector<int>& rows, const std::vector<int>& ids) {
    ASSERT_EQ(rows.size(), ids.size());
    std::sort(rows.begin(), rows.end(),
              [&](int x, int y) { return b.position[size_t(x)] < b.position[size_t(y)]; });
    for (size_t i = 0; i < ids.size(); i++) {
        ASSERT_EQ(b.position[size_t(rows[i])], int(i));
        ASSERT_EQ(b.token[size_t(rows[i])], ids[i]);
    }
}

std::vector<int> first(const std::vector<int>& v, int n) { return {v.begin(), v.begin() + n}; }

// A clean row of position p sees the clean text up to the end of its block, each of these rows a clean row in
// turn.
void expect_clean(const TokenBatch& b, int row, const Sequence& s, int block, std::set<int>& done) {
    if (!done.insert(row).second) return;
    const int p = b.position[size_t(row)];
    ASSERT_EQ(b.token[size_t(row)], s.token[size_t(p)]);
    std::vector<int> rows = visible_rows(b, row);
    expect_text(b, rows, first(s.token, (p / block + 1) * block));
    for (const int r : rows) expect_clean(b, r, s, block, done);
}

void expect_packed(const std::vector<Sequence>& sequences, int block, bool shift) {
    const PackedBatch packed = pack(sequences, block, shift);
    const TokenBatch& b = packed.batch;
    ASSERT_EQ(b.T(), packed_tokens(sequences, block));
    ASSERT_EQ(b.target_row.size(), packed.target.size());
    for (int i = 0; i < b.T(); i++) ASSERT_EQ(b.slot[size_t(i)], i);
    size_t t = 0;
    for (int si = 0; si < int(sequences.size()); si++) {
        const Sequence& s = sequences[size_t(si)];
        std::set<int> clean_done;
        for (int ci = 0; ci < int(s.copies.size()); ci++) {
            const Copy& c = s.copies[size_t(ci)];
            for (const int position : c.target) {
                ASSERT_LT(t, packed.target.size());
                EXPECT_EQ(packed.target[t].sequence, si);
                EXPECT_EQ(packed.target[t].copy, ci);
                EXPECT_EQ(packed.target[t].position, position);
                const int row = b.target_row[t++], own = position - (shift || c.causal);
                ASSERT_EQ(b.position[size_t(row)], own);
                std::vector<int> rows = visible_rows(b, row);
                if (c.causal) {
                    expect_text(b, rows, first(s.token, own + 1));
                    continue;
                }
                std::vector<int> ids = first(s.token, c.begin);
                ids.insert(ids.end(), c.token.begin(), c.token.end());
                expect_text(b, rows, ids);
                for (const int r : rows) {
                    if (b.position[size_t(r)] < c.begin)
                        expect_clean(b, r, s, block, clean_done);
                    else  // the copy's own rows all see the same
                        ASSERT_EQ(memcmp(&b.see[size_t(r)], &b.see[size_t(row)], sizeof(AttentionSpans)), 0);
                }
            }
        }
    }
    ASSERT_EQ(t, packed.target.size());
}

// Random copies of a random sequence, as a trace would leave them.
Sequence random_sequence(Rng& rng, int block, std::vector<int> prompt, int response, bool shift) {
    Sequence s;
    s.prompt_length = int(prompt.size());
    s.token = prompt;
    for (int i = 0; i < response; i++) s.token.push_back(int(rng.below(50)));
    const int n = int(s.token.size());
    const int size = block ? block : n, start = block ? s.prompt_length / block * block : 0;
    for (int begin = start; begin < n; begin += size) {
        const int copies = int(rng.below(3)) + (begin == start);
        for (int k = 0; k < copies; k++) {
            Copy c{.begin = begin, .token = {}, .target = {}};
            for (int i = begin; i < begin + size; i++) {
                const bool masked = i >= n || (i >= s.prompt_length && rng.below(2));
                c.token.push_back(masked ? MASK : s.token[size_t(i)]);
                if (masked && i < n && i >= int(shift) && rng.below(2)) c.target.push_back(i);
            }
            s.copies.push_back(c);
        }
    }
    return s;
}

}  // namespace

TEST(Layout, EveryRowIsWhatItShouldBe) {
    Rng rng(7, Stream::Task);
    for (int round = 0; round < 60; round++) {
        const int block = int(rng.below(9));  // 0: full attention
        const bool shift = block == 0 && round % 2;
        std::vector<Sequence> sequences;
        std::vector<int> prompt;
        for (int i = 0; i < 4; i++) {
            if (i % 2 == 0) {  // every second sequence has the prompt of the one before, up to its tail
                prompt.clear();
                for (int k = int(rng.below(20)) + 1; k > 0; k--) prompt.push_back(int(rng.below(50)));
            } else if (block && int(prompt.size()) % block) {
                prompt.back()++;
            }
            sequences.push_back(random_sequence(rng, block, prompt, int(rng.below(20)) + 1, shift));
        }
        expect_packed(sequences, block, shift);
    }
}

TEST(Layout, CausalCopies) {
    Sequence s{.token = {5, 6, 7, 8, 9}, .prompt_length = 2, .copies = {}};
    s.copies.push_back({.begin = 0, .token = {}, .target = {2, 3, 4}, .causal = true});
    expect_packed({s}, 4, false);
    expect_packed({s}, 0, true);
    EXPECT_EQ(packed_tokens(std::vector{s}, 4), 5);
}

TEST(Layout, PromptIsSharedAndLastBlockHasNoCleanCopy) {
    // Prompt of 9 tokens at B = 4: 8 are shared. Response 7: blocks [8, 12) and [12, 16), two copies each.
    Sequence s;
    for (int i = 0; i < 16; i++) s.token.push_back(i);
    s.prompt_length = 9;
    for (const int begin : {8, 8, 12, 12})
        s.copies.push_back({.begin = begin, .token = {MASK, MASK, MASK, MASK}, .target = {begin + 1}});
    // P + sum (L_r + B * steps_r): the last block, [12, 16), is not among the clean tokens.
    EXPECT_EQ(packed_tokens(std::vector{s}, 4), 8 + 4 + 16);
    EXPECT_EQ(packed_tokens(std::vector{s, s, s}, 4), 8 + 3 * (4 + 16));
    // Another prompt tail shares; another whole block does not.
    Sequence tail = s, other = s;
    tail.token[8] = 77;
    other.token[7] = 77;
    EXPECT_EQ(packed_tokens(std::vector{s, tail}, 4), 8 + 2 * 20);
    EXPECT_EQ(packed_tokens(std::vector{s, other}, 4), 2 * (8 + 20));
}
