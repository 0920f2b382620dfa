// presets.h -- the shapes of models that can be made from nothing.
#pragma once
#include <string>
#include <vector>

#include "model/config.h"

// tiny, mini, small (SDAR-shaped, for a laptop), and the published sdar-1.7b, sdar-4b, sdar-8b, dream-7b, llada-8b.
const std::vector<std::string>& model_presets();

// Published presets come with their vocabulary, mask and stop ids; the small ones have V = 0 and mask_id = -1
// until they are given a tokenizer's. Throws Error(Usage) for an unknown name.
ModelConfig model_preset(const std::string& name);
