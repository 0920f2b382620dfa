#include "train/report/report.h"

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <map>
#include <set>

#include "inference/html.h"
#include "inference/trace_page.h"
#include "train/report/chart.h"
#include "utils/error.h"
#include "utils/files.h"
#include "utils/json.h"
#include "utils/log.h"
#include "utils/progress.h"
#include "utils/toml.h"

namespace fs = std::filesystem;

namespace {

// ---- what is drawn: every chart with the places of its curves in a line of metrics.jsonl

struct CurveSpec {
    const char* place;  // a JSON pointer
    const char* label;
};
struct ChartSpec {
    const char* phase;
    const char* title;
    std::vector<CurveSpec> curves;
    bool percent = false, from_zero = true;
    const char* note = "";
};
const std::vector<ChartSpec>& chart_specs() {
    static const std::vector<ChartSpec> SPECS = {
        {"eval",
         "Accuracy, held-out",
         {{"/static/accuracy", "static"}, {"/dynamic/accuracy", "dynamic"}},
         true},
        {"eval",
         "Tokens per pass, held-out",
         {{"/static/tokens_per_forward", "static"}, {"/dynamic/tokens_per_forward", "dynamic"}}},
        {"rl", "Reward of rollouts", {{"/rollout/reward", "reward"}, {"/rollout/accuracy", "right"}}, true},
        {"rl",
         "Tokens per reveal step",
         {{"/rollout/tokens_per_step_right", "right answers"},
          {"/rollout/tokens_per_step_wrong", "wrong answers"}}},
        {"rl", "Length of responses", {{"/rollout/length", ""}}},
        {"rl", "Truncated responses", {{"/rollout/truncated", ""}}, true},
        {"rl", "Groups kept", {{"/kept_groups", "kept"}, {"/groups", "all"}}},
        {"rl",
         "Entropy",
         {{"/rollout/entropy", ""}},
         false,
         true,
         "of the distributions that tokens were drawn from, nats"},
        {"rl", "Divergence from the old policy", {{"/kl", ""}}, false, true, "k3, nats per token"},
        {"rl", "Clipped tokens", {{"/clip_fraction", ""}}, true},
        {"rl", "Largest ratio", {{"/max_ratio", ""}}, false, false},
        {"rl", "Gradient norm", {{"/grad_norm", "policy"}, {"/value_grad_norm", "value model"}}},
        {"rl", "Value loss", {{"/value_loss", ""}}},
        {"rl", "Explained variance of returns", {{"/explained_variance", ""}}},
        {"rl",
         "Largest mismatch of log-probs",
         {{"/logprob_mismatch", ""}},
         false,
         true,
         "training against rollout, same weights"},
        {"rl",
         "Seconds per step",
         {{"/seconds", "all"}, {"/rollout_s", "rollout"}, {"/update_s", "update"}, {"/reward_s", "reward"}}},
        {"rl",
         "Tokens forwarded",
         {{"/trained_tokens", "trained"}, {"/forwarded_tokens", "update"}, {"/rollout_rows", "rollout"}}},
        {"rl", "Memory", {{"/memory_mib", ""}}, false, true, "largest so far, MiB"},
        {"sft", "SFT loss", {{"/loss", ""}}},
        {"sft", "Nats per trained token", {{"/nll", "trained"}, {"/eval_nll", "held out"}}},
        {"sft", "SFT accuracy", {{"/accuracy", ""}}, true},
        {"sft", "SFT gradient norm", {{"/grad_norm", ""}}},
    };
    return SPECS;
}

std::string phase_of(const Json& line) { return line.value("phase", "sft"); }

double number_at(const Json& line, const char* place) {
    const Json::json_pointer at{std::string(place)};
    return line.contains(at) && line.at(at).is_number() ? line.at(at).get<double>() : NAN;
}

// The step at which RL began: curves of RL count from there, so that runs with different warm starts compare.
double rl_begins(const RunRecord& run) {
    double last_sft = 0;
    for (const Json& line : run.metrics)
        if (phase_of(line) == "sft") last_sft = std::max(last_sft, number_at(line, "/step"));
    return last_sft;
}

Series series_of(const RunRecord& run, const ChartSpec& spec, const CurveSpec& curve) {
    const double zero = std::string(spec.phase) == "sft" ? 0 : rl_begins(run);
    Series s = {.label = curve.label, .dots = std::string(spec.phase) == "eval"};
    bool any = false;
    for (const Json& line : run.metrics) {
        const double x = number_at(line, "/step") - zero, y = number_at(line, curve.place);
        const bool none = y == 0 && std::string(curve.place).find("tokens_per_step") != std::string::npos;
        if (phase_of(line) != spec.phase || none || !std::isfinite(x) || !std::isfinite(y) || x < 0) continue;
        if (!s.x.empty() && s.x.back() >= x) continue;  // two evaluations of the same weights
        s.x.push_back(x);
        s.y.push_back(y);
        any = any || y != 0;
    }
    return any ? s : Series{};  // never anything but zero: not a part of this run
}

// ---- evaluations

struct Milestone {
    std::string name;
    double fixed, dynamic, fixed_speed, dynamic_speed, length, truncated;
};
std::vector<Milestone> milestones(const RunRecord& run) {
    std::vector<Milestone> out;
    for (const Json& line : run.metrics)
        if (phase_of(line) == "eval")
            out.push_back({line.value("name", ""), number_at(line, "/static/accuracy"),
                           number_at(line, "/dynamic/accuracy"),
                           number_at(line, "/static/tokens_per_forward"),
                           number_at(line, "/dynamic/tokens_per_forward"), number_at(line, "/dynamic/length"),
                           number_at(line, "/dynamic/truncated")});
    return out;
}

// One of those that --eval-every makes: they are in the curves.
bool is_between(const Milestone& m) { return m.name.starts_with("RL step"); }

const char* TABLE_HEAD =
    "<table><thead><tr><th></th><th colspan=2>accuracy</th><th colspan=2>tokens per forward pass</th>"
    "<th>length</th><th>truncated</th></tr><tr><th></th><th>static</th><th>dynamic</th><th>static</th>"
    "<th>dynamic</th><th>dynamic</th><th>dynamic</th></tr></thead><tbody>\n";

std::string table(const std::string& rows) {
    if (rows.empty()) return "";
    return "<div class=\"wide\">" + std::string(TABLE_HEAD) + rows + "</tbody></table></div>\n";
}

std::string table_row(const std::string& name, const std::vector<std::string>& cells) {
    std::string row = "<tr><th>" + html_text(name) + "</th>";
    for (const std::string& cell : cells) row += "<td>" + cell + "</td>";
    return row + "</tr>\n";
}

std::string before_after(const RunRecord& run) {
    std::string rows;
    std::vector<Milestone> all = milestones(run);
    constexpr size_t MOST_ROWS = 12;
    if (all.size() > MOST_ROWS) std::erase_if(all, is_between);
    for (const Milestone& m : all)
        rows += table_row(m.name, {format("%.1f%%", 100 * m.fixed), format("%.1f%%", 100 * m.dynamic),
                                   format("%.2f", m.fixed_speed), format("%.2f", m.dynamic_speed),
                                   format("%.1f", m.length), format("%.1f%%", 100 * m.truncated)});
    return table(rows);
}

// ---- configurations

std::string name_of_run(const RunRecord& run) {
    return fs::path(run.folder).lexically_normal().filename().string().empty()
               ? fs::path(run.folder).lexically_normal().parent_path().filename().string()
               : fs::path(run.folder).lexically_normal().filename().string();
}

std::string facts(const RunRecord& run) {
    std::map<std::string, std::string> s = toml_texts(run.config);
    int rl = 0, sft = 0, skipped = 0;
    double seconds = 0, mismatch = NAN;
    for (const Json& line : run.metrics) {
        const std::string phase = phase_of(line);
        rl += phase == "rl";
        sft += phase == "sft";
        double t = number_at(line, "/seconds");
        if (!std::isfinite(t))  // as older runs have it
            t = number_at(line, "/rollout_s") + number_at(line, "/reward_s") + number_at(line, "/update_s");
        if (std::isfinite(t)) seconds += t;
        mismatch = std::fmax(mismatch, number_at(line, "/logprob_mismatch"));
        const double bad = number_at(line, "/skipped_updates");
        if (std::isfinite(bad)) skipped += int(bad);
    }
    std::string text = s["model"].empty() ? "a new " + s["init"] + " model" : s["model"];
    if (!s["task"].empty()) text += ", task " + s["task"];
    if (!s["objective"].empty()) text += ", " + s["objective"];
    text += format(", seed %s; %d steps of SFT, %d of reinforcement learning, %s", s["seed"].c_str(), sft, rl,
                   format_duration(seconds).c_str());
    if (std::isfinite(mismatch))
        text += mismatch > 0 ? format("; training log-probs within %.0e of the rollout's", mismatch)
                             : "; training log-probs equal the rollout's";
    if (skipped) text += format("; %d updates skipped, their gradients were not finite", skipped);
    return "<p class=\"note\">" + html_text(text) + "</p>\n";
}

// ---- samples

// What the player wants of a line of samples/eval-*.jsonl.
Json player_trace(const Json& line) {
    const bool right = line.at("reward").get<double>() >= 1;
    return {{"label", line.at("milestone").get<std::string>() + ": " + (right ? "right" : "wrong") + ", " +
                          line.at("text").get<std::string>().substr(0, 30)},
            {"prompt", line.at("prompt")},
            {"pieces", line.at("pieces")},
            {"step_map", line.at("step_map")},
            {"is_special", line.at("is_special")},
            {"logprobs", line.at("logprobs")},
            {"ids", line.at("output_ids")},
            {"blocks", line.at("blocks")},
            {"n_output", line.at("output_ids").size()},
            {"finish_reason", line.at("finish_reason")},
            {"forward_passes", line.at("forward_passes")},
            {"denoise_steps", line.at("denoise_steps")}};
}

std::string samples(const RunRecord& run) {
    Json traces = Json::array();
    for (size_t i = run.traces.size(); i-- > 0;)  // the newest first
        if (!run.traces[i].at("output_ids").empty()) traces.push_back(player_trace(run.traces[i]));
    return traces.empty() ? "" : "<h2>How answers came to be</h2>\n" + trace_player(traces);
}

// ---- pages

std::string page(const std::string& title, const std::string& body) {
    return page_head(title, R"css(body { max-width: 76rem; }
h2 { font-size: 1rem; margin: 2rem 0 .6rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; margin: .8rem 0; }
th, td { padding: .15rem .8rem; text-align: right; white-space: nowrap; }
thead th { color: var(--soft); font-weight: normal; font-size: .85rem; }
tbody th { text-align: left; font-weight: normal; }
tbody tr { border-top: 1px solid var(--line); }
pre { font: 12px/1.45 ui-monospace, monospace; overflow-x: auto; border: 1px solid var(--line); border-radius: 4px; padding: .6rem; }
summary { cursor: pointer; color: var(--soft); }
)css" + chart_style() + trace_player_style()) +
           "<h1>" + html_text(title) + "</h1>\n" + body + chart_script() + "</body></html>\n";
}

std::string charts(const std::string& heading, const std::string& inside) {
    return inside.empty() ? "" : "<h2>" + heading + "</h2>\n<div class=\"charts\">\n" + inside + "</div>\n";
}

bool is_sft(const ChartSpec& spec) { return std::string(spec.phase) == "sft"; }

// ---- several runs

// Runs that differ in their seed alone.
struct Group {
    std::string label;
    std::vector<const RunRecord*> runs;
};

// What may differ between the runs of a group, or says nothing of what was learned.
bool is_incidental(const std::string& key) {
    return std::set<std::string>{"seed", "name",       "threads",       "progress",     "quiet", "device",
                                 "keep", "save-every", "samples-every", "keep-samples", "json"}
        .contains(key);
}

std::vector<Group> grouped(const std::vector<RunRecord>& runs) {
    std::vector<std::map<std::string, std::string>> all, kinds;
    std::vector<Group> groups;
    for (const RunRecord& run : runs) {
        std::map<std::string, std::string> kind = toml_texts(run.config);
        std::erase_if(kind, [](const auto& entry) { return is_incidental(entry.first); });
        const auto found = std::find(kinds.begin(), kinds.end(), kind);
        if (found != kinds.end() && !kind.empty()) {
            groups[size_t(found - kinds.begin())].runs.push_back(&run);
        } else {
            kinds.push_back(kind);
            groups.push_back({"", {&run}});
        }
    }
    std::set<std::string> keys;  // that differ between groups
    for (const auto& kind : kinds)
        for (const auto& other : kinds)
            for (const auto& [key, value] : kind)
                if (const auto at = other.find(key); at == other.end() || at->second != value)
                    keys.insert(key);
    for (size_t g = 0; g < groups.size(); g++) {
        for (const std::string& key : keys)
            if (const auto at = kinds[g].find(key); at != kinds[g].end())
                groups[g].label += (groups[g].label.empty() ? "" : ", ") + key + " " + at->second;
        if (groups[g].label.empty() || groups[g].label.size() > 80)
            groups[g].label = name_of_run(*groups[g].runs[0]);
        if (groups[g].runs.size() > 1) groups[g].label += format(" (%zu seeds)", groups[g].runs.size());
    }
    return groups;
}

// The mean over the runs at every step that all of them have reached, with the smallest and the largest.
Series mean_series(const Group& group, const ChartSpec& spec, const CurveSpec& curve, int colour) {
    std::map<double, std::vector<double>> values;
    for (const RunRecord* run : group.runs) {
        const Series s = series_of(*run, spec, curve);
        for (size_t i = 0; i < s.x.size(); i++) values[s.x[i]].push_back(s.y[i]);
    }
    Series out = {.label = group.label, .colour = colour % 6, .dots = std::string(spec.phase) == "eval"};
    for (const auto& [x, ys] : values) {
        if (ys.size() < group.runs.size()) continue;
        double sum = 0;
        for (const double y : ys) sum += y;
        out.x.push_back(x);
        out.y.push_back(sum / double(ys.size()));
        if (ys.size() == 1) continue;
        out.low.push_back(*std::min_element(ys.begin(), ys.end()));
        out.high.push_back(*std::max_element(ys.begin(), ys.end()));
    }
    return out;
}

// "48.6% ± 2.1": mean and standard deviation over runs.
std::string mean_and_spread(const std::vector<double>& x, double scale, const char* one) {
    double sum = 0, squares = 0;
    for (const double v : x) sum += v * scale;
    const double mean = sum / double(x.size());
    for (const double v : x) squares += (v * scale - mean) * (v * scale - mean);
    std::string text = format(one, mean);
    if (x.size() > 1)
        text += " ± " + format(scale == 100 ? "%.1f" : "%.2f", std::sqrt(squares / double(x.size() - 1)));
    return text;
}

std::string compared_table(const std::vector<Group>& groups) {
    std::string rows;
    for (const Group& g : groups) {
        std::vector<std::string> names;
        std::map<std::string, std::vector<Milestone>> by_name;
        for (const RunRecord* run : g.runs)
            for (const Milestone& m : milestones(*run)) {
                if (!by_name.contains(m.name)) names.push_back(m.name);
                by_name[m.name].push_back(m);
            }
        for (const std::string& name : names) {
            const std::vector<Milestone>& all = by_name[name];
            if (is_between(all[0])) continue;
            const auto cell = [&](double Milestone::*field, double scale, const char* one) {
                std::vector<double> x;
                for (const Milestone& m : all) x.push_back(m.*field);
                return mean_and_spread(x, scale, one);
            };
            rows += table_row(
                g.label + ": " + name,
                {cell(&Milestone::fixed, 100, "%.1f%%"), cell(&Milestone::dynamic, 100, "%.1f%%"),
                 cell(&Milestone::fixed_speed, 1, "%.2f"), cell(&Milestone::dynamic_speed, 1, "%.2f"),
                 cell(&Milestone::length, 1, "%.1f"), cell(&Milestone::truncated, 100, "%.1f%%")});
        }
    }
    return table(rows);
}

// Of metrics.jsonl, the lines that have their end. A run that is under way, or was killed, may leave half of one.
std::string whole_lines(const std::string& file) {
    std::string text = read_text(file);
    const size_t end = text.rfind('\n') + 1;  // 0 where there is none
    if (end < text.size())
        log_warning("%s: the last line has no end, so it is still being written or was cut; it is left out",
                    file.c_str());
    text.resize(end);
    return text;
}

}  // namespace

