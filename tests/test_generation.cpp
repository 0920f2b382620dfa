// Limits, stops and tails as tables: candidates made by hand, no network.
#include <gtest/gtest.h>

#include "inference/generation.h"

namespace {

ModelConfig block_model() {
    ModelConfig c;
    c.V = 100;
    c.mask_id = 99;
    return c;
}
ModelConfig canvas_model() {
    ModelConfig c = block_model();
    c.full_attention = true;
    return c;
}

struct Case {
    int prompt_length, gen_length, block, steps;
    std::vector<int> stop_ids;
};

Request request_of(const Case& c) {
    Request r;
    for (int i = 0; i < c.prompt_length; i++) r.prompt_ids.push_back(50 + i % 10);
    r.options.gen_length = c.gen_length;
    r.options.block = c.block;
    r.options.steps = c.steps;
    r.options.remasking = Remasking::LowConfidenceStatic;
    r.options.stop_ids = c.stop_ids;
    return r;
}

// Candidate of position p: the id p (prompt ids are 50..59); confidence as `sure` says, by position.
std::vector<Sampled> candidates(const Generation& s, float (*sure)(int)) {
    std::vector<Sampled> out;
    for (const int p : s.masked()) out.push_back({p, sure(p), -float(p), float(p) / 4});
    return out;
}
float left_first(int p) { return 1 - 0.001f * float(p); }
float right_first(int p) { return 0.5f + 0.001f * float(p); }

// One reveal step from these candidates, decided as the engine has it decided.
void step(Generation& s, std::vector<Sampled> sampled) {
    std::vector<RevealTarget> targets;
    for (size_t i = 0; i < sampled.size(); i++) targets.push_back({.ends = s.ends_at(i)});
    RevealBlock block = s.reveal_block();
    std::vector<SampleRow> rows(sampled.size());
    int status[STATUS_INTS] = {1, 0, 1, 1}, none = 0;
    make_cpu_ops()->reveal_blocks({.targets = records(targets.data(), int64_t(targets.size())),
                                   .blocks = records(&block, 1),
                                   .rows = records(rows.data(), int64_t(rows.size())),
                                   .sampled = records(sampled.data(), int64_t(sampled.size())),
                                   .stops = tensor(&none, 1, 0, DType::I32),
                                   .token = {},
                                   .status = tensor(status, 1, STATUS_INTS, DType::I32)});
    s.reveal(targets, 1);
}

Trajectory run(const Case& c, const ModelConfig& config, float (*sure)(int)) {
    const Request r = request_of(c);
    Generation s(r, config);
    while (!s.finished()) step(s, candidates(s, sure));
    return s.trajectory();
}

using Ids = std::vector<int>;

}  // namespace

TEST(Generation, TheLimitIsExactInsideABlock) {
    // Prompt 3, blocks of 4: position 3 is left in the first block, the limit (8) ends at a block's end.
    Trajectory t = run({3, 5, 4, 4, {}}, block_model(), left_first);
    EXPECT_EQ(t.output_ids, (Ids{3, 4, 5, 6, 7}));
    EXPECT_EQ(t.step_map, (Ids{1, 2, 3, 4, 5}));
    EXPECT_EQ(t.tail_ids, (Ids{}));
    EXPECT_EQ(t.finish_reason, "length");
    EXPECT_EQ(t.denoise_steps, 5);
    EXPECT_EQ(t.logprobs, (std::vector<float>{-3, -4, -5, -6, -7}));
    // One more: the second block [8, 12) holds one output token, its rest is tail.
    t = run({3, 6, 4, 4, {}}, block_model(), left_first);
    EXPECT_EQ(t.output_ids, (Ids{3, 4, 5, 6, 7, 8}));
    EXPECT_EQ(t.tail_ids, (Ids{NEVER, NEVER, NEVER}));
    EXPECT_EQ(t.denoise_steps, 6);
    EXPECT_DOUBLE_EQ(t.entropy, 5.5 / 4);  // of positions 3 to 8, tail left out
    // The same from the right: everything behind the limit is revealed before it.
    t = run({3, 6, 4, 4, {}}, block_model(), right_first);
    EXPECT_EQ(t.step_map, (Ids{1, 5, 4, 3, 2, 9}));
    EXPECT_EQ(t.tail_ids, (Ids{9, 10, 11}));
    EXPECT_EQ(t.tail_steps, (Ids{8, 7, 6}));
}

