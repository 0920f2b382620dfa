// A fine-tuning run: it learns, it can be stopped anywhere and goes on bit for bit.
#include <gtest/gtest.h>

#include <cstring>
#include <set>

#include "tests/random_records.h"
#include "tests/temporary_folder.h"
#include "train/programs/resume.h"
#include "train/sft_run.h"
#include "utils/json.h"
#include "weights_tools/model_folder.h"

namespace {

std::vector<SftExample> examples(int n) {
    Rng rng(3, Stream::Task);
    std::vector<SftExample> out;
    for (int i = 0; i < n; i++) {
        const Record r = random_record(rng, random_model_config(), 4, 1 + i % 6, 3 + i % 5);
        SftExample e;
        e.prompt_ids = r.prompt_ids;
        e.response_ids = r.response_ids;
        e.step_map = r.step_map;
        out.push_back(e);
    }
    return out;
}

SftRunOptions options() {
    SftRunOptions o;
    o.batch = 4;
    o.epochs = 3;
    o.progress = ProgressStyle::None;
    return o;
}

// A run in a folder of its own; weights are initialised, or read from its newest checkpoint.
struct TestRun {
    std::unique_ptr<Ops> ops = make_cpu_ops();
    Learner learner;
    RunFolder folder;
    SftRunOptions options;
    std::unique_ptr<SftRun> run;

    TestRun(const std::string& path, const SftRunOptions& o, bool resume)
        : learner(*ops, random_model_config(), Head::Policy, 4, {128, 128},
                  {.lr = 0.01, .schedule = Schedule::Cosine, .total_steps = 15}),
          folder(resume ? RunFolder::open(path, "train_sft") : RunFolder::create(path, "test", "")),
          options(o) {
        learner.allocate();
        if (resume)
            load_weights(open_model_folder(folder.latest(), Head::Policy), learner.weights, *ops);
        else
            initialize(learner.weights, learner.config, 1);
        const auto save = [this](const std::string& to) {
            save_model_folder(to, learner.weights, learner.config, "", DType::F32, *ops);
        };
        run = std::make_unique<SftRun>(options, learner, examples(18), examples(3), folder, save);
        if (resume) run->resume(folder.latest());
    }
    std::vector<float> weights() const {
        std::vector<float> out;
        learner.weights.for_each_stored([&](const std::string&, const Tensor& t) {
            out.insert(out.end(), t.as<float>(), t.as<float>() + t.size());
        });
        return out;
    }
};

std::vector<Json> metrics(const std::string& folder) {
    std::vector<Json> out;
    read_jsonl(folder + "/metrics.jsonl", [&](const Json& line, const std::string&) {
        Json copy = line;
        copy.erase("seconds");
        out.push_back(copy);
    });
    return out;
}

}  // namespace

TEST(SftRun, EveryEpochSeesEveryExampleOnceInAnOrderOfItsOwn) {
    std::vector<std::vector<size_t>> epochs(3);
    for (int64_t step = 0; step < 15; step++)
        for (const size_t i : batch_indices(18, 4, 7, step)) epochs[size_t(step / 5)].push_back(i);
    for (const auto& epoch : epochs) EXPECT_EQ(std::set<size_t>(epoch.begin(), epoch.end()).size(), 18u);
    EXPECT_NE(epochs[0], epochs[1]);
    EXPECT_EQ(batch_indices(18, 4, 7, 4).size(), 2u);
    SftRunOptions o = options();
    EXPECT_EQ(steps_of(o, 18), 15);
    o.epochs = 0.5;
    EXPECT_EQ(steps_of(o, 18), 3);
    o.epochs = 100, o.max_steps = 7;
    EXPECT_EQ(steps_of(o, 18), 7);
}

TEST(SftRun, LearnsAndResumesBitForBit) {
    const TemporaryFolder folder;
    const auto never = [] { return false; };
    TestRun straight(folder.file("straight"), options(), false);
    EXPECT_TRUE(straight.run->run(never));
    const std::vector<Json> lines = metrics(folder.file("straight"));
    ASSERT_EQ(lines.size(), 15u);
    EXPECT_LT(lines[14]["nll"].get<double>(), lines[0]["nll"].get<double>());
    for (const size_t evaluated : {4u, 9u, 14u}) EXPECT_TRUE(lines[evaluated].contains("eval_nll"));

    {
        TestRun first(folder.file("stopped"), options(), false);
        int asked = 0;
        EXPECT_FALSE(first.run->run([&] { return ++asked > 6; }));
    }
    TestRun second(folder.file("stopped"), options(), true);
    EXPECT_TRUE(second.run->run(never));
    EXPECT_EQ(metrics(folder.file("stopped")), lines);
    const std::vector<float> a = straight.weights(), b = second.weights();
    EXPECT_EQ(memcmp(a.data(), b.data(), a.size() * sizeof(float)), 0);
}

TEST(SftRun, TheLargestExampleFitsItsBound) {
    const std::vector<SftExample> all = examples(18);
    for (const int block : {0, 4})
        for (const SftMethod method :
             {SftMethod::SemiAr, SftMethod::RandomMask, SftMethod::Trace, SftMethod::Ar})
            for (const bool complementary : {false, true}) {
                const SftMaskOptions masks = {.method = method, .block = 3, .complementary = complementary};
                const MicroBatchLimits bound = largest_example(all, {block, 38}, masks);
                Rng rng(1, Stream::Mask);
                for (int round = 0; round < 20; round++)
                    for (SftExample e : all) {
                        e.copies = sft_copies(e, {block, 38}, masks, rng);
                        const std::vector<Sequence> one = {sft_sequence(e, {block, 38})};
                        const MicroBatchLimits need = needed_limits(one, block);
                        EXPECT_LE(need.max_tokens, bound.max_tokens);
                        EXPECT_LE(need.max_targets, bound.max_targets);
                    }
            }
}

TEST(ResumedArguments, ReadTheRunsOwnOptions) {
    const TemporaryFolder folder;
    write_file_atomic(folder.file("config.toml"), "lr = 1\n");
    const auto given = [](std::vector<std::string> words) {
        std::vector<char*> argv;
        for (std::string& w : words) argv.push_back(w.data());
        ResumedArguments arguments(int(argv.size()), argv.data(), "train_sft");
        EXPECT_EQ(arguments.values()[arguments.count()], nullptr);
        return std::vector<std::string>(arguments.values(), arguments.values() + arguments.count());
    };
    using Words = std::vector<std::string>;
    const std::string config = folder.file("config.toml");
    EXPECT_EQ(given({"p", "--lr", "2"}), (Words{"p", "--lr", "2"}));
    EXPECT_EQ(given({"p", "--lr", "2", "--resume", folder.path()}),
              (Words{"p", "--config", config, "--lr", "2", "--resume", folder.path()}));
    EXPECT_EQ(given({"p", "--resume=" + folder.path()}),
              (Words{"p", "--config", config, "--resume=" + folder.path()}));
    EXPECT_EQ(given({"p", "--config", "x", "--resume", folder.path()}),
              (Words{"p", "--config", "x", "--resume", folder.path()}));
    EXPECT_EQ(given({"p", "--resume", "/nowhere"}), (Words{"p", "--resume", "/nowhere"}));
}
