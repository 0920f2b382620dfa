// A whole run of reinforcement learning on a very small model: it can be stopped anywhere and goes on bit for bit; what it writes is
// what it says; evaluation problems are never trained on.
#include <gtest/gtest.h>

#include <filesystem>
#include <map>
#include <set>

#include "tests/temporary_folder.h"
#include "tokenizer/byte_tokenizer.h"
#include "train/codec.h"
#include "train/evaluation.h"
#include "train/tracerl_run.h"
#include "utils/log.h"
#include "weights_tools/init_folder.h"
#include "weights_tools/model_folder.h"

namespace {

namespace fs = std::filesystem;

// A body of width 16 of every family.
ModelConfig small_config(Family family) {
    const Vocabulary bytes = {BYTE_VOCABULARY, BYTE_MASK, {BYTE_IM_END, BYTE_END_OF_TEXT}};
    std::vector<std::string> set = {"hidden_size=16",        "num_hidden_layers=2",
                                    "num_attention_heads=2", "intermediate_size=24",
                                    "num_key_value_heads=1", "max_position_embeddings=64"};
    if (family == Family::Dream) return init_config("dream-7b", bytes, set);
    if (family == Family::Llada)
        return init_config("llada-8b", bytes,
                           {"d_model=16", "n_layers=2", "n_heads=2", "n_kv_heads=2", "mlp_hidden_size=24",
                            "max_sequence_length=64"});
    set.push_back("head_dim=8");
    return init_config("tiny", bytes, set);
}

// Everything a run needs, as train_tracerl builds it.
struct World {
    std::unique_ptr<Ops> ops = make_cpu_ops();
    ModelConfig config;
    TextModel text = load_text_model("bytes", "auto", "", config);
    TextCodec codec = make_codec(text, prompt_template("chat"), false);
    Task task = make_task("arithmetic:digits=1,working=off", 3);
    TraceRlRunOptions options;
    std::unique_ptr<Learner> policy, value;
    Arena engine_arena{"rollout", *ops};
    std::unique_ptr<Engine> engine;

