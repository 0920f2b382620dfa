// Reports: what the page says is what the folder says; runs that differ in their seed alone are one curve; and numbers on axes.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "tests/fault_of.h"
#include "tests/temporary_folder.h"
#include "train/report/chart.h"
#include "train/report/report.h"
#include "utils/files.h"
#include "utils/json.h"
#include "utils/log.h"

namespace {

Json evaluation(int step, const std::string& name, double fixed, double dynamic) {
    const auto stats = [](double accuracy) {
        return Json{
            {"accuracy", accuracy}, {"tokens_per_forward", 2.5}, {"length", 12.0}, {"truncated", 0.0}};
    };
    return {{"step", step},
            {"phase", "eval"},
            {"name", name},
            {"static", stats(fixed)},
            {"dynamic", stats(dynamic)}};
}

// A run of 2 steps of SFT and `steps` of RL whose reward in step i is `reward` + i / 100.
void write_run(const std::string& folder, int steps, double reward, const std::string& config) {
    make_folders(folder + "/samples");
    std::string lines;
    const auto add = [&](const Json& line) { lines += dump(line) + "\n"; };
    add(evaluation(0, "at the start", 0, 0));
    for (int i = 1; i <= 2; i++) add({{"step", i}, {"phase", "sft"}, {"loss", 3.0 / i}, {"seconds", 1.0}});
    add(evaluation(2, "after SFT", 0.25, 0.375));
    for (int i = 1; i <= steps; i++)
        add({{"step", 2 + i},
             {"phase", "rl"},
             {"rollout", {{"reward", reward + i / 100.0}, {"accuracy", reward}, {"truncated", 0.0}}},
             {"logprob_mismatch", 2e-6},
             {"kl", nullptr},
             {"update_s", 2.0}});
    add(evaluation(2 + steps, "after RL", 0.5, 0.75 + reward / 10));
    write_file_atomic(folder + "/metrics.jsonl", lines);
    write_file_atomic(folder + "/config.toml", config);
    const Json sample = {{"milestone", "after RL"},
                         {"prompt", "</script><b>1+1="},
                         {"text", "2"},
                         {"reward", 1.0},
                         {"pieces", {"2", "<end>"}},
                         {"blocks", {1, 1}},
                         {"is_special", {false, true}},
                         {"step_map", {2, 1}},
                         {"output_ids", {50, 258}},
                         {"logprobs", {-0.5, -0.25}},
                         {"finish_reason", "stop"},
                         {"forward_passes", 2},
                         {"denoise_steps", 2}};
    write_file_atomic(folder + "/samples/eval-0003.jsonl", dump(sample) + "\n");
    write_file_atomic(folder + "/samples/step-000001.jsonl", "not for the report\n");
}

int count(const std::string& text, const std::string& what) {
    int n = 0;
    for (size_t at = text.find(what); at != std::string::npos; at = text.find(what, at + 1)) n++;
    return n;
}

}  // namespace

TEST(Report, OfOneRun) {
    TemporaryFolder folder;
    const std::string run = folder.file("my run & more");
    write_run(run, 50, 0.5, "seed = 7\ntask = \"<sums>\"\n");
    const std::string page = run_report(read_run(run));
    // Before and after, what was run, and nothing from elsewhere.
    for (const char* word :
         {"<h1>my run &amp; more</h1>", "25.0%", "37.5%", "80.0%", "at the start", "after RL", "seed 7",
          "2 steps of SFT, 50 of reinforcement learning", "&lt;sums&gt;", "within 2e-06"})
        EXPECT_NE(page.find(word), std::string::npos) << word;
    for (const char* word : {"http://", "https://", "src=", "<link", "@import"}) {
        const int svg = std::string(word) == "http://" ? count(page, "http://www.w3.org/2000/svg") : 0;
        EXPECT_EQ(count(page, word), svg) << word;
    }
    EXPECT_NE(page.find("Reward of rollouts"), std::string::npos);
    EXPECT_NE(page.find("SFT loss"), std::string::npos);
    EXPECT_EQ(page.find("Divergence"), std::string::npos) << "a curve that has no numbers is left out";
    EXPECT_EQ(page.find("Truncated responses"), std::string::npos) << "as is one that is zero throughout";
    EXPECT_EQ(count(page, "<svg"), count(page, "</svg>"));
    // The sample's own text cannot end its script.
    EXPECT_NE(page.find("\\u003c/script\\u003e"), std::string::npos);
    EXPECT_EQ(page.find("</script><b>"), std::string::npos);
    EXPECT_NE(page.find("after RL: right, 2"), std::string::npos);
    write_report(run);
    EXPECT_EQ(read_text(run + "/report.html"), page);
}

