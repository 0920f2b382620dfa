// sft_program.h -- from the options of `train_sft` to a run: model, tokenizer, data, memory plan, run folder.
#pragma once
#include <string>

#include "inference/text_flags.h"
#include "train/memory_plan.h"
#include "train/options.h"
#include "train/sft_data.h"
#include "train/sft_run.h"

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

// Runs, resumes or (common.dry_run) plans. Ok, or the code of the signal that stopped it.
Exit run_sft(Ops& ops, SftFlags flags, const Common& common, const std::string& config_toml);