TEST(Generation, AStopWaitsForEverythingBeforeIt) {
    // Block [4, 8), stop id 6, from the right: 7, 6, 5, 4.
    Trajectory t = run({4, 12, 4, 4, {6}}, block_model(), right_first);
    EXPECT_EQ(t.output_ids, (Ids{4, 5, 6}));
    EXPECT_EQ(t.step_map, (Ids{4, 3, 2}));
    EXPECT_EQ(t.tail_ids, (Ids{7}));
    EXPECT_EQ(t.tail_steps, (Ids{1}));
    EXPECT_EQ(t.finish_reason, "stop");
    // From the left it ends at once, the rest of the block stays masked.
    t = run({4, 12, 4, 4, {6}}, block_model(), left_first);
    EXPECT_EQ(t.output_ids, (Ids{4, 5, 6}));
    EXPECT_EQ(t.tail_ids, (Ids{NEVER}));
    EXPECT_EQ(t.tail_steps, (Ids{NEVER}));
    EXPECT_EQ(t.denoise_steps, 3);
    // Two at once: the first of them counts.
    t = run({4, 12, 4, 1, {5, 7}}, block_model(), left_first);
    EXPECT_EQ(t.output_ids, (Ids{4, 5}));
    EXPECT_EQ(t.tail_ids, (Ids{6, 7}));
    EXPECT_EQ(t.tail_steps, (Ids{1, 1}));
}

TEST(Generation, StopsInThePromptAndPastTheLimitDoNotCount) {
    Trajectory t = run({6, 2, 4, 4, {50, 51, 52, 53, 54, 55}}, block_model(), left_first);
    EXPECT_EQ(t.finish_reason, "length");
    // The limit is 6; the stop id 7 comes first, at a position behind it.
    t = run({4, 2, 4, 4, {7}}, block_model(), right_first);
    EXPECT_EQ(t.finish_reason, "length");
    EXPECT_EQ(t.output_ids, (Ids{4, 5}));
    EXPECT_EQ(t.tail_ids, (Ids{6, 7}));
    // A stop on the last position before the limit is a stop.
    t = run({4, 2, 4, 4, {5}}, block_model(), left_first);
    EXPECT_EQ(t.finish_reason, "stop");
}

TEST(Generation, MaskTextInAPromptStaysText) {
    Request r = request_of({3, 1, 4, 4, {}});
    r.prompt_ids = {99, 99, 99};
    Generation s(r, block_model());
    EXPECT_EQ(s.masked(), (Ids{3}));
    EXPECT_EQ(s.ids(0, 4), (Ids{99, 99, 99, 99}));
    step(s, candidates(s, left_first));
    EXPECT_TRUE(s.finished());
    EXPECT_EQ(s.trajectory().output_ids, (Ids{3}));
}

TEST(Generation, BlocksStartAtAbsolutePositionZeroAndCommitBeforeTheNext) {
    const Request r = request_of({5, 20, 4, 2, {}});
    Generation s(r, block_model());
    EXPECT_EQ(s.shared(), 4);
    EXPECT_EQ(s.n_positions(), 28);
    EXPECT_EQ(s.begin(), 4);
    EXPECT_EQ(s.end(), 8);
    EXPECT_EQ(s.commit_begin(), -1);
    EXPECT_EQ(s.masked(), (Ids{5, 6, 7}));
    EXPECT_EQ(s.ids(4, 8), (Ids{54, 99, 99, 99}));
    step(s, candidates(s, left_first));  // two of three
    EXPECT_EQ(s.masked(), (Ids{7}));
    EXPECT_EQ(s.ids(4, 8), (Ids{54, 5, 6, 99}));
    step(s, candidates(s, left_first));  // one left, though n(1) is 2
    EXPECT_EQ(s.begin(), 8);
    EXPECT_EQ(s.commit_begin(), 4);
    EXPECT_EQ(s.commit_end(), 8);
    EXPECT_EQ(s.settled().size(), 4u);
    s.committed();
    EXPECT_EQ(s.commit_begin(), s.commit_end());
    EXPECT_EQ(s.settled().size(), 8u);
}

