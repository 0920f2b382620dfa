// names.h -- what a tensor is called in the folders of each family.
//
// Inside the engine every body's tensors carry the names of the Qwen family
// ("model.layers.0.self_attn.q_proj.weight", model/parameters.h). SDAR, TraDo, Dream and Qwen folders use the
// same; LLaDA's have names of their own.
#pragma once
#include <string>

#include "model/config.h"

std::string folder_name(Family family, const std::string& name);
