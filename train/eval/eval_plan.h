// eval_plan.h -- what an evaluation is to do, settled before any work: models, problems, options.
#pragma once
#include <memory>
#include <optional>
#include <vector>

#include "inference/engine.h"
#include "inference/text_model.h"
#include "train/codec.h"
#include "train/eval/choices.h"
#include "train/eval/eval_flags.h"
#include "weights_tools/model_folder.h"

// A model that is to be evaluated, as far as its files say.
struct EvalSubject {
    std::string name;  // as it was given, or "default model"
    ModelFolder folder;
    TextModel text;
    TextCodec codec;
    GenerateOptions options;  // where it is to generate
    std::vector<Request> requests;

    EvalSubject(const std::string& given, const EvalFlags& flags);
    EvalSubject(const EvalSubject&) = delete;  // `codec` refers to `text`
    const ModelConfig& config() const { return folder.config; }
};

// What is settled before any work: files are read, options are resolved against the models.
struct EvalPlan {
    EvalFlags flags;
    std::optional<Task> task;               // not with --choices
    std::vector<Problem> problems;          // to respond to, or with solutions whose likelihood is asked for
    std::vector<ChoiceQuestion> questions;  // of --choices
    std::vector<std::unique_ptr<EvalSubject>> subjects;
    std::unique_ptr<Tokenizer> tokenizer;  // of --grade-only, for a command that judges; null: none was named
    std::string rule;  // of decoding, where one was asked for: its name; "": static and dynamic
};

// Adds everything that is wrong with the flags; only what needs a part that is at fault is not looked at.
EvalPlan plan_eval(const EvalFlags& flags, const Common& common, const Options& options, Faults& faults);