TEST(Report, OfARunOfWeeksStaysShort) {
    TemporaryFolder folder;
    const std::string run = folder.path();
    write_run(run, 50, 0.5, "");
    const std::string sample = read_text(run + "/samples/eval-0003.jsonl");
    const auto rows = [&] { return count(run_report(read_run(run)), "<tr><th>RL step"); };
    const auto examples = [&] { return count(run_report(read_run(run)), "\"label\":"); };
    std::string metrics = read_text(run + "/metrics.jsonl");
    for (int i = 1; i <= 40; i++) {
        metrics += dump(evaluation(52 + i, format("RL step %d", 50 + i).c_str(), 0.5, 0.5)) + "\n";
        write_file_atomic(run + "/metrics.jsonl", metrics);
        write_file_atomic(run + format("/samples/eval-%04d.jsonl", 3 + i), sample);
        if (i > 5) continue;
        EXPECT_EQ(rows(), i);
        EXPECT_EQ(examples(), 1 + i);
    }
    EXPECT_EQ(rows(), 0) << "the curves have them";
    EXPECT_EQ(examples(), 8) << "the first and the newest";
}

TEST(Report, OfARunThatHasJustBegun) {
    TemporaryFolder folder;
    write_file_atomic(folder.file("metrics.jsonl"), "");
    EXPECT_NE(run_report(read_run(folder.path())).find("</html>"), std::string::npos);
    const auto fault = [&](const char* name) {
        return fault_of(Exit::BadFile, [&] { read_run(folder.file(name)); });
    };
    EXPECT_NE(fault("nothing").find("nothing: is no run's folder"), std::string::npos);
    make_folders(folder.file("young"));
    write_file_atomic(folder.file("young/config.toml"), "");
    EXPECT_NE(fault("young").find("young: the run has measured nothing so far"), std::string::npos);
    write_file_atomic(folder.file("metrics.jsonl"), "[1]\n");
    EXPECT_THROW(read_run(folder.path()), Error);
    set_quiet(true);
    write_report(folder.path());  // a warning, not the end of a run
    set_quiet(false);
    EXPECT_FALSE(file_exists(folder.file("report.html")));
}

TEST(Report, OfARunThatIsJustWritingALine) {
    TemporaryFolder folder;
    const std::string run = folder.path(), metrics = folder.file("metrics.jsonl");
    write_run(run, 3, 0.5, "");
    const std::string whole = read_text(metrics), page = run_report(read_run(run));
    for (const std::string half : {"{\"step\": 6, \"pha", "{", "{\"step\": 7, \"phase\": \"rl\"}"}) {
        write_file_atomic(metrics, whole + half);
        testing::internal::CaptureStderr();
        const RunRecord record = read_run(run);
        const std::string said = testing::internal::GetCapturedStderr();
        EXPECT_NE(said.find("warning: " + metrics), std::string::npos) << said;
        EXPECT_EQ(run_report(record), page) << half;
    }
    write_file_atomic(metrics, "{\"step\"");
    testing::internal::CaptureStderr();
    EXPECT_TRUE(read_run(run).metrics.empty());
    testing::internal::GetCapturedStderr();
    // Any other broken line is an error that names it.
    write_file_atomic(metrics, whole + "{\"step\": 6, \"pha\n" + "{\"step\": 7}\n");
    const std::string fault = fault_of(Exit::BadFile, [&] { read_run(run); });
    const auto line = 1 + std::count(whole.begin(), whole.end(), '\n');
    EXPECT_NE(fault.find(metrics + ":" + std::to_string(line) + ":"), std::string::npos) << fault;
}

