#include "train/eval/eval_table.h"

#include <algorithm>
#include <set>

#include "tokenizer/unicode.h"
#include "utils/json.h"

Json to_json(const EvalRow& row) {
    const Scores& s = row.scores;
    Json out = {
        {"model", row.model}, {"decoding", row.decoding}, {"problems", s.problems}, {"samples", s.samples}};
    out.update(to_json(s.stats));
    out["accuracy_low"] = s.accuracy.low;
    out["accuracy_high"] = s.accuracy.high;
    for (const auto& [k, share] : s.pass_at) out["pass_at"][std::to_string(k)] = share;
    out["ungraded"] = row.ungraded;
    out["seconds"] = row.seconds;
    out["interrupted"] = row.interrupted;
    return out;
}

std::string aligned(const std::vector<std::vector<std::string>>& rows) {
    std::vector<size_t> width;
    for (const auto& row : rows) {
        width.resize(std::max(width.size(), row.size()));
        for (size_t i = 0; i < row.size(); i++) width[i] = std::max(width[i], size_t(columns(row[i])));
    }
    std::string out;
    for (const auto& row : rows) {
        std::string line;
        for (size_t i = 0; i < row.size(); i++) {
            const std::string space(width[i] - size_t(columns(row[i])), ' ');
            line += (i ? "  " : "") + (i ? space + row[i] : row[i] + space);
        }
        out += line.substr(0, line.find_last_not_of(' ') + 1) + "\n";
    }
    return out;
}

std::string eval_table(const std::vector<EvalRow>& rows) {
    std::set<int> ks;
    int samples = 1;
    for (const EvalRow& r : rows) {
        samples = std::max(samples, r.scores.samples);
        for (const auto& [k, share] : r.scores.pass_at) ks.insert(k);
    }
    std::vector<std::vector<std::string>> cells;
    std::vector<std::string>& head = cells.emplace_back();
    head = {"model", "decoding", "problems", samples > 1 ? format("avg@%d", samples) : "accuracy",
            "95% of it"};
    for (const int k : ks) head.push_back(format("pass@%d", k));
    for (const char* name : {"tokens/forward", "length", "truncated", "time"}) head.push_back(name);
    for (const EvalRow& r : rows) {
        const Scores& s = r.scores;
        // There may be none where it was stopped.
        const auto if_any = [&](const std::string& text) { return s.problems ? text : "-"; };
        const auto percent = [&](double share) { return if_any(format("%.1f%%", 100 * share)); };
        std::vector<std::string>& line = cells.emplace_back();
        line = {r.model, r.decoding,
                format("%lld", (long long)s.problems) + (r.interrupted ? " (stopped)" : ""),
                percent(s.stats.accuracy),
                if_any(format("%.1f-%.1f%%", 100 * s.accuracy.low, 100 * s.accuracy.high))};
        for (const int k : ks) {
            const auto found = std::find_if(s.pass_at.begin(), s.pass_at.end(),
                                            [k](const auto& entry) { return entry.first == k; });
            line.push_back(found == s.pass_at.end() ? "" : percent(found->second));
        }
        line.push_back(if_any(format("%.2f", s.stats.tokens_per_forward)));
        line.push_back(if_any(format("%.1f", s.stats.length)));
        line.push_back(percent(s.stats.truncated));
        line.push_back(r.seconds > 0 ? format("%.1f s", r.seconds) : "");
    }
    return aligned(cells);
}
