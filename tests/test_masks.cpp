// The states that a response is trained from, on examples worked out by hand and by their properties.
#include <gtest/gtest.h>

#include <set>

#include "tests/random_records.h"
#include "train/masks.h"

namespace {

using Ids = std::vector<int>;
constexpr int M = 99;

Record record(Ids prompt, Ids response, Ids steps, Ids tail = {}, Ids tail_steps = {}) {
    Record r;
    r.prompt_ids = std::move(prompt);
    r.response_ids = std::move(response);
    r.step_map = std::move(steps);
    r.tail_ids = std::move(tail);
    r.tail_steps = std::move(tail_steps);
    return r;
}

void expect_copy(const Copy& copy, int begin, const Ids& token, const Ids& target) {
    EXPECT_EQ(copy.begin, begin);
    EXPECT_EQ(copy.token, token);
    EXPECT_EQ(copy.target, target);
    EXPECT_FALSE(copy.causal);
}

SftExample example(int prompt_length, int n, int canvas = 0) {
    SftExample e;
    for (int i = 0; i < prompt_length; i++) e.prompt_ids.push_back(i);
    for (int i = 0; i < n; i++) e.response_ids.push_back(50 + i), e.step_map.push_back(1 + i / 2);
    e.canvas = canvas;
    return e;
}

}  // namespace

TEST(TraceSequence, OneCopyPerRevealStepOfABlock) {
    // Positions: prompt 0..4, response 5..8, tail 9..11. Blocks of 4: the prompt's tail is at 4.
    const Sequence s = trace_sequence(
        record({1, 2, 3, 4, 5}, {6, 7, 8, 9}, {2, 1, 1, 4}, {10, NEVER, 11}, {6, NEVER, 3}), {4, M}, 1);
    EXPECT_EQ(s.prompt_length, 5);
    ASSERT_EQ(s.copies.size(), 3u);
    expect_copy(s.copies[0], 4, {5, M, M, M}, {6, 7});
    expect_copy(s.copies[1], 4, {5, M, 7, 8}, {5});
    // Of the last block, step 3 reveals only a tail token: no copy. Step 6 likewise.
    expect_copy(s.copies[2], 8, {M, M, M, 11}, {8});
}

TEST(TraceSequence, MergedStepsAreSeenFromBeforeTheFirst) {
    const Record r = record({}, {6, 7, 8}, {3, 1, 6}, {10}, {4});
    const Sequence two = trace_sequence(r, {4, M}, 2);
    ASSERT_EQ(two.copies.size(), 2u);
    expect_copy(two.copies[0], 0, {M, M, M, M}, {0, 1});  // steps 1 and 3
    expect_copy(two.copies[1], 0, {6, 7, M, M}, {2});     // steps 4 (the tail's) and 6
    const Sequence three = trace_sequence(r, {4, M}, 3);
    ASSERT_EQ(three.copies.size(), 2u);
    expect_copy(three.copies[1], 0, {6, 7, M, 10}, {2});
    EXPECT_EQ(trace_sequence(r, {4, M}, 4).copies.size(), 1u);
    EXPECT_EQ(trace_sequence(r, {4, M}, 1).copies.size(), 3u);
}

TEST(TraceSequence, SilentTailStaysMasked) {
    const Sequence s = trace_sequence(record({1}, {6}, {1}), {4, M}, 1);
    ASSERT_EQ(s.copies.size(), 1u);
    expect_copy(s.copies[0], 0, {1, M, M, M}, {1});
}

TEST(TraceSequence, FullAttentionSeesTheWholeCanvas) {
    const Sequence s =
        trace_sequence(record({1, 2}, {6, 7, 8}, {4, 1, 2}, {9, NEVER}, {2, NEVER}), {0, M}, 1);
    ASSERT_EQ(s.copies.size(), 3u);
    expect_copy(s.copies[0], 0, {1, 2, M, M, M, M, M}, {3});
    expect_copy(s.copies[1], 0, {1, 2, M, 7, M, M, M}, {4});
    expect_copy(s.copies[2], 0, {1, 2, M, 7, 8, 9, M}, {2});
}

