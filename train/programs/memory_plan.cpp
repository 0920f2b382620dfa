#include "train/programs/memory_plan.h"

#include <algorithm>

#include "kernels/cuda_ops.h"
#include "kernels/device_select.h"
#include "utils/json.h"

static double mib(size_t bytes) { return double(bytes) / (1 << 20); }
static double gib(size_t bytes) { return double(bytes) / (1 << 30); }

size_t MemoryPlan::block_bytes() const {
    size_t largest = 0;
    for (const Part& p : in_turn) largest = std::max(largest, p.bytes);
    return largest;
}

size_t MemoryPlan::total() const {
    size_t sum = block_bytes();
    for (const Part& p : held) sum += p.bytes;
    return sum;
}

void MemoryPlan::print(FILE* out) const {
    const auto line = [out](const std::string& name, size_t bytes) {
        fprintf(out, "  %-34s %12.1f MiB\n", name.c_str(), mib(bytes));
    };
    fprintf(out, "held\n");
    for (const Part& p : held) line(p.name, p.bytes);
    fprintf(out, "used in turn\n");
    for (const Part& p : in_turn) line(p.name, p.bytes);
    fprintf(out, "in all, with --recompute\n");
    for (const auto& [r, bytes] : totals)
        fprintf(out, "  %-34s %12.1f MiB%s\n", name_of(r), mib(bytes), r == recompute ? "  <- taken" : "");
    fprintf(out, "total %31s%12.1f MiB (%.1f GiB) of %.1f GiB free\n", "", mib(total()), gib(total()),
            gib(available));
}

Json MemoryPlan::json() const {
    Json out = {{"bytes", Json::object()},
                {"bytes_in_turn", Json::object()},
                {"bytes_with_recompute", Json::object()}};
    for (const Part& p : held) out["bytes"][p.name] = p.bytes;
    for (const Part& p : in_turn) out["bytes_in_turn"][p.name] = p.bytes;
    for (const auto& [r, bytes] : totals) out["bytes_with_recompute"][name_of(r)] = bytes;
    out["recompute"] = name_of(recompute);
    out["bytes_total"] = total();
    out["bytes_available"] = available;
    return out;
}

void MemoryPlan::check() const {
    if (total() <= available) return;
    std::string parts;
    for (const Part& p : held) parts += format("%s %.1f, ", p.name.c_str(), gib(p.bytes));
    std::string turns;
    for (const Part& p : in_turn)
        turns += format("%s%s %.1f", turns.empty() ? "" : ", ", p.name.c_str(), gib(p.bytes));
    fail(Exit::NoMemory,
         "%.1f GiB are needed (%sand in turn %s; --recompute %s), %.1f GiB are free; what helps: a "
         "smaller model, --moments bf16, a smaller --token-budget or --gen-length%s",
         gib(total()), parts.c_str(), turns.c_str(), name_of(recompute), gib(available),
         in_turn.size() > 1 ? ", fewer --max-active" : "");
}

MemoryPlan plan_memory(const std::vector<std::pair<std::string, Learner*>>& learners, const Arena* rollout,
                       std::optional<Recompute> wish, size_t available) {
    const auto plan_with = [&](Recompute recompute) {
        MemoryPlan plan;
        plan.recompute = recompute;
        plan.available = available;
        for (const auto& [name, learner] : learners) {
            learner->set_recompute(recompute);
            for (const Arena* arena : learner->arenas())
                plan.held.push_back({name + " " + arena->name(), arena->bytes()});
            plan.in_turn.push_back({name + " activations", learner->network->activation_arena().bytes()});
        }
        if (rollout) plan.in_turn.push_back({"rollout KV cache and activations", rollout->bytes()});
        return plan;
    };
    std::vector<std::pair<Recompute, size_t>> totals;
    std::optional<Recompute> taken = wish;
    for (const Recompute r : {Recompute::None, Recompute::Norms, Recompute::Block}) {
        totals.push_back({r, plan_with(r).total()});
        if (!taken && totals.back().second <= available) taken = r;
    }
    MemoryPlan plan = plan_with(taken.value_or(Recompute::Block));
    plan.totals = totals;
    return plan;
}

void MemoryFlags::declare(Options& flags) {
    flags.section("Memory");
    flags.add_choice("--moments TYPE", &moments, {{"fp32", DType::F32}, {"bf16", DType::BF16}},
                     "type of AdamW's moments; bf16 is rounded stochastically");
    flags.add_choice(
        "--recompute WHAT", &recompute,
        {{"auto", std::optional<Recompute>()},
         {"none", Recompute::None},
         {"norms", Recompute::Norms},
         {"block", Recompute::Block}},
        "what backward passes compute again instead of keeping it: nothing, what is cheap, all of "
        "a layer; auto: the first that fits");
    flags
        .add("--device-memory GIB", &device_memory,
             "with --dry-run: plan for a GPU of so much memory, which need not be there")
        .range(0, 1e6)
        .not_in_config();
}

static void check_dtype(const std::string& dtype, bool on_host) {
    if (dtype == "bf16" && on_host)
        fail(Exit::Usage, "--dtype bf16: training on the CPU is in fp32; leave it out, or use --device cuda");
}

void check_training_device(const MemoryFlags& flags, const Common& common) {
    if (flags.device_memory > 0 && !common.dry_run)
        fail(Exit::Usage, "--device-memory %g: is for plans; add --dry-run", flags.device_memory);
    if (flags.device_memory > 0) return;
    check_device(common.device);
    check_dtype(common.dtype, is_host_device(common.device));
}

std::unique_ptr<Ops> training_ops(const MemoryFlags& flags, const Common& common, std::string* note) {
    check_training_device(flags, common);
    if (flags.device_memory == 0) return make_ops(common.device, note);
    const double bytes = flags.device_memory * (1 << 30) - double(CUDA_WORKSPACE + CUDA_RESERVE);
    return make_planned_ops(size_t(std::max(bytes, 0.0)));
}

DType training_dtype(const std::string& dtype, const Ops& ops) {
    check_dtype(dtype, ops.on_host());
    return dtype == "fp32" || ops.on_host() ? DType::F32 : DType::BF16;
}