TEST(Report, SeedsOfOneKindAreOneCurveWithItsSpread) {
    TemporaryFolder folder;
    std::vector<RunRecord> runs;
    for (const auto& [name, seed, norm, reward] :
         {std::tuple{"a", 1, "step", 0.2}, {"b", 2, "step", 0.4}, {"c", 1, "token", 0.6}}) {
        write_run(folder.file(name), 5, reward,
                  format("seed = %d\nloss_norm = \"%s\"\nlr = 0.1\n", seed, norm));
        runs.push_back(read_run(folder.file(name)));
    }
    const std::string page = comparison_report(runs);
    EXPECT_NE(page.find("3 runs compared"), std::string::npos);
    EXPECT_NE(page.find("loss-norm step (2 seeds): after RL"), std::string::npos) << page.substr(0, 9000);
    EXPECT_NE(page.find("loss-norm token: after RL"), std::string::npos);
    EXPECT_EQ(page.find("lr 0.1"), std::string::npos) << "what does not differ is no label";
    EXPECT_NE(page.find("78.0% ± 1.4"), std::string::npos)
        << "mean of 77% and 79%, and their standard deviation";
    const size_t chart = page.find("Reward of rollouts: reward");
    ASSERT_NE(chart, std::string::npos);
    const std::string figure = page.substr(chart, page.find("</figure>", chart) - chart);
    EXPECT_EQ(count(figure, "class=\"band\""), 1);
    EXPECT_EQ(count(figure, "class=\"curve "), 2);
    EXPECT_NE(figure.find("&quot;0.31&quot;"), std::string::npos)
        << "the mean of 0.21 and 0.41 in the first step";
}

TEST(Chart, TicksAreRoundAndCoverTheRange) {
    for (const auto& [low, high] :
         {std::pair{0.0, 1.0}, {0.0, 0.93}, {-0.3, 7e5}, {1e-7, 3e-7}, {12.1, 12.2}, {0.0, 3.0}}) {
        const std::vector<double> ticks = round_ticks(low, high, 4);
        ASSERT_GE(ticks.size(), 2u);
        EXPECT_LE(ticks.size(), 6u);
        EXPECT_LE(ticks.front(), low + 1e-12);
        EXPECT_GE(ticks.back(), high - 1e-9 * high);
        const double step = ticks[1] - ticks[0],
                     mantissa = step / std::pow(10, std::floor(std::log10(step) + 1e-9));
        EXPECT_TRUE(std::abs(mantissa - 1) < 1e-6 || std::abs(mantissa - 2) < 1e-6 ||
                    std::abs(mantissa - 5) < 1e-6)
            << step;
    }
}

TEST(Chart, GapsAndNothing) {
    EXPECT_EQ(chart_html({.title = "none"}), "");
    EXPECT_EQ(chart_html({.title = "none", .series = {{.x = {1, 2}, .y = {NAN, NAN}}}}), "");
    const std::string gap =
        chart_html({.title = "a < b", .series = {{.x = {1, 2, 3, 4, 5}, .y = {1, 2, NAN, 4, 5}}}});
    EXPECT_NE(gap.find("a &lt; b"), std::string::npos);
    EXPECT_EQ(gap.find("nan"), std::string::npos);
    const size_t d = gap.find(" d=\"");
    EXPECT_EQ(count(gap.substr(d, gap.find("/>", d) - d), "M"), 2) << "a gap begins the line anew";
    // However long a curve is, the page stays small; constant curves and single points have an axis too.
    Series s{.x = {}, .y = {}};
    for (int i = 0; i < 100000; i++) s.x.push_back(i), s.y.push_back(std::sin(i / 1e4));
    EXPECT_LT(chart_html({.title = "long", .series = {s}}).size(), 40000u);
    EXPECT_EQ(chart_html({.title = "one", .series = {{.x = {3}, .y = {7}}}}).find("nan"), std::string::npos);
    EXPECT_EQ(chart_html({.title = "zero", .series = {{.x = {3, 4}, .y = {0, 0}}}}).find("nan"),
              std::string::npos);
}
