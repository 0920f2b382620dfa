// rl_update.h -- from records to gradients: one update of policy (and value model), by TraceRL or another mask generator.
//
//   TrainingBatch b = prepare(records, ...)  which responses are kept, from which states they are trained
//   b.old_* = ...                            old log-probs where the record's do not hold (evaluate_old)
//   per update: accumulate(b, responses, policy, value, ...), then one Optimizer::update each
#pragma once
#include "train/advantages.h"
#include "train/masks.h"
#include "train/objective.h"
#include "train/update.h"

enum class RlObjective { TraceRl, RandomMasking, Coupled };
enum class ValueTarget { ZScore, Raw };  // what a verifiable reward is for the value model

struct RlOptions {
    RlObjective kind = RlObjective::TraceRl;
    ObjectiveOptions loss;
    int shrink = 1;
    RandomMaskOptions masks;
    KeepBand keep;
    ValueTarget value_target = ValueTarget::ZScore;
};

// The responses of a rollout that are kept, and the states they are trained from. Every inner vector holds one number per
// (copy, token) pair of its sequence.
struct TrainingBatch {
    std::vector<int> record;                       // (n) index of the record it comes from
    std::vector<Sequence> sequences;               // (n)
    std::vector<std::vector<double>> advantage;    // (n) without a value model
    std::vector<std::vector<double>> reward;       // (n) with one
    std::vector<std::vector<double>> old_logprob;  // (n), an inner one empty: the current policy's
    std::vector<std::vector<double>> old_value;    // (n), likewise
    int n_dropped = 0;

    int size() const { return int(sequences.size()); }
};

// Drops groups, standardises rewards, lays out states. Given advantages and token rewards drop nothing.
TrainingBatch prepare(std::span<const Record> records, const MaskShape& shape, const RlOptions& options,
                      bool has_value_model, Rng& rng);

std::vector<int> all_responses(const TrainingBatch& batch);  // 0 ... size() - 1: one update of everything

// Fills in the old log-probs (and values, where `value` is given) of responses that have none, from the
// current weights, on exactly the states that are trained. Needed before the first of several updates.
void evaluate_old(TrainingBatch& batch, TrainingNetwork& policy, TrainingNetwork* value);

// From one number per (copy, token) pair of a sequence to one per response token; where a token occurs in several copies,
// the last one counts.
std::vector<double> per_token(const Sequence& sequence, std::span<const double> per_pair, int n_tokens);

// What one update did, sums already normalised. Inner vectors: per response of the update, in order, one number per pair.
struct UpdateReport {
    double policy_loss = 0, kl = 0, value_loss = 0, loss = 0;
    int64_t n_pairs = 0;
    double clip_fraction = 0;       // of the pairs, whose ratio was outside [1 - clip_low, 1 + clip_high]
    double max_ratio = 1;           // largest rho
    double explained_variance = 0;  // of the returns by the old values
    std::vector<std::vector<double>> logprobs, values, returns, advantages;
};

// Adds the gradients of one update over the given responses of the batch (indices into it) to policy's and value's.
UpdateReport accumulate(const TrainingBatch& batch, std::span<const int> responses, TrainingNetwork& policy,
                        TrainingNetwork* value, const RlOptions& options);
