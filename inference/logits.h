// logits.h -- one forward pass over a text as it stands, and the logits of every position: how a port is checked.
#pragma once
#include <functional>
#include <span>
#include <string>

#include "model/transformer.h"

// Writes `logits` (T, V) in fp32: row i is what the model says about position i; autoregressive models about position
// i + 1, as their own implementations have it. Mask ids among `ids` are masks. block: the block length, of block models.
// ready(arena) allocates the planned arena, and loads the weights if they are not loaded yet; if it returns false,
// nothing is computed.
void write_logits(const std::string& path, std::span<const int> ids, int block, Ops& ops,
                  const ModelConfig& config, const Parameters& weights,
                  const std::function<bool(Arena&)>& ready);
// Throws Error(Usage) where the model cannot take the ids.
void check_logits(std::span<const int> ids, const ModelConfig& config);
