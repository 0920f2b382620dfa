// report.h -- a run's folder as one page: curves, what it was before and after, how answers came to be; and
// several runs compared, those that differ in nothing but their seed as one curve with its spread.
//
// Everything is read from the folder (config.toml, metrics.jsonl, samples/eval-*.jsonl), so a page can be made
// again at any time, from a run that is under way too.
#pragma once
#include <string>
#include <vector>

#include "utils/json.h"

struct RunRecord {
    std::string folder = {}, config = {};  // config.toml as it stands; "" where there is none
    std::vector<Json> metrics = {};        // lines of metrics.jsonl
    std::vector<Json> traces = {};         // lines of samples/eval-*.jsonl
};
// Throws Error(BadFile) where there are no metrics, or a line of them is broken. A last line without its end, as a run that
// is under way may just have, is left out with a warning.
RunRecord read_run(const std::string& folder);

std::string run_report(const RunRecord& run);
std::string comparison_report(const std::vector<RunRecord>& runs);

// Writes FOLDER/report.html, whole or not at all. A report that cannot be written is a warning, never the end of a run.
void write_report(const std::string& folder);
