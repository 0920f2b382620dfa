#include <gtest/gtest.h>

#include <set>

#include "model/layout_generate.h"

namespace {

// What the rows of a batch look at, as positions of the sequence that `at` describes.
std::vector<std::set<int>> seen_positions(const TokenBatch& batch, const SequenceSlots& at, int length) {
    std::vector<std::set<int>> out;
    for (const AttentionSpans& see : batch.see) {
        std::set<int> positions;
        for (int s = 0; s < 3; s++)
            for (int slot = see.begin[s]; slot < see.end[s]; slot++)
                for (int p = 0; p < length; p++)
                    if (slot == (p < at.shared ? at.prefix + p : at.own + p - at.shared)) positions.insert(p);
        out.push_back(positions);
    }
    return out;
}

std::set<int> up_to(int n) {
    std::set<int> out;
    for (int i = 0; i < n; i++) out.insert(i);
    return out;
}

}  // namespace

// Row by row against the dense definition: position p of block b sees every position of blocks <= b.
TEST(LayoutGenerate, EqualsTheBlockCausalMask) {
    for (int B : {1, 2, 3, 4, 8})
        for (int P = 0; P <= 2 * B + 1; P++) {
            const int shared = P / B * B, length = shared + 2 * B;
            const SequenceSlots at = {.shared = shared, .prefix = 100, .own = 300};
            std::vector<int> ids;
            for (int i = 0; i < length; i++) ids.push_back(1000 + i);
            TokenBatch batch;
            const std::span<const int> all(ids);
            EXPECT_EQ(add_prompt(batch, all, 0, shared, B, at.prefix), 0);
            EXPECT_EQ(add_block(batch, all.subspan(size_t(shared), size_t(B)), shared, at),
                      shared);  // committed,
            EXPECT_EQ(add_block(batch, all.subspan(size_t(shared + B), size_t(B)), shared + B, at),
                      shared + B);  // denoised
            ASSERT_EQ(batch.T(), length);
            const auto seen = seen_positions(batch, at, length);
            for (int p = 0; p < length; p++) {
                EXPECT_EQ(batch.token[size_t(p)], 1000 + p);
                EXPECT_EQ(batch.position[size_t(p)], p);
                EXPECT_EQ(batch.slot[size_t(p)], p < shared ? 100 + p : 300 + p - shared);
                EXPECT_EQ(seen[size_t(p)], up_to((p / B + 1) * B))
                    << "B=" << B << " P=" << P << " position " << p;
            }
        }
}

TEST(LayoutGenerate, APromptInSeveralPassesIsTheWholePrompt) {
    std::vector<int> ids(12, 7);
    TokenBatch whole, parts;
    add_prompt(whole, ids, 0, 12, 4, 50);
    add_prompt(parts, ids, 0, 4, 4, 50);
    add_prompt(parts, ids, 4, 12, 4, 50);
    EXPECT_EQ(whole.slot, parts.slot);
    EXPECT_EQ(whole.position, parts.position);
    for (int i = 0; i < 12; i++)
        for (int s = 0; s < 3; s++) {
            EXPECT_EQ(whole.see[size_t(i)].begin[s], parts.see[size_t(i)].begin[s]);
            EXPECT_EQ(whole.see[size_t(i)].end[s], parts.see[size_t(i)].end[s]);
        }
}

TEST(LayoutGenerate, ACanvasSeesAllOfItself) {
    std::vector<int> ids(7, 3);
    TokenBatch batch;
    const SequenceSlots at = {.shared = 0, .prefix = 0, .own = 20};
    add_block(batch, ids, 0, at);
    for (const auto& seen : seen_positions(batch, at, 7)) EXPECT_EQ(seen, up_to(7));
}

TEST(LayoutGenerate, ABlockSeesWhatIsBehindItWhereItIsToldTo) {
    std::vector<int> ids(3, 3);
    TokenBatch batch;
    const SequenceSlots at = {.shared = 0, .prefix = 0, .own = 20};
    add_block(batch, ids, 2, at);
    add_block(batch, ids, 2, at, 4);
    const auto seen = seen_positions(batch, at, 12);
    for (size_t i = 0; i < 3; i++) {
        EXPECT_EQ(batch.slot[i], 22 + int(i));
        EXPECT_EQ(batch.slot[3 + i], 22 + int(i));
        EXPECT_EQ(seen[i], up_to(5));
        EXPECT_EQ(seen[3 + i], up_to(9));
    }
}

TEST(LayoutGenerate, SpansOfOneRowAreDisjoint) {
    std::vector<int> ids(4, 3);
    TokenBatch batch;
    add_block(batch, ids, 12, {.shared = 8, .prefix = 40, .own = 0});
    const AttentionSpans& see = batch.see[0];
    EXPECT_EQ(see.end[0] - see.begin[0], 8);
    EXPECT_EQ(see.end[1] - see.begin[1], 4);
    EXPECT_EQ(see.end[2] - see.begin[2], 4);
    EXPECT_EQ(see.end[1], see.begin[2]);
    EXPECT_EQ(visible_pairs(batch), 4 * 16);
}
