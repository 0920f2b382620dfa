#include "inference/trajectory.h"

#include "utils/json.h"

double tokens_per_forward(const Trajectory& t) {
    return t.forward_passes ? double(t.output_ids.size()) / t.forward_passes : 0.0;
}

Json to_json(const Trajectory& t) {
    return {{"prompt_ids", t.prompt_ids},
            {"output_ids", t.output_ids},
            {"step_map", t.step_map},
            {"logprobs", t.logprobs},
            {"tail_ids", t.tail_ids},
            {"tail_steps", t.tail_steps},
            {"finish_reason", t.finish_reason},
            {"denoise_steps", t.denoise_steps},
            {"forward_passes", t.forward_passes},
            {"tokens_per_forward", tokens_per_forward(t)}};
}
