#include "inference/trajectory.h"

#include <algorithm>

#include "utils/json.h"

int64_t generated_tokens(const Trajectory& t) {
    return std::count_if(t.step_map.begin(), t.step_map.end(), [](int step) { return step > 0; });
}

double tokens_per_forward(const Trajectory& t) {
    return t.forward_passes ? double(generated_tokens(t)) / t.forward_passes : 0.0;
}

Json to_json(const Trajectory& t) {
    Json out = {{"prompt_ids", t.prompt_ids},
                {"output_ids", t.output_ids},
                {"step_map", t.step_map},
                {"logprobs", json_floats(t.logprobs)},
                {"tail_ids", t.tail_ids},
                {"tail_steps", t.tail_steps},
                {"finish_reason", t.finish_reason},
                {"denoise_steps", t.denoise_steps},
                {"forward_passes", t.forward_passes},
                {"tokens_per_forward", tokens_per_forward(t)},
                {"entropy", t.entropy}};
    if (!t.cache.empty()) out["cache"] = t.cache;
    if (t.cfg_scale > 0) out["cfg_scale"] = json_floats({&t.cfg_scale, 1})[0];
    return out;
}
