// memory_plan.h -- what a training run needs of its device, before anything is allocated, and what its backward passes compute
// again so that it fits.
#pragma once
#include <cstdio>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "train/learner.h"
#include "utils/cli.h"
#include "utils/json_forward.h"

struct MemoryPlan {
    struct Part {
        std::string name;
        size_t bytes;
    };
    std::vector<Part> held;     // for the whole run, beside each other
    std::vector<Part> in_turn;  // one after the other in one block
    Recompute recompute = Recompute::None;
    std::vector<std::pair<Recompute, size_t>> totals;  // what the run would need with each
    size_t available = 0;

    size_t block_bytes() const;  // of the block that is used in turn: its largest user's
    size_t total() const;
    void print(FILE* out) const;
    Json json() const;
    void check() const;  // throws Error(NoMemory) with the numbers where it does not fit
};

// wish: absent for the first of none, norms and block with which everything fits (block where nothing does). The learners
// are planned with it. rollout: cache and activations of the rollout, null where there is none; it takes turns with the
// learners' activations.
MemoryPlan plan_memory(const std::vector<std::pair<std::string, Learner*>>& learners, const Arena* rollout,
                       std::optional<Recompute> wish, size_t available);

// --moments --recompute --device-memory
struct MemoryFlags {
    DType moments = DType::F32;
    std::optional<Recompute> recompute;  // absent: what fits
    double device_memory = 0;            // GiB of a GPU that is only planned for
    void declare(Options& flags);        // `this` must outlive `flags`
};

// Throws what the next two would, before there is a device.
void check_training_device(const MemoryFlags& flags, const Common& common);
// The device of --device, or with --device-memory one that need not be there. note: see make_ops.
std::unique_ptr<Ops> training_ops(const MemoryFlags& flags, const Common& common,
                                  std::string* note = nullptr);
// The type of weights in training: --dtype, by default BF16 on a GPU. On the host it is F32; Error(Usage) where it should not be.
DType training_dtype(const std::string& dtype, const Ops& ops);