RunRecord read_run(const std::string& folder) {
    RunRecord run{.folder = folder};
    const std::string metrics = folder + "/metrics.jsonl";
    if (!file_exists(metrics))
        fail(Exit::BadFile, "%s: %s (no metrics.jsonl)", folder.c_str(),
             file_exists(folder + "/config.toml") ? "the run has measured nothing so far"
                                                  : "is no run's folder");
    if (file_exists(folder + "/config.toml")) run.config = read_text(folder + "/config.toml");
    parse_jsonl(whole_lines(metrics), metrics, [&](const Json& line, const std::string& where) {
        if (!line.is_object()) fail(Exit::BadFile, "%s: is not an object", where.c_str());
        run.metrics.push_back(line);
    });
    std::vector<std::string> files;
    if (folder_exists(folder + "/samples"))
        for (const auto& entry : fs::directory_iterator(folder + "/samples"))
            if (entry.path().filename().string().starts_with("eval-")) files.push_back(entry.path().string());
    std::sort(files.begin(), files.end());
    // A run of weeks has thousands of them: where it came from, and where it is.
    constexpr std::ptrdiff_t FIRST = 2, NEWEST = 6;
    if (std::ssize(files) > FIRST + NEWEST) files.erase(files.begin() + FIRST, files.end() - NEWEST);
    for (const std::string& file : files)
        read_jsonl(file, [&](const Json& line, const std::string& where) {
            for (const char* field :
                 {"milestone", "pieces", "is_special", "blocks", "step_map", "output_ids", "reward", "text"})
                if (!line.is_object() || !has(line, field))
                    fail(Exit::BadFile, "%s: field '%s' is missing", where.c_str(), field);
            run.traces.push_back(line);
        });
    return run;
}

