// The reveal on CUDA against the host's, record for record, over many steps of many blocks.
#include "tests/cuda_testing.h"
// after the references' scalar
#include "kernels/reveal_block.h"

namespace {

constexpr int RUN_STEPS = 9;

// Blocks of every rule and their options; candidates for every step, coarse numbers with many ties and some that are none.
struct Example {
    std::vector<RevealBlock> blocks;
    std::vector<RevealTarget> targets;
    std::vector<int> stops = {3, 1, 4};
    std::vector<std::vector<Sampled>> sampled;  // by step

    Example(uint32_t seed, int n_blocks, int largest) {
        Rng rng(seed, Stream::Noise);
        for (int b = 0; b < n_blocks; b++) {
            const int count = 1 + int(rng.below(uint32_t(largest))),
                      steps = 1 + int(rng.below(uint32_t(count)));
            blocks.push_back({.first = int(targets.size()),
                              .count = count,
                              .step = int(rng.below(2)),
                              .first_stop = int(rng.below(2)),
                              .n_stops = int(rng.below(3)),
                              .rule = {.remasking = Remasking(rng.below(9)),
                                       .fallback = Fallback(rng.below(3)),
                                       .inclusive = int(rng.below(2)),
                                       .schedule = RevealSchedule(rng.below(5) / 2),
                                       .block = count,
                                       .steps = steps,
                                       .order_temperature = float(rng.below(3)) / 4,
                                       .threshold = 0.5,
                                       .entropy_bound = 1.0,
                                       .factor = 0.25 * double(1 + rng.below(6))}});
            for (int i = 0; i < count; i++)
                targets.push_back({.row = int(targets.size()) * 2 + 1,
                                   .ends = int(rng.below(12) == 0),
                                   .step = rng.below(5) ? 0 : 1,  // some are revealed already
                                   .token = 9});
        }
        for (int step = 0; step < RUN_STEPS; step++) {
            sampled.emplace_back();
            for (size_t i = 0; i < targets.size(); i++)
                sampled.back().push_back({.token = int(rng.below(8)),
                                          .confidence = rng.below(12) ? float(rng.below(8)) / 8 : NAN,
                                          .logprob = -float(i),
                                          .entropy = float(rng.below(6)) / 4});
        }
    }
};

// An example in the memory of some ops.
struct OnDevice {
    Ops& ops;
    DeviceRecords<RevealTarget> targets;
    DeviceRecords<RevealBlock> blocks;
    DeviceRecords<SampleRow> rows;
    DeviceRecords<Sampled> sampled;
    DeviceInts stops, token, status;

    OnDevice(Ops& o, const Example& e, int most)
        : ops(o),
          targets(o, e.targets),
          blocks(o, e.blocks),
          rows(o, std::vector<SampleRow>(e.targets.size(), {.step = 5})),
          sampled(o, e.sampled[0]),
          stops(o, e.stops),
          token(o, std::vector<int>(2 * e.targets.size() + 1, -7)),
          status(o, {1, 0, most, int(e.blocks.size())}) {}
    RevealRun run() const { return {targets, blocks, rows, sampled, stops, token, status}; }
    std::vector<int> ints(const Tensor& t) const {
        std::vector<int> out(size_t(t.size()));
        ops.download(out.data(), t);
        return out;
    }
};

void expect_same(const OnDevice& got, const OnDevice& want) {
    const auto g = got.targets.read(), w = want.targets.read();
    const auto got_rows = got.rows.read(), want_rows = want.rows.read();
    for (size_t i = 0; i < w.size(); i++) {
        ASSERT_EQ(g[i].step, w[i].step) << "target " << i;
        ASSERT_EQ(g[i].token, w[i].token) << "target " << i;
        ASSERT_EQ(g[i].logprob, w[i].logprob) << "target " << i;
        ASSERT_EQ(g[i].entropy, w[i].entropy) << "target " << i;
        ASSERT_EQ(got_rows[i].step, want_rows[i].step);
    }
    const auto got_blocks = got.blocks.read(), want_blocks = want.blocks.read();
    for (size_t b = 0; b < want_blocks.size(); b++)
        ASSERT_EQ(got_blocks[b].step, want_blocks[b].step) << "block " << b;
    ASSERT_EQ(got.ints(got.token), want.ints(want.token));
    ASSERT_EQ(got.ints(got.status), want.ints(want.status));
}

}  // namespace

TEST(CudaReveal, DecidesAsTheHost) {
    const auto cuda = cuda_ops_for_tests(), cpu = make_cpu_ops();
    for (const auto& [n_blocks, largest] : {std::pair{1, 1}, {40, 9}, {9, 70}, {60, 69}}) {
        const Example e(uint32_t(largest), n_blocks, largest);
        OnDevice got(*cuda, e, RUN_STEPS - 1), want(*cpu, e, RUN_STEPS - 1);
        for (int step = 0; step < RUN_STEPS; step++) {
            for (OnDevice* r : {&got, &want}) {
                r->ops.upload(r->sampled, e.sampled[size_t(step)].data());
                r->ops.reveal_blocks(r->run());
            }
            ASSERT_NO_FATAL_FAILURE(expect_same(got, want)) << "step " << step;
        }
    }
}