TEST(Generation, AnInterruptedResponseKeepsWhatIsThere) {
    const Request r = request_of({4, 12, 4, 4, {}});
    Generation s(r, block_model());
    step(s, candidates(s, right_first));
    Trajectory t = s.trajectory();
    EXPECT_EQ(t.finish_reason, "interrupted");
    EXPECT_EQ(t.output_ids, (Ids{}));
    EXPECT_EQ(t.tail_ids, (Ids{NEVER, NEVER, NEVER, 7}));
    for (int i = 0; i < 3; i++) step(s, candidates(s, right_first));
    t = s.trajectory();  // a block is done, the next not begun: no tail
    EXPECT_EQ(t.output_ids, (Ids{4, 5, 6, 7}));
    EXPECT_EQ(t.tail_ids, (Ids{}));
}

TEST(Generation, ACanvasHasItsBlocksFromTheEndOfThePrompt) {
    const Request r = request_of({5, 6, 4, 4, {}});
    Generation s(r, canvas_model());
    EXPECT_EQ(s.shared(), 0);
    EXPECT_EQ(s.n_positions(), 11);
    EXPECT_EQ(s.begin(), 5);
    EXPECT_EQ(s.end(), 9);
    EXPECT_EQ(s.masked(), (Ids{5, 6, 7, 8}));
    Trajectory t = run({5, 6, 4, 4, {6}}, canvas_model(), right_first);
    EXPECT_EQ(t.output_ids, (Ids{5, 6}));
    EXPECT_EQ(t.tail_ids, (Ids{7, 8, NEVER, NEVER}));
    EXPECT_EQ(t.tail_steps, (Ids{2, 1, NEVER, NEVER}));
    t = run({5, 6, 4, 4, {}}, canvas_model(), left_first);
    EXPECT_EQ(t.output_ids, (Ids{5, 6, 7, 8, 9, 10}));
    EXPECT_EQ(t.finish_reason, "length");
    EXPECT_EQ(t.denoise_steps, 6);
}

TEST(Generation, AutoregressiveModelsShareAllButTheLastPromptToken) {
    ModelConfig c = block_model();
    c.shift = true;
    c.mask_id = -1;
    const Request r = request_of({5, 3, 1, 1, {}});
    Generation s(r, c);
    EXPECT_EQ(s.shared(), 4);
    EXPECT_EQ(s.n_positions(), 8);
    EXPECT_EQ(s.commit_begin(), 4);
    EXPECT_EQ(s.commit_end(), 5);
    EXPECT_EQ(s.masked(), (Ids{5}));
    s.committed();
    step(s, candidates(s, left_first));
    EXPECT_EQ(s.commit_begin(), 5);
    EXPECT_EQ(s.masked(), (Ids{6}));
    EXPECT_EQ(footprint(5, r.options, c).own_slots, 4);
}

// What memory is planned by: 5 tokens of a prompt and 8 of a response, in blocks of 4.
TEST(Generation, RowsOfPasses) {
    const auto rows = [](const ModelConfig& c, Cache cache, double cfg_scale = 0) {
        Request r = request_of({5, 8, 4, 4, {}});
        r.options.cache = cache;
        r.options.cfg_scale = float(cfg_scale);
        const Footprint need = footprint(5, r.options, c);
        return std::pair(need.rows, need.later_rows);
    };
    using Rows = std::pair<int, int>;
    ModelConfig c = canvas_model();
    EXPECT_EQ(rows(c, Cache::None), Rows(13, 13));
    EXPECT_EQ(rows(c, Cache::Prefix), Rows(13, 8));
    EXPECT_EQ(rows(c, Cache::Dual), Rows(13, 4));
    EXPECT_EQ(rows(c, Cache::None, 1.5), Rows(26, 26));
    c.shift = true;  // and the row before the block
    EXPECT_EQ(rows(c, Cache::Prefix), Rows(13, 9));
    EXPECT_EQ(rows(c, Cache::Dual), Rows(13, 5));
    EXPECT_EQ(rows(block_model(), Cache::Exact), Rows(8, 4));
}

