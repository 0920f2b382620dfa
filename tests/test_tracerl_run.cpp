// A whole run of reinforcement learning on a very small model: it can be stopped anywhere and goes on bit for bit; what it writes is
// what it says.
#include <gtest/gtest.h>

#include <filesystem>
#include <map>

#include "tests/tracerl_world.h"
#include "utils/log.h"

namespace {

namespace fs = std::filesystem;

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
        RunFolder folder =
            starts ? RunFolder::open(cut, "train_tracerl") : RunFolder::create(cut, "test", "");
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
    const RunFolder a = RunFolder::open(whole, "train_tracerl"), b = RunFolder::open(cut, "train_tracerl");
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

// A warm start that is right often enough after one of its steps takes no second one, at whatever moment after it the run is stopped.
TEST(TraceRlRun, AWarmStartThatEndedEarlyDoesNotGoOnAfterAStop) {
    set_quiet(true);
    int stopped_after = 0;
    for (int patience = 1; patience < 40; patience += 2) {
        const std::string path = fresh("early");
        for (int start = 0; start < 2; start++) {
            World w(false);
            w.options.sft.steps = 20;
            w.options.sft_until = 0;
            w.options.steps = 0;
            RunFolder folder =
                start ? RunFolder::open(path, "train_tracerl") : RunFolder::create(path, "test", "");
            const auto run = w.run(folder);
            if (start) {
                w.load(folder.latest());
                run->resume(folder.latest());
            }
            int left = start ? 1000 : patience;
            run->run([&] { return left-- <= 0; });
            int n = 0;
            if (!file_exists(path + "/metrics.jsonl")) continue;  // stopped before the first line
            for (const std::string& line : metrics_without_times(path))
                n += line.find("\"sft\"") != std::string::npos;
            EXPECT_EQ(n, start ? 1 : n);
            if (!start && left < 0) stopped_after += n;
        }
    }
    EXPECT_GT(stopped_after, 3);
    set_quiet(false);
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

// Long answers are learned step by step; evaluations are at the full length.
TEST(TraceRlRun, AStoppedRunOfALengthScheduleThatDrawsAgainGoesOnBitForBit) {
    const std::vector<std::string> metrics = expect_resumes("lengths", false, [](TraceRlRunOptions& o) {
        o.length_schedule = {{0, 2}, {1, 9}};
        o.rl.max_resample = 2;
        o.rl.rl.keep = {.low = 0.45, .high = 0.55};
    });
    int step = 0, resamples = 0;
    for (const std::string& text : metrics) {
        const Json line = parse_json(text, "metrics");
        if (line["phase"] != "rl") continue;
        EXPECT_EQ(line["gen_length"], step < 1 ? 2 : 9);
        EXPECT_LE(line["rollout"]["length"].get<double>(), step < 1 ? 2 : 9);
        EXPECT_TRUE(line["kept_groups"] > 0 || line["resamples"] == 2);
        resamples += line["resamples"].get<int>();
        step++;
    }
    EXPECT_EQ(step, 3);
    EXPECT_GT(resamples, 0);
}

TEST(TraceRlRun, AFinishedRunGoesOnToMoreSteps) {
    set_quiet(true);
    const auto never = [] { return false; };
    const auto run_to = [&](const std::string& path, int steps, bool again = false) {
        World w(false);
        w.options.steps = steps;
        RunFolder folder =
            again ? RunFolder::open(path, "train_tracerl") : RunFolder::create(path, "test", "");
        if (again) w.load(folder.latest());
        const auto run = w.run(folder);
        if (again) run->resume(folder.latest());
        EXPECT_TRUE(run->run(never));
        auto bytes = checkpoint_bytes(folder.latest());
        const Json state = Json::parse(bytes.at("state.json"));
        EXPECT_EQ(state["rl_step"], steps);
        EXPECT_EQ(state["milestones"].back()["name"], "after RL");
        EXPECT_EQ(state["milestones"].back()["step"], steps);
        bytes.erase("state.json");  // an evaluation more was written
        return bytes;
    };
    const auto whole = run_to(fresh("three"), 3);
    const std::string path = fresh("two_and_one");
    run_to(path, 2);
    EXPECT_EQ(run_to(path, 3, true), whole);
    set_quiet(false);
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
        RunFolder folder = RunFolder::open(path, "train_tracerl");
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

TEST(TraceRlRun, SamplesOfEverySecondStep) {
    set_quiet(true);
    World w(false);
    w.options.sft.steps = 0;
    w.options.samples_every = 2;
    RunFolder folder = RunFolder::create(fresh("samples"), "test", "");
    EXPECT_TRUE(w.run(folder)->run([] { return false; }));
    set_quiet(false);
    std::map<std::string, int> files;  // by the beginning of their names
    for (const auto& entry : fs::directory_iterator(folder.file("samples")))
        files[entry.path().filename().string().substr(0, 5)]++;
    EXPECT_EQ(files, (std::map<std::string, int>{{"eval-", 3}, {"step-", 1}}))
        << "without a warm start its beginning is no evaluation of its own";
    EXPECT_TRUE(file_exists(folder.file("samples/step-000002.jsonl")));
}

TEST(TraceRlRun, OldSamplesAreRemoved) {
    set_quiet(true);
    World w(false);
    w.options.sft.steps = 0;
    w.options.keep_samples = 2;
    RunFolder folder = RunFolder::create(fresh("old-samples"), "test", "");
    EXPECT_TRUE(w.run(folder)->run([] { return false; }));
    set_quiet(false);
    std::vector<std::string> steps;
    int evaluations = 0;
    for (const auto& entry : fs::directory_iterator(folder.file("samples"))) {
        const std::string name = entry.path().filename().string();
        if (name.starts_with("step-")) steps.push_back(name);
        evaluations += name.starts_with("eval-");
    }
    std::sort(steps.begin(), steps.end());
    EXPECT_EQ(steps, (std::vector<std::string>{"step-000002.jsonl", "step-000003.jsonl"}));
    EXPECT_EQ(evaluations, 3) << "those of evaluations stay";
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
                  "/rollout/entropy",
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
                  "/seconds",
                  "/memory_mib"});
        for (const char* key : keys) {
            const Json::json_pointer at{std::string(key)};
            ASSERT_TRUE(line.contains(at)) << where << key;
            EXPECT_TRUE(line.at(at).is_number()) << where << key;
        }
        if (phase == "rl") {
            EXPECT_GT(line["memory_mib"], 1);
            EXPECT_GT(line["rollout_rows"], line["generated_tokens"]);
            double phases_s = 0;
            for (const char* part : {"rollout_s", "reward_s", "update_s"})
                phases_s += line[part].get<double>();
            EXPECT_GE(line["seconds"].get<double>(), phases_s);
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
