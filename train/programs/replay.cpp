#include "train/programs/replay.h"

#include <algorithm>
#include <cmath>

#include "train/sft_example.h"
#include "utils/arena.h"
#include "utils/json.h"
#include "utils/log.h"
#include "utils/timer.h"
#include "weights_tools/model_folder.h"

namespace {

// A model, its gradients and activations for passes over given sequences, planned before anything is read.
struct ReplayNetwork {
    ModelFolder folder;
    Arena arena;
    Parameters weights;
    std::unique_ptr<TrainingNetwork> network;

    ReplayNetwork(Ops& ops, const std::string& path, Head head, DType dtype)
        : folder(open_model_folder(path, head)), arena("weights", ops) {
        weights.plan(arena, folder.config, head, dtype);
    }
    void plan(Ops& ops, Head head, int block, const MicroBatchLimits& limits, Recompute recompute) {
        network =
            std::make_unique<TrainingNetwork>(ops, folder.config, weights, head, block, limits, recompute);
    }
    void load(Ops& ops) {
        arena.allocate();
        weights.bind(folder.config);
        network->allocate();
        load_weights(folder, weights, ops);
    }
    std::vector<const Arena*> arenas() const {
        return {&arena, &network->gradient_arena(), &network->activation_arena()};
    }
    size_t planned_bytes() const {
        size_t sum = 0;
        for (const Arena* a : arenas()) sum += a->bytes();
        return sum;
    }
};

int training_block(const ModelConfig& config, int block) {
    if (config.full_attention) return 0;
    return block ? block : config.B;
}

// A pass takes what --token-budget says; by default enough for the largest response, and more while its
// activations stay near the caches: at 4096 tokens an update of `small` takes a tenth longer.
MicroBatchLimits limits_for(std::span<const Sequence> sequences, int block, int token_budget) {
    constexpr int CHEAP_TOKENS = 1536;
    const MicroBatchLimits needed = needed_limits(sequences, block);
    const int64_t all = std::max<int64_t>(packed_tokens(sequences, block), 1);
    MicroBatchLimits limits;
    limits.max_tokens =
        token_budget ? token_budget : std::max(needed.max_tokens, int(std::min<int64_t>(all, CHEAP_TOKENS)));
    limits.max_targets = std::max(needed.max_targets, limits.max_tokens);
    // Plan for what will really be in one pass.
    MicroBatchLimits used = {1, 1};
    for (const std::vector<Part>& parts : cut_micro_batches(sequences, block, limits)) {
        const PackedBatch packed = pack(parts_of(sequences, parts), block, false);
        used.max_tokens = std::max(used.max_tokens, packed.batch.T());
        used.max_targets = std::max(used.max_targets, packed.batch.n_targets());
    }
    return used;
}

double mib(size_t bytes) { return double(bytes) / (1 << 20); }

// Prints the plan where that is all that is asked for; false: go on.
bool dry_run(const ReplayRequest& request, const std::vector<const ReplayNetwork*>& networks) {
    if (!request.dry_run) return false;
    size_t sum = 0;
    for (const ReplayNetwork* n : networks)
        for (const Arena* arena : n->arenas()) {
            printf("%-24s %10.1f MiB\n", arena->name().c_str(), mib(arena->bytes()));
            sum += arena->bytes();
        }
    printf("%-24s %10.1f MiB\n", "sum", mib(sum));
    return true;
}

struct MemoryUse {
    size_t planned;
    size_t program;  // what the program and its libraries take before anything is allocated
};

// Before anything is allocated: every arena alone may fit.
MemoryUse check_fits(const Ops& ops, size_t planned) {
    if (planned > ops.available())
        fail(Exit::NoMemory,
             "%.0f MiB are needed (--dry-run lists them), %.0f MiB are free; use a smaller model, lower "
             "--token-budget, or shorten the responses",
             mib(planned), mib(ops.available()));
    return {planned, peak_host_memory()};
}

Json memory_json(const MemoryUse& use) {
    return {{"planned_mib", mib(use.planned)},
            {"host_program_mib", mib(use.program)},
            {"host_peak_mib", mib(peak_host_memory())}};
}

Json responses_json(const std::vector<Record>& records, const TrainingBatch& batch,
                    const UpdateReport& report, bool has_value_model) {
    Json out = Json::array();
    for (size_t i = 0; i < batch.sequences.size(); i++) {
        const auto tokens = [&](const std::vector<double>& pairs) {
            return per_token(batch.sequences[i], pairs, records[size_t(batch.record[i])].length());
        };
        Json response = {{"logprobs", tokens(report.logprobs[i])}};
        if (has_value_model) {
            response["values"] = tokens(report.values[i]);
            response["returns"] = tokens(report.returns[i]);
        }
        response["advantages"] = tokens(report.advantages[i]);
        out.push_back(std::move(response));
    }
    return out;
}

// outputs: of every response, one after another in the order of `sequences`.
void check_finite(const std::vector<std::vector<double>>& outputs, const char* what) {
    for (size_t i = 0; i < outputs.size(); i++)
        for (const double x : outputs[i])
            if (!std::isfinite(x)) fail_not_finite(format("a %s of response %zu", what, i));
}

void check_same_vocabulary(const ModelFolder& policy, const ModelFolder& value) {
    if (policy.config.V != value.config.V || policy.config.full_attention != value.config.full_attention ||
        policy.config.mask_id != value.config.mask_id)
        fail(Exit::BadFile,
             "%s: the value model has vocabulary %d, mask id %d and %s attention, the policy %s has %d, %d "
             "and %s",
             value.path.c_str(), value.config.V, value.config.mask_id,
             value.config.full_attention ? "full" : "block", policy.path.c_str(), policy.config.V,
             policy.config.mask_id, policy.config.full_attention ? "full" : "block");
}

}  // namespace

