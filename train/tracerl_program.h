// tracerl_program.h -- from the options of a TraceRL run to the run: models, tokenizer, task, memory plan, run folder.
#pragma once
#include "train/run_flags.h"

struct TracerlRequest {
    std::string model;        // folder; "": a model is made (RunFlags::preset)
    std::string value_model;  // folder, `init`: the policy's body with a zero head; "": none
    RunFlags flags;
    RlOptions rl;
    std::string config_toml;  // the options as resolved, for the run folder
};

// Runs, resumes or (common.dry_run) plans. Ok, or the code of the signal that stopped it.
Exit run_tracerl(Ops& ops, TracerlRequest request, const Common& common, const Options& options);