    explicit World(bool with_value, Family family = Family::Sdar) : config(small_config(family)) {
        options.sft.steps = 3;
        options.sft.batch = 4;
        options.sft_eval_every = 2;
        options.sft_eval_problems = 4;
        options.sft_optimizer.lr = 1e-2;
        options.steps = 3;
        options.rl.tasks = 3;
        options.rl.responses = 4;
        options.rl.epochs = 2;
        options.rl.mini_batches = 2;
        options.rl.seed = options.sft.seed = 11;
        options.rl.rollout = {.block = 4, .temperature = 1, .stop_ids = text.eos_ids, .seed = 11};
        // An untrained model says anything: a response that ends does so because a quarter of all bytes end it.
        options.rl.rollout.gen_length = 12;
        for (int id = 0; id < 256; id += 4) options.rl.rollout.stop_ids.push_back(id);
        options.rl.rl.keep.all = true;
        options.optimizer.lr = options.value_optimizer.lr = 1e-3;
        options.eval_problems = 4;
        options.eval_every = 2;
        options.save_every = 1;
        options.value_from_policy = with_value;
        options.progress = ProgressStyle::None;
        // By its length a response is right, half right or wrong, so that groups differ even for an untrained model.
        task.reward = [](const Problem&, std::string_view s) { return double(s.size() % 3) / 2; };
        const MicroBatchLimits limits{256, 256};
        const int block = config.full_attention ? 0 : 4;
        policy = std::make_unique<Learner>(*ops, config, Head::Policy, block, limits, options.sft_optimizer);
        if (with_value)
            value =
                std::make_unique<Learner>(*ops, config, Head::Value, block, limits, options.value_optimizer);
        engine = std::make_unique<Engine>(*ops, policy->config, policy->weights,
                                          EngineLimits{.max_active = 5, .max_rows = 80, .kv_slots = 200},
                                          text.n_ids, engine_arena);
        engine_arena.allocate();
        policy->allocate();
        initialize(policy->weights, config, 5);
        if (value) value->allocate();
    }
    void save(const std::string& path) {
        save_model_folder(path, policy->weights, policy->config, "", DType::F32, *ops);
        if (!value) return;
        make_folders(path + "/value_model");
        save_model_folder(path + "/value_model", value->weights, value->config, "", DType::F32, *ops);
    }
    void load(const std::string& path) {
        load_weights(open_model_folder(path, Head::Policy), policy->weights, *ops);
        if (value) load_weights(open_model_folder(path + "/value_model", Head::Value), value->weights, *ops);
    }
    std::unique_ptr<TraceRlRun> run(RunFolder& folder) {
        return std::make_unique<TraceRlRun>(options, *policy, value.get(), *engine, codec, task, task, folder,
                                            [this](const std::string& path) { save(path); });
    }
};

std::string fresh(const std::string& name) {
    static const TemporaryFolder folder;
    const std::string path = folder.file(name);
    fs::remove_all(path);
    return path;
}

// Wall-clock times are the only thing two equal runs may differ in.
std::vector<std::string> metrics_without_times(const std::string& folder) {
    std::vector<std::string> lines;
    read_jsonl(folder + "/metrics.jsonl", [&](const Json& line, const std::string&) {
        Json kept = line;
        for (const char* time : {"seconds", "rollout_s", "reward_s", "update_s", "memory_mib"})
            kept.erase(time);
        lines.push_back(kept.dump());
    });
    return lines;
}

std::map<std::string, std::string> checkpoint_bytes(const std::string& checkpoint) {
    std::map<std::string, std::string> out;
    for (const auto& entry : fs::recursive_directory_iterator(checkpoint))
        if (entry.is_regular_file())
            out[fs::relative(entry.path(), checkpoint).string()] = read_text(entry.path().string());
    return out;
}

// The metrics of the run that was not stopped.
std::vector<std::string> expect_resumes(
    const std::string& name, bool with_value,
    const std::function<void(TraceRlRunOptions&)>& configure = [](auto&) {}) {
    set_quiet(true);
    const std::string whole = fresh(name + "_whole"), cut = fresh(name + "_cut");
    int questions = 0;
    {
        World w(with_value);
        configure(w.options);
        RunFolder folder = RunFolder::create(whole, "test", "");
        EXPECT_TRUE(w.run(folder)->run([&] { return questions++, false; }));
    }
    // Stopped and resumed again and again, each time after a few more of the moments at which a run may be stopped.
    int starts = 0;
    for (int patience = 3; starts < 60; patience += 5, starts++) {
        World w(with_value);
        configure(w.options);
        RunFolder folder = starts ? RunFolder::open(cut) : RunFolder::create(cut, "test", "");
        const auto run = w.run(folder);
        if (starts) {
            w.load(folder.latest());
            run->resume(folder.latest());
        }
        int left = patience;
        if (run->run([&] { return left-- <= 0; })) break;
    }
    EXPECT_GT(starts, 3);
    EXPECT_LT(starts, 60);
    EXPECT_GT(questions, 50);
    const std::vector<std::string> metrics = metrics_without_times(whole);
    EXPECT_EQ(metrics, metrics_without_times(cut));
    EXPECT_NE(metrics[metrics.size() - 2].find("\"updates\":4"), std::string::npos) << "nothing was trained";
    const RunFolder a = RunFolder::open(whole), b = RunFolder::open(cut);
    EXPECT_EQ(a.latest().substr(whole.size()), b.latest().substr(cut.size()));
    EXPECT_EQ(checkpoint_bytes(a.latest()), checkpoint_bytes(b.latest()));
    for (const auto& entry : fs::directory_iterator(whole + "/samples")) {
        // generation times differ, ids and log-probs do not
        const std::string file = entry.path().filename().string();
        EXPECT_TRUE(file_exists(cut + "/samples/" + file)) << file;
    }
    set_quiet(false);
    return metrics;
}

}  // namespace

TEST(TraceRlRun, AStoppedRunGoesOnBitForBit) { expect_resumes("plain", false); }
TEST(TraceRlRun, AStoppedRunWithAValueModelGoesOnBitForBit) {
    expect_resumes("value", true, [](TraceRlRunOptions& o) {
        o.eval_samples = 2;  // sampled evaluations, too, are the same after a stop
        o.eval_temperature = 1;
    });
}