Json replay_tracerl(Ops& ops, const ReplayRequest& request) {
    Timer timer;
    const bool has_value = !request.value_model.empty();
    ReplayNetwork policy(ops, request.model, Head::Policy, request.weights);
    const ModelConfig& config = policy.folder.config;
    std::unique_ptr<ReplayNetwork> value;
    if (has_value) {
        value = std::make_unique<ReplayNetwork>(ops, request.value_model, Head::Value, request.weights);
        check_same_vocabulary(policy.folder, value->folder);
    }
    const int block = training_block(config, request.block);
    const std::vector<Record> records = read_records(request.file, record_limits(config, block, has_value));
    Rng rng(0, Stream::Mask);
    const TrainingBatch batch = prepare(records, {block, config.mask_id}, request.rl, has_value, rng);
    if (batch.size() == 0 && batch.n_dropped > 0)
        log_warning(
            "%s: all %d responses are dropped: rewards must differ within a group, their mean within "
            "--keep-accuracy; add responses to the groups, or give each an 'advantage'",
            request.file.c_str(), int(batch.n_dropped));
    const MicroBatchLimits limits = limits_for(batch.sequences, block, request.token_budget);
    policy.plan(ops, Head::Policy, block, limits, request.recompute);
    if (value) value->plan(ops, Head::Value, block, limits, request.recompute);
    if (dry_run(request, value ? std::vector<const ReplayNetwork*>{&policy, value.get()}
                               : std::vector<const ReplayNetwork*>{&policy}))
        return {};
    const size_t planned = policy.planned_bytes() + (value ? value->planned_bytes() : 0);
    const MemoryUse use = check_fits(ops, planned);
    policy.load(ops);
    if (value) value->load(ops);
    const double load_s = timer.restart();

    const UpdateReport report = accumulate(batch, all_responses(batch), *policy.network,
                                           value ? value->network.get() : nullptr, request.rl);
    const double update_s = timer.restart();
    check_finite(report.logprobs, "log-probability");
    check_finite(report.values, "value");

    if (!request.dump_grads.empty())
        save_parameters(request.dump_grads, policy.network->gradients(), config, ops);
    if (!request.dump_value_grads.empty())
        save_parameters(request.dump_value_grads, value->network->gradients(), value->folder.config, ops);
    int64_t n_tokens = 0;
    for (const int i : batch.record) n_tokens += records[size_t(i)].length();
    Json out = {{"loss", report.loss}, {"policy_loss", report.policy_loss}, {"kl", report.kl}};
    if (has_value) out["value_loss"] = report.value_loss;
    out["n_tokens"] = n_tokens;
    out["n_responses"] = batch.size();
    out["n_dropped"] = batch.n_dropped;
    out["tokens_forwarded"] = policy.network->tokens_forwarded();
    out["responses"] = responses_json(records, batch, report, has_value);
    out["memory"] = memory_json(use);
    out["timings"] = {{"load_s", load_s}, {"update_s", update_s}};
    return out;
}

Json replay_sft(Ops& ops, const ReplayRequest& request) {
    Timer timer;
    ReplayNetwork policy(ops, request.model, Head::Policy, request.weights);
    const ModelConfig& config = policy.folder.config;
    const int block = training_block(config, request.block);
    const std::vector<SftExample> examples =
        read_sft_examples(request.file, record_limits(config, block, false));
    std::vector<Sequence> sequences;
    std::vector<std::vector<double>> weights;
    int64_t n_tokens = 0;
    for (const SftExample& e : examples) {
        sequences.push_back(sft_sequence(e, {block, config.mask_id}));
        weights.push_back(sft_weights(e));
        n_tokens += int64_t(e.response_ids.size());
    }
    policy.plan(ops, Head::Policy, block, limits_for(sequences, block, request.token_budget),
                request.recompute);
    if (dry_run(request, {&policy})) return {};
    const MemoryUse use = check_fits(ops, policy.planned_bytes());
    policy.load(ops);
    const double load_s = timer.restart();

    const std::vector<std::vector<LossPair>> pairs = cross_entropy_pairs(weights, double(n_tokens));
    double loss = 0;
    const std::vector<std::vector<double>> logprobs = policy.network->accumulate(
        sequences, {.pairs = pairs, .outputs = [&](int i, std::span<const double> logprob) {
                        loss += cross_entropy(logprob, pairs[size_t(i)]);
                    }});
    const double update_s = timer.restart();
    check_finite(logprobs, "log-probability");
    if (!request.dump_grads.empty())
        save_parameters(request.dump_grads, policy.network->gradients(), config, ops);
    return {{"loss", loss},
            {"n_tokens", n_tokens},
            {"tokens_forwarded", policy.network->tokens_forwarded()},
            {"logprobs", logprobs},
            {"memory", memory_json(use)},
            {"timings", {{"load_s", load_s}, {"update_s", update_s}}}};
}
