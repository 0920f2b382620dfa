// infer_plan.h -- what a set of requests needs of the machine, before anything is allocated.
#pragma once
#include <cstdio>
#include <span>

#include "inference/engine.h"
#include "utils/json_forward.h"

// Limits for these requests: as many of them at once as max_active and about half of the free memory allow,
// at least the largest alone. max_rows and kv_slots other than 0 are the user's and stay.
EngineLimits plan_limits(std::span<const Request> requests, const ModelConfig& config, int max_active,
                         int max_rows, int kv_slots);

int64_t kv_bytes_per_slot(const ModelConfig& config);

// Throws Error(NoMemory) with the numbers where the arenas together do not fit into the host's memory.
void check_memory(std::span<const Arena* const> arenas);
// --dry-run: every arena, tensor by tensor where `detailed`, and the sum.
void print_plan(FILE* out, std::span<const Arena* const> arenas, const EngineLimits& limits, bool detailed);
Json plan_json(std::span<const Arena* const> arenas, const EngineLimits& limits);