TEST(Generation, GapsAreFilledBlockByBlock) {
    Request r = request_of({0, 1, 4, 4, {50}});
    r.options.infill = true;
    r.prompt_ids = {50, 51, 52, 53, 54, 99,
                    99, 55, 56, 57, 58, 99};  // masks at 5, 6 and 11; 50 would be a stop id
    ModelConfig c = canvas_model();
    Generation g(r, c);
    EXPECT_EQ(g.n_positions(), 12);
    EXPECT_EQ(g.masked(), (Ids{5, 6}));
    step(g, candidates(g, right_first));
    EXPECT_EQ(g.progress().n_final, 5);
    step(g, candidates(g, right_first));
    EXPECT_EQ(g.masked(), (Ids{11}));  // the next block with a gap
    step(g, candidates(g, right_first));
    EXPECT_TRUE(g.finished());
    const Trajectory t = g.trajectory();
    EXPECT_EQ(t.output_ids, (Ids{50, 51, 52, 53, 54, 5, 6, 55, 56, 57, 58, 11}));
    EXPECT_EQ(t.step_map, (Ids{0, 0, 0, 0, 0, 2, 1, 0, 0, 0, 0, 3}));
    EXPECT_EQ(t.prompt_ids, r.prompt_ids);
    EXPECT_EQ(generated_tokens(t), 3);
    EXPECT_EQ(footprint(12, r.options, c).own_slots, 12);
    r.prompt_ids = {99, 51, 52, 53, 54};  // at the very beginning
    EXPECT_EQ(Generation(r, c).masked(), (Ids{0}));
    r.prompt_ids = {50, 51, 52, 53, 99, 54, 55, 56, 57};  // nothing to fill at the end
    Generation h(r, c);
    step(h, candidates(h, right_first));
    EXPECT_TRUE(h.finished());
    EXPECT_EQ(h.trajectory().output_ids.size(), 9u);
}

TEST(Generation, ProgressCountsWhatIsFinal) {
    const Request r = request_of({4, 12, 4, 4, {}});
    Generation s(r, block_model());
    step(s, candidates(s, right_first));
    EXPECT_EQ(s.progress().n_final, 0);
    EXPECT_EQ(s.progress().step.size(), 4u);
    EXPECT_EQ(s.progress().step[3], 1);
    for (int i = 0; i < 3; i++) step(s, candidates(s, right_first));
    EXPECT_EQ(s.progress().n_final, 4);
    EXPECT_EQ(s.progress().step.size(), 8u);  // the next block is open
}

// Where revealing a position ends the response whatever is revealed there: at the limit, or where a stop id or the limit is known
// right behind it.
TEST(Generation, KnowsWhereAnEndWaitsBehindAMask) {
    const Request r = request_of({0, 7, 8, 8, {4}});
    Generation s(r, block_model());  // one block of 8, the last position beyond the limit
    for (size_t i = 0; i < 8; i++) EXPECT_EQ(s.ends_at(i), i == 6) << i;
    // position 4 is revealed first: the stop id, which waits behind position 3
    step(s, candidates(s, [](int p) { return p == 4 ? 0.9f : 0.1f; }));
    ASSERT_EQ(s.masked(), (std::vector<int>{0, 1, 2, 3, 5, 6, 7}));
    for (size_t i = 0; i < 7; i++) EXPECT_EQ(s.ends_at(i), i == 3 || i == 5) << i;
}
