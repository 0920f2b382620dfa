#include "inference/planned_model.h"

#include "inference/infer_plan.h"
#include "utils/json.h"

PlannedModel::PlannedModel(const ModelFolder& folder, Ops& ops, const std::string& dtype)
    : folder(folder), ops(ops), arena("weights", ops) {
    const bool bf16 = dtype == "auto" ? folder.dtype == DType::BF16 : dtype == "bf16";
    weights.plan(arena, config(), Head::Policy, bf16 ? DType::BF16 : DType::F32);
}

bool PlannedModel::ready(Arena& work, const EngineLimits& limits, const Common& common, bool detailed) {
    const Arena* arenas[] = {&arena, &work};
    const size_t available = ops.available();
    if (common.dry_run && common.json)
        printf("%s\n", dump(plan_json(arenas, limits)).c_str());
    else if (common.dry_run)
        print_plan(stdout, arenas, available, limits, detailed);
    check_memory(arenas, available);
    if (common.dry_run) return false;
    arena.allocate();
    if (ops.on_host()) use_files(folder, weights);
    weights.bind(config());
    load_weights(folder, weights, ops);
    work.allocate();
    return true;
}