TEST(TraceRlRun, AnEvaluationIsTheMeanOverAllSamples) {
    World w(false);
    const std::vector<Problem> problems = problems_of(w.task, Split::HeldOut, 0, 5);
    GenerateOptions o = w.options.rl.rollout;
    const auto length = [&](int samples) {
        return evaluate(*w.engine, w.codec, w.task, problems, samples, o, {}).dynamic.length;
    };
    o.remasking = Remasking::LowConfidenceDynamic;
    double sum = 0;
    for (const Response& r :
         roll_out(*w.engine, w.codec, w.task, problems, 3, o, EVALUATION_SEQUENCES, {}).responses)
        sum += double(r.trajectory.output_ids.size());
    EXPECT_DOUBLE_EQ(length(3), sum / 15);
    EXPECT_EQ(length(3), length(3));
    EXPECT_NE(length(3), length(1));
    o.temperature = 0;  // samples of a greedy model are equal
    EXPECT_DOUBLE_EQ(length(3), length(1));
}
TEST(TraceRlRun, AStoppedRunOfCoupledMasksGoesOnBitForBit) {
    expect_resumes("coupled", false, [](TraceRlRunOptions& o) { o.rl.rl.kind = RlObjective::Coupled; });
}

// Rollouts in blocks of 4 and updates in blocks of 8, then both in blocks of 8.
TEST(TraceRlRun, AStoppedRunThatEnlargesItsBlocksGoesOnBitForBit) {
    const std::vector<std::string> metrics = expect_resumes("enlarge", true, [](TraceRlRunOptions& o) {
        o.train_block = 8;
        o.enlarge_at = 2;
        o.rl.overlong = Overlong::Keep;
    });
    std::vector<std::string> evaluated;
    int step = 0;
    for (const std::string& text : metrics) {
        const Json line = parse_json(text, "metrics");
        if (line["phase"] == "eval")
            evaluated.push_back(line["name"].get<std::string>() + " " + line["block"].dump());
        if (line["phase"] != "rl") continue;
        EXPECT_EQ(line["block"], step < 2 ? 4 : 8) << step;
        EXPECT_EQ(line["train_block"], 8) << step;
        // What the sampler saw in blocks of 4 is not what is trained in blocks of 8.
        EXPECT_EQ(line["logprob_mismatch"].is_null(), step < 2) << step;
        if (step == 2) {
            EXPECT_LT(line["logprob_mismatch"].get<double>(), 1e-4);
        }
        step++;
    }
    EXPECT_EQ(step, 3);
    EXPECT_EQ(evaluated, (std::vector<std::string>{"at the start 4", "after SFT, B=4 4", "after SFT, B=8 8",
                                                   "RL step 2 8", "after RL 8"}));
}

TEST(TraceRlRun, RolloutLogProbsAreTrainingLogProbs) {
    for (const Family family : {Family::Sdar, Family::Dream, Family::Llada}) {
        World w(false, family);
        w.options.rl.epochs = w.options.rl.mini_batches = 1;
        double largest = 0;
        for (int step = 0; step < 4; step++) {
            const TraceRlStep s =
                tracerl_step(*w.policy, nullptr, *w.engine, w.codec, w.task, w.options.rl, step, {});
            ASSERT_TRUE(s.on_policy);
            ASSERT_GT(s.trained_tokens, 0);
            largest = std::max(largest, s.logprob_mismatch);
            EXPECT_NEAR(s.max_ratio, 1, 1e-4);
        }
        EXPECT_LT(largest, 1e-4);
        // The figure sees a difference: weights that changed after the rollout are another policy.
        w.options.rl.epochs = 2;
        w.policy->options.lr = 1e-2;
        TraceRlStep s = tracerl_step(*w.policy, nullptr, *w.engine, w.codec, w.task, w.options.rl, 9, {});
        EXPECT_GT(s.max_ratio, 1.001);
        // Merged steps are no states of the sampler's: the old policy is evaluated on them, before the first update.
        w.options.rl.rl.shrink = 2;
        s = tracerl_step(*w.policy, nullptr, *w.engine, w.codec, w.task, w.options.rl, 10, {});
        EXPECT_FALSE(s.on_policy);
        EXPECT_GT(s.trained_tokens, 0);
        EXPECT_GT(s.max_ratio, 1.001);
    }
}

