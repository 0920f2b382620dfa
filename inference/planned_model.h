// planned_model.h -- a model whose memory is planned, and printed with --dry-run, before its weights are read.
#pragma once
#include <string>

#include "inference/engine.h"
#include "utils/cli.h"
#include "weights_tools/model_folder.h"

struct PlannedModel {
    const ModelFolder& folder;
    Ops& ops;
    Arena arena;
    Parameters weights;

    // dtype: "fp32", "bf16", or "auto" for the folder's own. Both references must outlive this.
    PlannedModel(const ModelFolder& folder, Ops& ops, const std::string& dtype);
    const ModelConfig& config() const { return folder.config; }

    // With --dry-run prints the plan, tensor by tensor where `detailed`; false then. Otherwise loads the weights, which lie
    // in mapped files where they can, and allocates `work`, the memory of what the model is to do within `limits`. Throws
    // Error(NoMemory) where the two do not fit together, and what load_weights() throws.
    bool ready(Arena& work, const EngineLimits& limits, const Common& common, bool detailed);
};
