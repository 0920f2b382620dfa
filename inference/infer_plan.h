// infer_plan.h -- what a set of requests needs of the machine, before anything is allocated.
#pragma once
#include <cstdio>
#include <span>

#include "inference/engine.h"
#include "utils/json_forward.h"

// Limits for these requests: as many of them at once as max_active and about half of the free bytes (those that the
// weights leave) allow, at least the largest alone. max_rows and kv_slots other than 0 are the user's and stay.
EngineLimits plan_limits(std::span<const Request> requests, const ModelConfig& config, int max_active,
                         int max_rows, int kv_slots, size_t free_bytes, DType kv_dtype);

// Throws Error(NoMemory) with the numbers where the arenas together do not fit into the memory there is.
void check_memory(std::span<const Arena* const> arenas, size_t available);
// --dry-run: every arena, tensor by tensor where `detailed`, and the sum.
void print_plan(FILE* out, std::span<const Arena* const> arenas, size_t available, const EngineLimits& limits,
                bool detailed);
Json plan_json(std::span<const Arena* const> arenas, const EngineLimits& limits);