std::string run_report(const RunRecord& run) {
    std::string learning, warm_start;
    for (const ChartSpec& spec : chart_specs()) {
        Chart chart = {.title = spec.title,
                       .note = spec.note,
                       .percent = spec.percent,
                       .from_zero = spec.from_zero,
                       .series = {}};
        for (const CurveSpec& curve : spec.curves) {
            Series s = series_of(run, spec, curve);
            s.colour = int(chart.series.size()) % 6;
            if (!s.x.empty()) chart.series.push_back(std::move(s));
        }
        (is_sft(spec) ? warm_start : learning) += chart_html(chart);
    }
    return page(name_of_run(run),
                facts(run) + before_after(run) + charts("Reinforcement learning", learning) +
                    charts("Supervised fine-tuning", warm_start) + samples(run) +
                    (run.config.empty() ? ""
                                        : "<details><summary>config.toml</summary><pre>" +
                                              html_text(run.config) + "</pre></details>\n"));
}

std::string comparison_report(const std::vector<RunRecord>& runs) {
    const std::vector<Group> groups = grouped(runs);
    std::string learning, warm_start;
    for (const ChartSpec& spec : chart_specs())
        for (const CurveSpec& curve : spec.curves) {
            const bool named = spec.curves.size() > 1 && *curve.label;
            Chart chart = {.title = spec.title + std::string(named ? ": " : "") + (named ? curve.label : ""),
                           .note = spec.note,
                           .percent = spec.percent,
                           .from_zero = spec.from_zero,
                           .series = {}};
            chart.legend = false;  // one for the page
            for (size_t g = 0; g < groups.size(); g++) {
                Series s = mean_series(groups[g], spec, curve, int(g));
                if (!s.x.empty()) chart.series.push_back(std::move(s));
            }
            (is_sft(spec) ? warm_start : learning) += chart_html(chart);
        }
    std::vector<Series> legend;
    for (size_t g = 0; g < groups.size(); g++)
        legend.push_back({.label = groups[g].label, .colour = int(g) % 6});
    std::string names;
    for (const RunRecord& run : runs) names += (names.empty() ? "" : ", ") + run.folder;
    return page(
        format("%zu runs compared", runs.size()),
        "<p class=\"note\">" + html_text(names) +
            "; curves are means, bands from the smallest to the largest; ± is the standard deviation</p>\n" +
            compared_table(groups) + "<p>" + legend_html(legend) + "</p>\n" +
            charts("Reinforcement learning", learning) + charts("Supervised fine-tuning", warm_start));
}

void write_report(const std::string& folder) {
    if (!file_exists(folder + "/metrics.jsonl")) return;  // stopped before anything was done
    try {
        write_file_atomic(folder + "/report.html", run_report(read_run(folder)));
    } catch (const Error& e) {
        log_warning("no report.html: %s", e.what());
    }
}
