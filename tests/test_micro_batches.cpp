// How sequences are cut into micro-batches.
#include <gtest/gtest.h>

#include <set>

#include "tests/dense_pass.h"
#include "tests/random_records.h"
#include "train/masks.h"
#include "train/update.h"

TEST(MicroBatches, EveryResponseOnceWithinTheBudget) {
    Rng rng(16, Stream::Mask);
    const ModelConfig c = random_model_config();
    std::vector<Sequence> sequences;
    std::vector<std::vector<int>> prompts;
    for (int g = 0; g < 5; g++) prompts.push_back(random_record(rng, c, 4, 13, 1).prompt_ids);
    prompts[0][0] = c.V - 2, prompts[3][0] = 0;  // the first group is not the first by its ids
    for (int k = 0; k < 40; k++) {
        Record r = random_record(rng, c, 4, 13, 1 + int(rng.below(14)));
        r.prompt_ids = prompts[size_t(k % 5)];  // groups interleaved
        sequences.push_back(trace_sequence(r, {4, c.mask_id}, 1));
    }
    const MicroBatchLimits limits = {150, 60};
    std::set<int> seen;
    size_t cuts = 0;
    for (const std::vector<Part>& parts : cut_micro_batches(sequences, 4, limits)) {
        for (const Part& part : parts) {
            EXPECT_TRUE(seen.insert(part.sequence).second);
            EXPECT_EQ(part.end - part.begin, int(sequences[size_t(part.sequence)].copies.size()))
                << "it is whole";
        }
        const PackedBatch packed = pack(parts_of(sequences, parts), 4, false);
        EXPECT_LE(packed.batch.T(), limits.max_tokens);
        EXPECT_LE(packed.batch.n_targets(), limits.max_targets);
        cuts++;
    }
    EXPECT_EQ(seen.size(), sequences.size());
    EXPECT_GT(cuts, 5u);
    // A budget that they fill exactly is enough, a token or a target less is not.
    const PackedBatch all = pack(sequences, 4, false);
    const int T = all.batch.T(), N = all.batch.n_targets();
    EXPECT_EQ(cut_micro_batches(sequences, 4, {T, N}).size(), 1u);
    EXPECT_EQ(cut_micro_batches(sequences, 4, {T - 1, N}).size(), 2u);
    EXPECT_EQ(cut_micro_batches(sequences, 4, {T, N - 1}).size(), 2u);
    // With room for everything each prompt is forwarded once.
    const auto one = cut_micro_batches(sequences, 4, {100000, 100000});
    ASSERT_EQ(one.size(), 1u);
    int last = -1;
    std::set<int> finished;
    for (const Part& part : one[0]) {  // groups stand together
        const int group = part.sequence % 5;
        if (group != last) {
            EXPECT_TRUE(finished.insert(group).second);
        }
        last = group;
    }
}

// Under full attention copies stand alone: every one once, in order, as many as fit.
TEST(MicroBatches, FullAttentionIsCutBetweenCopies) {
    Rng rng(19, Stream::Mask);
    const ModelConfig c = random_family_config(Family::Llada, 4);
    std::vector<Sequence> sequences;
    for (int k = 0; k < 6; k++)
        sequences.push_back(trace_sequence(random_record(rng, c, 0, 5, 12), {0, c.mask_id}, 1));
    const MicroBatchLimits need = needed_limits(sequences, 0);
    int longest = 0, copies = 0;
    for (const Sequence& s : sequences)
        for (const Copy& copy : s.copies) longest = std::max(longest, int(copy.token.size())), copies++;
    EXPECT_EQ(need.max_tokens, longest);
    for (const MicroBatchLimits& limits : {need, MicroBatchLimits{2 * longest + 1, 1000}, {100000, 100000}}) {
        const auto cut = cut_micro_batches(sequences, 0, limits);
        int sequence = 0, next = 0, first_target = 0, seen = 0;
        for (const std::vector<Part>& parts : cut) {
            EXPECT_LE(pack(parts_of(sequences, parts), 0, false).batch.T(), limits.max_tokens);
            for (const Part& part : parts) {
                if (part.sequence != sequence) sequence++, next = first_target = 0;
                EXPECT_EQ(part.sequence, sequence);
                EXPECT_EQ(part.begin, next);
                EXPECT_EQ(part.first_target, first_target);
                next = part.end, first_target += part.n_targets, seen += part.end - part.begin;
            }
        }
        EXPECT_EQ(seen, copies);
        EXPECT_EQ(cut.size() == 1, limits.max_tokens == 100000);
    }
    EXPECT_EQ(cut_micro_batches(sequences, 0, {2 * longest + 1, 1000}).size(), size_t(copies + 1) / 2);
}

TEST(MicroBatches, AResponseBeyondTheBudgetIsAnErrorWithNumbers) {
    Rng rng(17, Stream::Mask);
    const ModelConfig c = random_model_config();
    const std::vector<Sequence> sequences = {
        trace_sequence(random_record(rng, c, 4, 4, 2), {4, c.mask_id}, 1),
        trace_sequence(random_record(rng, c, 4, 4, 30), {4, c.mask_id}, 1)};
    const int need = int(packed_tokens({&sequences[1], 1}, 4));
    try {
        cut_micro_batches(sequences, 4, {need - 1, 1000});
        FAIL();
    } catch (const Error& e) {
        EXPECT_EQ(e.code, Exit::Usage);
        for (const std::string& part : {std::string("response 2"), format("%d tokens", need),
                                        format("%d", need - 1), std::string("--token-budget")})
            EXPECT_NE(std::string(e.what()).find(part), std::string::npos) << e.what();
    }
    EXPECT_EQ(needed_limits(sequences, 4).max_tokens, need);
    EXPECT_EQ(cut_micro_batches(sequences, 4, needed_limits(sequences, 4)).size(), 2u);
}
