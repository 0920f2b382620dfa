#include "inference/infer_plan.h"

#include <algorithm>
#include <numeric>
#include <set>

#include "inference/generation.h"
#include "utils/json.h"

static int64_t kv_bytes_per_slot(const ModelConfig& config, DType dtype) {
    return int64_t(2) * config.L * config.kv_width() * int64_t(size_of(dtype));
}

EngineLimits plan_limits(std::span<const Request> requests, const ModelConfig& config, int max_active,
                         int max_rows, int kv_slots, size_t free_bytes, DType kv_dtype) {
    std::vector<int64_t> own, shared;
    std::set<std::vector<int>> prompts;
    int64_t largest = 0, widest = 0, later = 0, longest_prompt = 0;
    bool cached_canvas = false;
    for (const Request& r : requests) {
        const Footprint need = footprint(int(r.prompt_ids.size()), r.options, config);
        own.push_back(need.own_slots);
        if (prompts.insert({r.prompt_ids.begin(), r.prompt_ids.begin() + need.shared_slots}).second)
            shared.push_back(need.shared_slots);
        largest = std::max(largest, int64_t(need.own_slots) + need.shared_slots);
        widest = std::max(widest, int64_t(need.rows));
        later = std::max(later, int64_t(need.later_rows));
        cached_canvas |= r.options.approximate_cache();
        longest_prompt = std::max(longest_prompt, int64_t(need.shared_slots));
    }
    const int n = std::max(1, std::min(max_active, int(requests.size())));
    const auto largest_n = [n](std::vector<int64_t>& sizes) {
        std::sort(sizes.begin(), sizes.end(), std::greater<>());
        return std::accumulate(sizes.begin(), sizes.begin() + std::min(int64_t(n), int64_t(sizes.size())),
                               int64_t(0));
    };
    EngineLimits limits{.max_active = n};
    const int64_t wanted = largest_n(own) + largest_n(shared);
    const int64_t affordable =
        int64_t(free_bytes / 2) / std::max<int64_t>(kv_bytes_per_slot(config, kv_dtype), 1);
    limits.kv_slots =
        kv_slots ? kv_slots
                 : int(std::clamp<int64_t>(std::max(std::min(wanted, affordable), largest), 1, INT32_MAX));
    // Room for every sequence in flight in every pass, and some for prompts. Canvases are large, so a few of them fill a
    // pass; but with an approximate cache a sequence that opens a block should not keep the others waiting.
    const bool canvas = geometry_of(config) == Geometry::Canvas;
    int64_t rows = canvas ? std::max(widest, std::min<int64_t>(n * widest, 1024))
                          : n * widest + std::min<int64_t>(longest_prompt, 512);
    if (cached_canvas) rows = std::min(rows + std::min<int64_t>((n - 1) * later, 1024), n * widest);
    limits.max_rows = max_rows ? max_rows : int(std::clamp<int64_t>(rows, 1, 1 << 24));
    return limits;
}

static double mib(size_t bytes) { return double(bytes) / (1 << 20); }

static size_t total_bytes(std::span<const Arena* const> arenas) {
    size_t sum = 0;
    for (const Arena* arena : arenas) sum += arena->bytes();
    return sum;
}

void check_memory(std::span<const Arena* const> arenas, size_t available) {
    const size_t need = total_bytes(arenas);
    if (need <= available) return;
    std::string parts;
    for (const Arena* arena : arenas)
        parts +=
            format("%s%s %.0f MiB", parts.empty() ? "" : ", ", arena->name().c_str(), mib(arena->bytes()));
    fail(Exit::NoMemory,
         "%.0f MiB are needed (%s), %.0f MiB are free; lower --max-active, --gen-length, --kv-slots or "
         "--max-rows",
         mib(need), parts.c_str(), mib(available));
}

void print_plan(FILE* out, std::span<const Arena* const> arenas, size_t available, const EngineLimits& limits,
                bool detailed) {
    if (detailed)
        for (const Arena* arena : arenas) arena->print(out);
    for (const Arena* arena : arenas)
        fprintf(out, "%-12s %10.1f MiB\n", arena->name().c_str(), mib(arena->bytes()));
    fprintf(out, "%-12s %10.1f MiB of %.1f MiB free\n", "sum", mib(total_bytes(arenas)), mib(available));
    fprintf(out, "sequences at once %d, rows of a pass %d, cache slots %d\n", limits.max_active,
            limits.max_rows, limits.kv_slots);
}

Json plan_json(std::span<const Arena* const> arenas, const EngineLimits& limits) {
    Json out = {
        {"max_active", limits.max_active}, {"max_rows", limits.max_rows}, {"kv_slots", limits.kv_slots}};
    for (const Arena* arena : arenas) out["bytes"][arena->name()] = arena->bytes();
    out["bytes_total"] = total_bytes(arenas);
    return out;
}
