// sft_program.h -- from the options of `train_sft` to a run: model, tokenizer, data, memory plan, run folder.
#pragma once
#include <optional>
#include <string>

#include "inference/text_flags.h"
#include "train/programs/memory_plan.h"
#include "train/programs/options.h"
#include "train/sft_data.h"
#include "train/sft_run.h"
#include "weights_tools/model_folder.h"

struct SftFlags {
    std::string model;
    TextFlags text;
    std::string data, eval_data;
    double eval_split = 0;
    SftDataOptions reading;
    int block = 0, token_budget = 0;
    OptimizerOptions optimizer;
    SftRunOptions run;
    ReplayFlags replay;
    MemoryFlags memory;
    std::string name = "sft", out, resume;

    SftFlags() { optimizer.lr = 1e-5; }
    void declare(Options& flags);  // `this` must outlive `flags`
};

// What is settled before any work: files are read, options are resolved against the model and the data.
struct SftPlan {
    SftFlags flags;
    std::optional<RunFolder> folder;  // of a run to resume
    std::optional<ModelFolder>
        model;  // where weights come from: --model, or the resumed run's newest checkpoint
    std::vector<SftExample> train, held_out;
    MicroBatchLimits limits;
    int block() const { return model->config.full_attention ? 0 : model->config.B; }
};

// Adds everything that is wrong with the flags; only what needs a part that is at fault is not looked at.
SftPlan plan_sft(const SftFlags& flags, const Common& common, const Options& options, Faults& faults);

// Runs, resumes or (common.dry_run) prints the plan. Ok, or the code of the signal that stopped it.
Exit run_sft(Ops& ops, SftPlan& plan, const Common& common, const std::string& config_toml);