// More targets than a warp has lanes, those above the threshold among the first, and more of them than the step would reveal.
TEST(CudaReveal, CountsTheSureOfALargeBlock) {
    const auto cuda = cuda_ops_for_tests(), cpu = make_cpu_ops();
    Example e(1, 1, 1);
    e.targets.assign(40, {});
    e.blocks = {
        {.count = 40,
         .rule = {.remasking = Remasking::LowConfidenceDynamic, .block = 40, .steps = 40, .threshold = 0.5}}};
    e.sampled[0].assign(40, {.token = 7, .confidence = 0.25f, .logprob = -1, .entropy = 1});
    for (const size_t i : {2, 9, 31}) e.sampled[0][i].confidence = 0.75f;
    for (size_t i = 0; i < 40; i++) e.targets[i].row = int(i);
    OnDevice got(*cuda, e, 2), want(*cpu, e, 2);
    for (OnDevice* r : {&got, &want}) r->ops.reveal_blocks(r->run());
    ASSERT_NO_FATAL_FAILURE(expect_same(got, want));
    int revealed = 0;
    for (const RevealTarget& t : got.targets.read()) revealed += t.step > 0;
    EXPECT_EQ(revealed, 3);
}

// One sequence at a time, so that it is its own end, mask or limit that decides.
TEST(CudaReveal, GoesOnAsLongAsTheHost) {
    const auto cuda = cuda_ops_for_tests(), cpu = make_cpu_ops();
    std::vector<int> reached(4, 0);
    for (uint32_t seed = 0; seed < 150; seed++) {
        const Example e(seed, 1, 6);
        OnDevice got(*cuda, e, 3), want(*cpu, e, 3);
        const auto step = [&](OnDevice& r) { return [&] { r.ops.reveal_blocks(r.run()); }; };
        for (OnDevice* r : {&got, &want})
            r->ops.repeat_while(Tensor(r->status).col_range(0, 1), {}, step(*r));
        ASSERT_NO_FATAL_FAILURE(expect_same(got, want)) << "seed " << seed;
        reached[size_t(want.ints(want.status)[STEPS])]++;
    }
    for (int steps = 1; steps <= 3; steps++) EXPECT_GT(reached[size_t(steps)], 0) << steps;
}

// One of three sequences comes to its end with the only mask it has; the others keep theirs, the first of them too.
TEST(CudaReveal, TheEndOfOneSequenceEndsTheRun) {
    const auto cuda = cuda_ops_for_tests(), cpu = make_cpu_ops();
    for (int ended = -1; ended < 3; ended++) {
        Example e(1, 1, 1);
        e.blocks.clear(), e.targets.clear(), e.sampled[0].clear();
        for (int b = 0; b < 3; b++) {
            const int count = b == ended ? 1 : 4;
            e.blocks.push_back(
                {.first = int(e.targets.size()),
                 .count = count,
                 .rule = {.remasking = Remasking::LowConfidenceStatic, .block = 4, .steps = 4}});
            for (int i = 0; i < count; i++) {
                e.targets.push_back({.row = int(e.targets.size())});
                e.sampled[0].push_back(
                    {.token = 7, .confidence = float(i + 1) / 8, .logprob = -1, .entropy = 1});
            }
        }
        OnDevice got(*cuda, e, 100), want(*cpu, e, 100);
        for (OnDevice* r : {&got, &want}) r->ops.reveal_blocks(r->run());
        ASSERT_NO_FATAL_FAILURE(expect_same(got, want)) << "sequence " << ended;
        EXPECT_EQ(got.ints(got.status)[RUNNING], ended < 0) << "sequence " << ended;
    }
}

// A recording is used again by a later call of the same key, with what is then in memory.
TEST(CudaReveal, ARecordingServesLaterRuns) {
    const auto cuda = cuda_ops_for_tests(), cpu = make_cpu_ops();
    RevealRule rule{.remasking = Remasking::Sequential, .block = 6, .steps = 6};
    Example e(1, 1, 1);
    e.targets.assign(6, {});
    for (int i = 0; i < 6; i++) e.targets[size_t(i)].row = i;
    e.blocks = {{.count = 6, .rule = rule}};
    e.sampled[0].assign(6, {.token = 7, .confidence = 0.5f, .logprob = -1, .entropy = 1});
    OnDevice run(*cuda, e, 100);
    int calls = 0;
    for (int round = 0; round < 3; round++) {
        e.sampled[0][0].token = 20 + round;
        cuda->upload(run.targets, e.targets.data());
        cuda->upload(run.blocks, e.blocks.data());
        cuda->upload(run.sampled, e.sampled[0].data());
        const std::vector<int> status = {round != 1, 0, 100, 1};
        cuda->upload(run.status, status.data());
        cuda->repeat_while(Tensor(run.status).col_range(0, 1), std::vector{6}, [&] {
            calls++;
            cuda->reveal_blocks(run.run());
        });
        EXPECT_EQ(run.ints(run.status)[STEPS], round == 1 ? 0 : 6);  // a flag that is 0: not even once
        EXPECT_EQ(run.targets.read()[0].token, round == 1 ? 0 : 20 + round);
    }
    EXPECT_EQ(calls, 2);  // once to run, once to be recorded
}

// Whatever the step had started by then: it is run once more before it is recorded.
TEST(CudaReveal, ARecordingOfAStepThatFailedIsNotKept) {
    const auto cuda = cuda_ops_for_tests();
    const DeviceInts on(*cuda, {1});
    int calls = 0;
    const auto repeat = [&](bool fails) {
        cuda->upload(on, std::vector{1}.data());
        cuda->repeat_while(on, std::vector{6}, [&] {
            calls++;
            if (fails) throw Error(Exit::NoMemory, "in the middle of a step");
            cuda->zero(on);
        });
    };
    EXPECT_THROW(repeat(true), Error);
    repeat(false);
    EXPECT_EQ(calls, 3);  // the one that failed, one to run, one to be recorded
}
