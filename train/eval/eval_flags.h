// eval_flags.h -- every option of the `eval` program.
#pragma once
#include <string>
#include <vector>

#include "inference/decoding_flags.h"
#include "inference/text_flags.h"
#include "train/tasks/task.h"

struct EvalFlags {
    // Models
    std::vector<std::string> models;  // folders or runs; none: the small model that comes along
    TextFlags text;
    std::string prompt_template = "chat";
    // What is measured
    std::vector<std::string> task = {"arithmetic:working=totals"};
    Split split = Split::HeldOut;
    int64_t problems = 0;  // 0: all of a data file, 256 generated ones
    int samples = 1;
    std::vector<int> pass_at;
    std::string grade_only, choices;
    bool likelihood = false, score_end = false;
    int mask_sets = 32;
    DecodingFlags decoding;
    // Limits and output
    int max_active = 32, max_rows = 0;
    std::string items;

    void declare(Options& flags);  // `this` must outlive `flags`

  private:
    void refuse_idle(const Options& flags, Faults& faults) const;
};

// Where the first model is the folder of a run: the options that it shares with an evaluation (task, block
// length, ...) and that were not given are the run's. Throws Error(BadFile) where its config.toml is unsound.
void adopt_run_options(EvalFlags& f, const Options& given);

// Problems to evaluate on, of the split that was asked for. Throws Error(Usage) where there are none.
std::vector<Problem> evaluation_problems(const EvalFlags& f, const Task& task);