TEST(RandomMaskSequence, MasksWhatItTrainsAndComplementsCoverTheRest) {
    Rng rng(1, Stream::Mask);
    const ModelConfig c = random_model_config();
    for (const int block : {0, 1, 4, 5})
        for (const bool coupled : {false, true}) {
            const Record r = random_record(rng, c, block, 6, 11);
            const RandomMaskOptions o = {.m = 3, .coupled = coupled};
            const Sequence s = random_mask_sequence(r, {block, M}, o, rng);
            std::vector<int> times(17);
            int copies = 0;
            for (const Copy& copy : s.copies) {
                EXPECT_FALSE(copy.target.empty());
                const std::set<int> target(copy.target.begin(), copy.target.end());
                for (int i = copy.begin; i < copy.begin + int(copy.token.size()); i++) {
                    const bool shown = copy.token[size_t(i - copy.begin)] != M;
                    EXPECT_EQ(shown, i < 17 && !target.count(i)) << i;
                    if (shown) {
                        EXPECT_EQ(copy.token[size_t(i - copy.begin)],
                                  i < 6 ? r.prompt_ids[size_t(i)] : r.response_ids[size_t(i - 6)]);
                    }
                }
                for (const int i : copy.target) {
                    times[size_t(i)]++;
                    EXPECT_GE(i, 6);
                }
                copies++;
            }
            const int blocks = block ? (16 / block - 6 / block + 1) : 1;
            EXPECT_LE(copies, 3 * blocks * (coupled ? 2 : 1));
            EXPECT_GE(copies, 3 * blocks);
            for (int i = 6; coupled && i < 17; i++)
                EXPECT_EQ(times[size_t(i)], 3);  // every mask and its complement
        }
}

TEST(RandomMaskSequence, RatiosAreUniformOverTheirRange) {
    Rng rng(2, Stream::Mask);
    const Record r = record({1}, Ids(1000, 5), Ids(1000, 1));
    double sum = 0, squares = 0, per_token = 0;
    const int n = 300;
    for (int i = 0; i < n; i++) {
        const double share =
            double(random_mask_sequence(r, {0, M}, {.m = 1}, rng).copies[0].target.size()) / 1000;
        sum += share / n, squares += share * share / n;
        EXPECT_GT(share, 0.05);
        EXPECT_LT(share, 0.95);
        per_token +=
            double(
                random_mask_sequence(r, {0, M}, {.m = 1, .per_token = true}, rng).copies[0].target.size()) /
            1000 / n;
    }
    EXPECT_NEAR(sum, 0.5, 0.05);  // uniform in [0.1, 0.9]: standard deviation 0.231
    EXPECT_NEAR(squares - sum * sum, 0.231 * 0.231, 0.015);
    EXPECT_NEAR(per_token, 0.5, 0.01);
}

TEST(SftSequence, ShowsWhatIsNotMasked) {
    SftExample e = example(5, 4);  // ids 50..53 at positions 5..8
    e.copies = {{.masked = {0, 2}, .target = {0, 2}},
                {.masked = {3}, .target = {3}, .weight = 0.5},
                {.masked = {}, .target = {0, 3}, .causal = true}};
    const Sequence s = sft_sequence(e, {4, M});
    expect_copy(s.copies[0], 4, {4, M, 51, M}, {5, 7});
    expect_copy(s.copies[1], 8, {M, M, M, M}, {8});
    EXPECT_TRUE(s.copies[2].causal);
    EXPECT_EQ(s.copies[2].target, (Ids{5, 8}));
    EXPECT_EQ(sft_weights(e), (std::vector<double>{1, 1, 0.5, 1, 1}));
    e.canvas = 2;
    e.copies.resize(1);
    expect_copy(sft_sequence(e, {0, M}).copies[0], 0, {0, 1, 2, 3, 4, M, 51, M, 53, M, M}, {5, 7});
}

TEST(SftCopies, SemiAutoregressive) {
    Rng rng(3, Stream::Mask);
    const SftExample e = example(6, 13);
    for (const int block : {0, 4})
        for (const bool complementary : {false, true}) {
            const SftMaskOptions o = {.method = SftMethod::SemiAr,
                                      .block = 5,
                                      .weight_by_level = true,
                                      .complementary = complementary};
            std::vector<int> times(13);
            for (const SftCopy& c : sft_copies(e, {block, M}, o, rng)) {
                for (const int k : c.target) times[size_t(k)]++;
                // Every block sees what is before it and nothing after it.
                const int lo = block ? std::max((6 + c.target[0]) / 4 * 4 - 6, 0) : c.target[0] / 5 * 5,
                          hi = block ? (6 + c.target[0]) / 4 * 4 - 2 : lo + 5;
                EXPECT_GE(c.target[0], lo);
                EXPECT_LT(c.target.back(), hi);
                const std::set<int> masked(c.masked.begin(), c.masked.end());
                for (int k = 0; k < 13; k++) {
                    if (k < lo) {
                        EXPECT_FALSE(masked.count(k));
                    }
                    if (k >= hi && block == 0) {
                        EXPECT_TRUE(masked.count(k));
                    }
                }
                for (const int k : c.target) EXPECT_TRUE(masked.count(k));
                EXPECT_GE(c.weight, 1 / 0.9 - 1e-9);
                EXPECT_LE(c.weight, 10 + 1e-9);
            }
            for (const int n : times) EXPECT_LE(n, 1);
            EXPECT_TRUE(!complementary || *std::min_element(times.begin(), times.end()) == 1);
        }
}

