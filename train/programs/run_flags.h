// run_flags.h -- the options of a TraceRL run that replay has no use for.
#pragma once
#include <string>

#include "inference/decoding_flags.h"
#include "inference/text_flags.h"
#include "train/programs/memory_plan.h"
#include "train/programs/options.h"
#include "train/tracerl_run.h"

// "STEP:N,STEP:N,...", steps rising; "" is none. Throws Error(Usage).
std::vector<TraceRlRunOptions::Limit> parse_length_schedule(const std::string& text, int gen_length);

struct RunFlags {
    std::string name = "tracerl";
    std::string preset = "tiny";  // of a model made here, where there is no --model
    TextFlags text;
    std::string prompt_template = "chat";
    std::vector<std::string> task = {"arithmetic"};
    std::vector<std::string> eval_task;  // empty: the same
    std::string out, resume;
    int token_budget = 0;  // of a micro-batch; 0: what suits
    int max_active = 128;
    std::string length_schedule;
    DecodingFlags decoding;
    MemoryFlags memory;
    TraceRlRunOptions run;

    RunFlags();
    // `this` must outlive `flags`.
    void declare(Options& flags);
};