// Several epochs and mini-batches are so many optimizer steps, and the optimizer's state lives on unless it is reset.
TEST(TraceRlRun, OptimizerStepsOfARun) {
    set_quiet(true);
    for (const bool reset : {false, true}) {
        World w(true);
        w.options.reset_optimizer_each_step = reset;
        w.options.eval_every = w.options.save_every = 0;
        RunFolder folder = RunFolder::create(fresh("reset"), "test", "");
        ASSERT_TRUE(w.run(folder)->run([] { return false; }));
        const int of_a_step = w.options.rl.epochs * w.options.rl.mini_batches;
        EXPECT_EQ(w.policy->optimizer->steps(), of_a_step * (reset ? 1 : w.options.steps));
        EXPECT_EQ(w.value->optimizer->steps(), of_a_step * (reset ? 1 : w.options.steps));
    }
    set_quiet(false);
}

TEST(TraceRlRun, ResponsesThatMeetTheLimitAreWrong) {
    World w(false);
    w.options.rl.rollout.stop_ids = {BYTE_VOCABULARY - 1};
    w.task.reward = [](const Problem&, std::string_view) { return 1.0; };
    const TraceRlStep s = tracerl_step(*w.policy, nullptr, *w.engine, w.codec, w.task, w.options.rl, 0, {});
    EXPECT_EQ(s.rollout.truncated, 1);
    EXPECT_EQ(s.rollout.accuracy, 0);
    EXPECT_EQ(s.n_kept_groups, 0);
    EXPECT_EQ(s.updates, 0);
}

// Which responses are trained under every rule for those that met the limit, from their rewards written out again.
TEST(TraceRlRun, OverlongResponses) {
    for (const Overlong rule : {Overlong::Zero, Overlong::Keep, Overlong::Mask}) {
        World w(false);
        w.options.rl.overlong = rule;
        w.options.rl.responses = 8;
        w.task.reward = [](const Problem&, std::string_view s) { return 0.25 + double(s.size() % 3) / 4; };
        const TraceRlStep s =
            tracerl_step(*w.policy, nullptr, *w.engine, w.codec, w.task, w.options.rl, 0, {});
        int truncated = 0, responses = 0, groups = 0;
        for (int p = 0; p < w.options.rl.tasks; p++) {
            std::vector<double> rewards;
            for (const Response& r : s.batch.responses) {
                if (r.problem != p) continue;
                truncated += r.truncated();
                const double judged = 0.25 + double(r.text.size() % 3) / 4;
                EXPECT_EQ(r.reward, r.truncated() && rule != Overlong::Keep ? 0 : judged);
                if (rule != Overlong::Mask || !r.truncated()) rewards.push_back(r.reward);
            }
            if (std::set<double>(rewards.begin(), rewards.end()).size() < 2) continue;
            responses += int(rewards.size());
            groups++;
        }
        EXPECT_GT(truncated, 0);
        EXPECT_LT(truncated, w.options.rl.tasks * 8);
        EXPECT_GT(groups, 0);
        EXPECT_EQ(s.n_responses, responses);
        EXPECT_EQ(s.n_kept_groups, groups);
    }
}

// Long answers are learned step by step; evaluations are at the full length.
TEST(TraceRlRun, AStoppedRunOfALengthScheduleThatDrawsAgainGoesOnBitForBit) {
    expect_resumes("lengths", false, [](TraceRlRunOptions& o) {
        o.length_schedule = {{0, 2}, {1, 9}};
        o.rl.max_resample = 2;
        o.rl.rl.keep = {.low = 0.45, .high = 0.55};
    });
    int step = 0, resamples = 0;
    read_jsonl(testing::TempDir() + "tracerl_run_lengths_whole/metrics.jsonl",
               [&](const Json& line, const std::string&) {
                   if (line["phase"] != "rl") return;
                   EXPECT_EQ(line["gen_length"], step < 1 ? 2 : 9);
                   EXPECT_LE(line["rollout"]["length"].get<double>(), step < 1 ? 2 : 9);
                   EXPECT_TRUE(line["kept_groups"] > 0 || line["resamples"] == 2);
                   resamples += line["resamples"].get<int>();
                   step++;
               });
    EXPECT_EQ(step, 3);
    EXPECT_GT(resamples, 0);
}