// However low the level is, a block trains one token.
TEST(SftCopies, ABlockIsNeverWithoutAMask) {
    Rng rng(6, Stream::Mask);
    const SftExample e = example(6, 18);  // 5 blocks
    for (int i = 0; i < 20; i++) {
        const std::vector<SftCopy> copies =
            sft_copies(e, {4, M}, {.method = SftMethod::SemiAr, .low = 1e-9, .high = 1e-9}, rng);
        EXPECT_EQ(copies.size(), 5u);
        for (const SftCopy& c : copies) EXPECT_EQ(c.target.size(), 1u);
    }
}

TEST(SftCopies, LevelsAreStratified) {
    // 8 blocks: one level in every eighth of [0.1, 0.9], so the masked share of each sequence is close to a
    // half.
    Rng rng(4, Stream::Mask);
    const SftExample e = example(0, 8 * 64);
    for (int i = 0; i < 20; i++) {
        const SftMaskOptions o = {.method = SftMethod::SemiAr};
        size_t masked = 0;
        std::set<int> eighths;
        for (const SftCopy& c : sft_copies(e, {64, M}, o, rng)) masked += c.target.size();
        EXPECT_NEAR(double(masked) / (8 * 64), 0.5, 0.09);
    }
}

TEST(SftCopies, RandomMaskHasOneLevelForAll) {
    Rng rng(5, Stream::Mask);
    const SftExample e = example(3, 400);
    double least = 1, most = 0;
    for (int i = 0; i < 60; i++) {
        const std::vector<SftCopy> c = sft_copies(e, {0, M}, {.method = SftMethod::RandomMask}, rng);
        ASSERT_EQ(c.size(), 1u);
        EXPECT_EQ(c[0].masked, c[0].target);
        least = std::min(least, double(c[0].target.size()) / 400);
        most = std::max(most, double(c[0].target.size()) / 400);
    }
    EXPECT_LT(least, 0.2);
    EXPECT_GT(most, 0.8);
}

TEST(SftCopies, TraceIsTheTraceOfItsStepMap) {
    Rng rng(6, Stream::Mask);
    const ModelConfig c = random_model_config();
    for (const int block : {0, 1, 4, 6})
        for (const int shrink : {1, 2, 3}) {
            Record r = random_record(rng, c, block, 7, 12);
            r.tail_ids.clear();
            r.tail_steps.clear();
            SftExample e;
            e.prompt_ids = r.prompt_ids;
            e.response_ids = r.response_ids;
            e.step_map = r.step_map;
            e.copies = sft_copies(e, {block, M}, {.method = SftMethod::Trace, .shrink = shrink}, rng);
            const Sequence got = sft_sequence(e, {block, M}), want = trace_sequence(r, {block, M}, shrink);
            ASSERT_EQ(got.copies.size(), want.copies.size());
            for (size_t i = 0; i < got.copies.size(); i++)
                expect_copy(got.copies[i], want.copies[i].begin, want.copies[i].token, want.copies[i].target);
        }
}

TEST(SftCopies, AutoregressiveTrainsEveryTokenOnce) {
    Rng rng(7, Stream::Mask);
    const std::vector<SftCopy> c = sft_copies(example(2, 3), {4, M}, {.method = SftMethod::Ar}, rng);
    ASSERT_EQ(c.size(), 1u);
    EXPECT_TRUE(c[0].causal);
    EXPECT_EQ(c[0].target, (Ids{0, 1, 2}));
    EXPECT_EQ(sft_copies(example(0, 3), {4, M}, {.method = SftMethod::Ar}, rng)[0].target,
              (Ids{1, 2}));  // nothing comes before the first
}
