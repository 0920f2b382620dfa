// update.h -- a network in training: its gradients and activations, and passes over any number of sequences
// cut into micro-batches by a token budget.
//
// The copies of a block model's sequence share its clean text, so it is never cut. Under full attention a copy stands alone,
// and those of one sequence may fall into several passes. Sequences whose prompts' whole blocks are equal are put together,
// so that the prompt is forwarded once per micro-batch. Losses and gradients do not depend on the cut (to summation order).
#pragma once
#include <functional>
#include <memory>
#include <string>

#include "model/layout.h"
#include "model/transformer.h"
#include "train/objective.h"

struct MicroBatchLimits {
    int max_tokens = 4096;
    int max_targets = 4096;
};

// Copies [begin, end) of a sequence. Its targets are n_targets of the sequence's, from first_target on.
struct Part {
    int sequence = 0;
    int begin = 0, end = 0;
    int first_target = 0, n_targets = 0;
};

// What goes into one pass, every copy once. Throws Error(Usage) with the numbers where a sequence, or under full attention a
// copy, alone is larger than the budget.
std::vector<std::vector<Part>> cut_micro_batches(std::span<const Sequence> sequences, int block,
                                                 const MicroBatchLimits& limits);
std::vector<Sequence> parts_of(std::span<const Sequence> sequences, std::span<const Part> parts);

// The smallest limits that no sequence (under full attention: no copy) exceeds.
MicroBatchLimits needed_limits(std::span<const Sequence> sequences, int block);

// The loss of an update: (3) of objective.h for a policy, (4) for a value model. Outputs are the log-probabilities or values
// of a sequence's targets, pairs what its loss needs beside them, both in the order of copies and targets.
struct UpdateLoss {
    std::span<const std::vector<LossPair>> pairs;  // of every sequence
    ObjectiveOptions options = {};
    // Called with every sequence's outputs once they have reached the host, some passes later.
    std::function<void(int sequence, std::span<const double> output)> outputs = nullptr;
    // `pairs` depend on the outputs: outputs() fills them in. It is then called between forward and backward, where a device
    // waits for it. Not for sequences that are cut.
    bool pairs_from_outputs = false;
};

class TrainingNetwork {
  public:
    // head: what is read at a target, the log-probability of its id or a value. block: 0 for full attention. Gradients are
    // F32. activations: the memory they lie in; null: ops' own.
    TrainingNetwork(Ops& ops, const ModelConfig& config, const Parameters& weights, Head head, int block,
                    const MicroBatchLimits& limits, Recompute recompute = Recompute::None,
                    Memory* activations = nullptr);
    void allocate();  // gradients and activations; may throw Error(NoMemory)

    // Outputs of every sequence, forward only.
    std::vector<std::vector<double>> evaluate(std::span<const Sequence> sequences);
    // Forward, loss, backward: gradients += . Returns the outputs. Deterministic for given limits.
    std::vector<std::vector<double>> accumulate(std::span<const Sequence> sequences, const UpdateLoss& loss);
    bool cuts(std::span<const Sequence> sequences) const;  // whether one of them goes into several passes

    void zero_gradients();
    const Parameters& gradients() const { return gradients_; }
    Head head() const { return head_; }
    int block() const { return block_; }
    // Block enlargement: from now on sequences are laid out in blocks of this length.
    void set_block(int block) { block_ = block; }
    const MicroBatchLimits& limits() const { return limits_; }
    int64_t tokens_forwarded() const { return tokens_forwarded_; }  // since it was made
    const Arena& gradient_arena() const { return gradient_arena_; }
    const Arena& activation_arena() const { return activation_arena_; }

  private:
    std::vector<std::vector<double>> run(std::span<const Sequence> sequences, const UpdateLoss* loss);
    void forward(Tensor output, const PackedBatch& packed, std::span<const Sequence> sequences);
    void backward(Tensor output, std::span<const LossPair> pairs, const ObjectiveOptions& options);

    Ops& ops_;
    const ModelConfig& config_;
    const Parameters& weights_;
    Head head_;
    int block_;
    MicroBatchLimits limits_;
    Arena gradient_arena_, activation_arena_;
    Parameters gradients_;
    std::unique_ptr<Transformer> transformer_;
    Tensor target_, lse_, doutput_;  // (1, max_targets) each
    Tensor pairs_;                   // (max_targets) LossPair
    Tensor output_;                  // (1, OUTPUT_PASSES * max_targets)
    Tensor hidden_;                  // of the last forward pass
    int64_t tokens_forwarded_ = 0;
};