TEST(TraceRlRun, OtherProblemsAreDrawnWhereNoGroupIsKept) {
    set_quiet(true);
    World w(false);
    int rollouts = 0;
    w.task.judge = [&](std::span<const Answer> answers, const std::function<bool()>&) {
        rollouts++;
        std::vector<Verdict> out(answers.size());
        if (rollouts == 3)
            for (size_t i = 0; i < out.size(); i++) out[i].reward = double(i % 2);
        return out;
    };
    w.options.rl.max_resample = 5;
    const TraceRlStep s = tracerl_step(*w.policy, nullptr, *w.engine, w.codec, w.task, w.options.rl, 7, {});
    EXPECT_EQ(rollouts, 3);
    EXPECT_EQ(s.resamples, 2);
    EXPECT_GT(s.updates, 0);
    // It was the run's rollout number 9.
    World other(false);
    other.task.judge = [](std::span<const Answer> answers, const std::function<bool()>&) {
        return std::vector<Verdict>(answers.size());
    };
    other.options.rl.max_resample = 0;
    const TraceRlStep same =
        tracerl_step(*other.policy, nullptr, *other.engine, other.codec, other.task, other.options.rl, 9, {});
    EXPECT_EQ(same.updates, 0);
    for (size_t i = 0; i < s.batch.responses.size(); i++)
        EXPECT_EQ(s.batch.responses[i].trajectory.output_ids, same.batch.responses[i].trajectory.output_ids);
    set_quiet(false);
}

// Two tasks, one of which rewards tokens: those are what the value model learns, the others' reward stays at the end.
TEST(TraceRlRun, TokenRewardsOfAMixtureReachTheValueModel) {
    for (const bool with_value : {true, false}) {
        World w(with_value);
        w.options.rl.epochs = w.options.rl.mini_batches = 1;
        w.options.rl.rl.loss.gamma = 0;  // a token's return is its own reward
        w.options.rl.rl.value_target = ValueTarget::Raw;
        w.options.rl.tasks = 4;
        const Task sums = w.task;
        w.task.parts = {"sums", "tokens"};
        w.task.problem = [sums](Split split, int64_t i) {
            Problem p = sums.problem(split, i);
            p.part = int(i % 2);
            return p;
        };
        w.task.judge = [](std::span<const Answer> answers, const std::function<bool()>&) {
            std::vector<Verdict> out;
            for (const Answer& a : answers) {
                out.push_back({.reward = double(a.text.size() % 3) / 2, .token_rewards = {}, .graded = true});
                if (a.problem->part == 1) out.back().token_rewards.assign(a.tokens.size(), 0.25);
            }
            return out;
        };
        const TraceRlStep s =
            tracerl_step(*w.policy, w.value.get(), *w.engine, w.codec, w.task, w.options.rl, 0, {});
        EXPECT_EQ(s.unused_token_rewards, !with_value);
        EXPECT_GT(s.trained_tokens, 0);
        int rewarded = 0;
        for (const Response& r : s.batch.responses) {
            const bool of_tokens = with_value && s.batch.problems[size_t(r.problem)].part == 1;
            EXPECT_EQ(r.token_rewards.size(), of_tokens ? r.trajectory.output_ids.size() : 0);
            for (const double x : r.token_rewards) EXPECT_EQ(x, r.truncated() ? 0 : 0.25);
            rewarded += of_tokens && !r.truncated();
        }
        EXPECT_EQ(rewarded > 0, with_value);
        const std::vector<PartStats> parts = s.batch.part_stats(w.task);
        ASSERT_EQ(parts.size(), 2u);
        EXPECT_EQ(parts[0].responses, 8);
        EXPECT_NEAR((parts[0].reward + parts[1].reward) / 2, s.rollout.reward, 1e-12);
        EXPECT_NEAR((parts[0].accuracy + parts[1].accuracy) / 2, s.rollout.accuracy, 1e-12);
    }
}

TEST(TraceRlRun, WhereNothingCanBeJudgedTheRunStopsAndIsSaved) {
    set_quiet(true);
    World w(false);
    bool broken = true;
    w.options.sft.steps = 0;
    w.task.judge = [&](std::span<const Answer> answers, const std::function<bool()>&) {
        return std::vector<Verdict>(answers.size(), {.reward = 0, .token_rewards = {}, .graded = !broken});
    };
    RunFolder folder = RunFolder::create(fresh("ungraded"), "test", "");
    EXPECT_THROW(w.run(folder)->run([] { return false; }), Error);
    ASSERT_FALSE(folder.latest().empty());
    EXPECT_EQ(read_json(folder.latest() + "/state.json")["rl_step"], 0);
    broken = false;
    World again(false);
    again.options.sft.steps = 0;
    again.task.judge = w.task.judge;
    again.load(folder.latest());
    const auto run = again.run(folder);
    run->resume(folder.latest());
    EXPECT_TRUE(run->run([] { return false; }));
    set_quiet(false);
}

