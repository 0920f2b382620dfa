// init_folder.h -- `convert init`: a model folder with random weights, made piece by piece.
#pragma once
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "model/config.h"
#include "utils/tensor.h"

// What a tokenizer says about a model.
struct Vocabulary {
    int rows = 0;  // of the embedding; 0: the preset's own
    int mask_id = -1;
    std::vector<int> eos_ids;  // the end of a turn first, the end of a text last
};

// The preset with the vocabulary and with fields of its config.json replaced ("num_hidden_layers=2"). Throws
// Error(Usage) with all that is wrong.
ModelConfig init_config(const std::string& preset, const Vocabulary& vocabulary,
                        const std::vector<std::string>& set);

// Fills `path` (an AtomicFolder's) with weights (F32 or BF16), config.json and generation_config.json. The
// weights depend on config and seed alone; BF16's are F32's, rounded.
void init_folder(const std::string& path, const ModelConfig& config, uint64_t seed, DType dtype,
                 const std::function<void(uint64_t)>& progress);

// The bytes of its weights.
uint64_t weight_bytes(const ModelConfig& config, DType dtype);
