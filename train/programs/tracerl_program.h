// tracerl_program.h -- from the options of a TraceRL run to the run: models, tokenizer, task, memory plan, run folder.
#pragma once
#include <optional>

#include "inference/text_model.h"
#include "train/programs/run_flags.h"

struct TracerlRequest {
    std::string model;        // folder; "": a model is made (RunFlags::preset)
    std::string value_model;  // folder, `init`: the policy's body with a zero head; "": none
    RunFlags flags;
    RlOptions rl;
};

// What is settled before any work: files are read, options are resolved against the model and the task.
struct TracerlPlan {
    TracerlRequest request;
    std::optional<RunFolder> folder;          // of a run to resume
    std::string policy_folder, value_folder;  // where weights come from; "": a new model
    ModelConfig config;
    std::optional<ModelConfig> value_config;
    std::unique_ptr<TextModel> text;
    TextCodec codec;
    Task task;
    std::optional<Task> other_eval_task;  // where there is one
    const Task& eval_task() const { return other_eval_task ? *other_eval_task : task; }
    int longest_prompt = 0;  // tokens
    MicroBatchLimits limits;
};

// Adds everything that is wrong with the request; only what needs a part that is at fault is not looked at.
TracerlPlan plan_tracerl(TracerlRequest request, const Common& common, Faults& faults);

// Runs, resumes or (common.dry_run) prints the plan. Ok, or the code of the signal that stopped it.
Exit run_tracerl(Ops& ops, TracerlPlan& plan, const Common& common, const std::string& config_toml);