// Gradients that are not finite change nothing, are counted, and end the run with its state saved; with the fault gone it goes on.
TEST(TraceRlRun, GradientsThatAreNotFinite) {
    set_quiet(true);
    for (const bool warm_start : {true, false}) {
        const std::string path = fresh("not_finite");
        std::string before;
        {
            World w(false);
            w.options.eval_every = 0;
            if (warm_start)
                w.options.sft_optimizer.lr = 1e30;  // weights that overflow: the second gradient is none
            else
                w.options.rl.rl.loss.kl_beta = NAN;
            w.options.sft.steps = warm_start ? 20 : 1;
            RunFolder folder = RunFolder::create(path, "test", "");
            try {
                w.run(folder)->run([] { return false; });
                ADD_FAILURE() << "it went on";
            } catch (const Error& e) {
                EXPECT_EQ(e.code, Exit::Runtime);
                EXPECT_NE(std::string(e.what()).find("not finite"), std::string::npos) << e.what();
            }
            ASSERT_FALSE(folder.latest().empty());
        }
        int skipped = 0, lines = 0;
        read_jsonl(path + "/metrics.jsonl", [&](const Json& line, const std::string&) {
            skipped += line.value("skipped_updates", 0);
            lines += line["phase"] == (warm_start ? "sft" : "rl");
        });
        EXPECT_GE(skipped, 3);
        EXPECT_LE(lines, 5);
        if (warm_start) continue;
        World w(false);
        w.options.eval_every = 0;
        w.options.sft.steps = 1;
        RunFolder folder = RunFolder::open(path);
        w.load(folder.latest());
        const auto run = w.run(folder);
        run->resume(folder.latest());
        EXPECT_TRUE(run->run([] { return false; }));
    }
    set_quiet(false);
}

TEST(TraceRlRun, EveryResponseTruncated) {
    set_quiet(true);
    World w(false);
    w.options.rl.rollout.stop_ids = {BYTE_VOCABULARY - 1};
    RunFolder folder = RunFolder::create(fresh("truncated"), "test", "");
    EXPECT_TRUE(w.run(folder)->run([] { return false; }));
    set_quiet(false);
    int steps = 0;
    read_jsonl(folder.file("metrics.jsonl"), [&](const Json& line, const std::string&) {
        if (line["phase"] != "rl") return;
        steps++;
        EXPECT_EQ(line["rollout"]["truncated"], 1);
        EXPECT_EQ(line["kept_groups"], 0);
        EXPECT_EQ(line["updates"], 0);
    });
    EXPECT_EQ(steps, 3);
}

// What the README's table of metrics.jsonl names is there, and is a number.
TEST(TraceRlRun, MetricsAreComplete) {
    set_quiet(true);
    World w(true);
    RunFolder folder = RunFolder::create(fresh("metrics"), "test", "");
    ASSERT_TRUE(w.run(folder)->run([] { return false; }));
    set_quiet(false);
    std::map<std::string, int> phases;
    read_jsonl(folder.file("metrics.jsonl"), [&](const Json& line, const std::string& where) {
        const std::string phase = line["phase"];
        phases[phase]++;
        std::vector<const char*> keys = {"/step"};
        const auto also = [&](std::initializer_list<const char*> more) { keys.insert(keys.end(), more); };
        if (phase == "sft") also({"/loss", "/grad_norm", "/lr", "/tokens", "/seconds"});
        if (phase == "eval")
            also({"/static/accuracy", "/dynamic/tokens_per_forward", "/dynamic/truncated", "/seconds"});
        if (phase == "rl")
            also({"/rollout/reward",
                  "/rollout/accuracy",
                  "/rollout/length",
                  "/rollout/truncated",
                  "/rollout/tokens_per_forward",
                  "/rollout/tokens_per_step_right",
                  "/rollout/tokens_per_step_wrong",
                  "/rollout/surprise",
                  "/groups",
                  "/kept_groups",
                  "/responses",
                  "/loss",
                  "/policy_loss",
                  "/kl",
                  "/clip_fraction",
                  "/max_ratio",
                  "/logprob_mismatch",
                  "/grad_norm",
                  "/value_grad_norm",
                  "/value_loss",
                  "/explained_variance",
                  "/lr",
                  "/updates",
                  "/skipped_updates",
                  "/trained_tokens",
                  "/forwarded_tokens",
                  "/generated_tokens",
                  "/rollout_rows",
                  "/rollout_s",
                  "/reward_s",
                  "/update_s",
                  "/memory_mib"});
        for (const char* key : keys) {
            const Json::json_pointer at{std::string(key)};
            ASSERT_TRUE(line.contains(at)) << where << key;
            EXPECT_TRUE(line.at(at).is_number()) << where << key;
        }
        if (phase == "rl") {
            EXPECT_GT(line["memory_mib"], 1);
            EXPECT_GT(line["rollout_rows"], line["generated_tokens"]);
        }
    });
    EXPECT_EQ(phases["sft"], 3);
    EXPECT_EQ(phases["rl"], 3);
    EXPECT_EQ(phases["eval"], 4);
    // The report is there, with the examples of every evaluation.
    const std::string page = read_text(folder.file("report.html"));
    for (const char* word : {"Value loss", "Explained variance", "after SFT: ", "at the start: "})
        EXPECT_NE(page.find(word), std::string::npos) << word;
}

