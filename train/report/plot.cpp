#include "train/report/plot.h"

#include <cstdio>

#include "train/report/report.h"
#include "utils/cli.h"
#include "utils/files.h"
#include "utils/json.h"
#include "utils/log.h"

static const char* EXAMPLES = R"(Examples:
  ./train_tracerl plot runs/*
      all of them in comparison.html; runs that differ in their seed alone are one curve with its spread, and
      what is no run, such as a model's folder, is left out
  ./train_tracerl plot RUN
      RUN/report.html again, of a run that is under way too)";

int plot_main(int argc, char** argv) {
    Common common;
    std::vector<std::string> folders;
    std::string out;
    return run_main(
        argc, argv, "One page of curves from the folders of one or several runs.", common,
        [&](Options& options) {
            options.add("RUN...", &folders, "folders of runs").required();
            options.add(
                "--out FILE", &out,
                "the page (default: comparison.html, or the folder's report.html where there is one RUN)");
            options.epilog(EXAMPLES);
        },
        [&](const Options&) {
            std::vector<RunRecord> runs;
            const bool one = folders.size() == 1;
            for (const std::string& folder : folders)
                if (!one && file_exists(folder) && !file_exists(folder + "/metrics.jsonl"))
                    log_warning("%s: holds no metrics.jsonl and is left out", folder.c_str());
                else
                    runs.push_back(read_run(folder));
            if (runs.empty()) fail(Exit::BadFile, "none of these is a run's folder");
            const std::string file = !out.empty() ? out
                                     : one        ? folders[0] + "/report.html"
                                                  : "comparison.html";
            if (!common.dry_run) write_file_atomic(file, one ? run_report(runs[0]) : comparison_report(runs));
            Json drawn = Json::array();
            for (const RunRecord& run : runs) drawn.push_back(run.folder);
            printf("%s\n", common.json ? dump({{"runs", drawn}, {"page", file}}).c_str() : file.c_str());
            return Exit::Ok;
        });
}