TEST(TraceRlRun, EvaluationProblemsAreNeverTrained) {
    for (const char* spec :
         {"arithmetic:working=totals", "arithmetic:digits=1,working=off", "countdown", "sudoku4"}) {
        const Task task = make_task(spec, 1);
        std::set<std::string> held_out;
        for (int i = 0; i < 300; i++) held_out.insert(task.problem(Split::HeldOut, i).prompt);
        for (const int64_t i : problem_indices(task, 1, 0, 3000))
            EXPECT_FALSE(held_out.contains(task.problem(Split::Train, i).prompt)) << spec;
    }
}

TEST(TraceRlRun, ADataFileIsGoneThroughInANewOrderEveryTime) {
    Task task;
    task.train_size = 10;
    const std::vector<int64_t> order = problem_indices(task, 1, 0, 30);
    for (int pass = 0; pass < 3; pass++) {
        const std::set<int64_t> seen(order.begin() + pass * 10, order.begin() + pass * 10 + 10);
        EXPECT_EQ(seen.size(), 10u);
    }
    EXPECT_FALSE(std::equal(order.begin(), order.begin() + 10, order.begin() + 10) &&
                 std::equal(order.begin(), order.begin() + 10, order.begin() + 20));
}

TEST(RunFolder, OneProcessAndOneRunPerFolder) {
    const std::string path = fresh("folder");
    {
        const RunFolder a = RunFolder::create(path, "x", "k = 1\n");
        EXPECT_THROW(RunFolder::open(path), Error);  // locked
    }
    EXPECT_THROW(RunFolder::create(path, "x", ""), Error);  // there is a run
    EXPECT_THROW(RunFolder::open(path), Error);             // without a checkpoint
    EXPECT_THROW(RunFolder::open(path + "_none"), Error);
    EXPECT_EQ(read_text(path + "/config.toml"), "k = 1\n");
}

TEST(RunFolder, OldCheckpointsGoAndMetricsAreCut) {
    const std::string path = fresh("prune");
    RunFolder run = RunFolder::create(path, "x", "");
    for (int step = 1; step <= 5; step++) {
        run.metrics({{"step", step}});
        run.checkpoint(step, 2, [&](const std::string& at) {
            write_file_atomic(at + "/state.json", std::to_string(step));
        });
    }
    EXPECT_EQ(run.latest(), path + "/ckpt/step-000005");
    EXPECT_TRUE(file_exists(path + "/ckpt/step-000004"));
    EXPECT_FALSE(file_exists(path + "/ckpt/step-000003"));
    run.truncate_metrics(3);
    EXPECT_EQ(read_text(path + "/metrics.jsonl"), "{\"step\":1}\n{\"step\":2}\n{\"step\":3}\n");
    EXPECT_EQ(run.metrics_lines(), 3);
    EXPECT_THROW(run.truncate_metrics(4), Error);
    // A checkpoint that fails leaves the last one.
    EXPECT_THROW(run.checkpoint(6, 2, [](const std::string&) { fail(Exit::Runtime, "disk full"); }), Error);
    EXPECT_EQ(run.latest(), path + "/ckpt/step-000005");
    EXPECT_FALSE(file_exists(path + "/ckpt/step-000006"));
}
