// engine.h -- block-diffusion generation with an exact KV cache (many sequences per forward pass).
//
// Blocks are aligned to absolute position 0. The whole blocks of a prompt are prefilled; its tail opens the first generated block
// as already revealed tokens, and that block's first denoising step rides in the prefill pass. When no mask is left in a block its
// keys and values are committed, fused into the first denoising pass of the next block; the last block is never committed.
#pragma once
#include <functional>
#include <span>
#include <vector>

#include "inference/trajectory.h"
#include "model/transformer.h"

enum class Remasking { LowConfidenceStatic, LowConfidenceDynamic, Sequential, EntropyBounded };

struct GenerateOptions {
    int gen_length = 256;
    int block = 4;
    int steps = 0;  // per block; 0: as many as the block is long
    Remasking remasking = Remasking::LowConfidenceDynamic;
    double threshold = 0.9;
    double eb_threshold = 0.35;  // nats
    float temperature = 0;
    int top_k = 0;
    float top_p = 1;
    Confidence confidence = Confidence::Tempered;
    std::vector<int> stop_ids;
    uint64_t seed = 0;
};

struct Request {
    std::vector<int> prompt_ids;
    uint32_t sequence = 0;  // Philox stream: the sequence's number over the whole run
    GenerateOptions options;
};

// Positions to reveal in this step, ascending. masked[i], confidence[i], entropy[i] belong to position i of the block; n is n(step).
std::vector<int> reveal(std::span<const char> masked, std::span<const float> confidence, std::span<const float> entropy, int n,
                        const GenerateOptions& options);
// n(step) = B / S, the remainder going to the first steps.
int reveal_count(int block, int steps, int step);

struct EngineLimits {
    int max_active = 256;     // sequences in flight
    int max_rows = 4096;      // rows of one forward pass
    int64_t kv_slots = 0;     // slots of the KV cache, shared prompts counted once
};

class Engine {
  public:
    // n_ids: ids from here on have no text and are never drawn (the tokenizer's size; V without one).
    Engine(Ops& ops, const ModelConfig& config, const Parameters& weights, const EngineLimits& limits, int n_ids);

    // Generates every request; trajectories in the order of requests. Requests whose prompts' whole blocks have equal ids share
    // their slots while they are active together. on_block (may be empty) is called whenever more of a request's output is
    // final: everything up to n_final tokens will not change. should_stop (may be empty) is asked before every forward pass:
    // true ends every active sequence as "interrupted".
    struct Callbacks {
        std::function<void(int request, const Trajectory& so_far, int n_final)> on_block;
        std::function<void(int request, const Trajectory& done)> on_finish;
        std::function<bool()> should_stop;
    };
    std::vector<Trajectory> generate(std::span<const Request> requests, const Callbacks& callbacks = {});

    int64_t forward_passes() const { return forward_passes_; }  // of the engine, since it was made
    const Arena& arena() const { return arena_; }

  private:
    Ops& ops_;
    const ModelConfig& config_;
    EngineLimits limits_;
    int n_ids_;
    Arena arena_;
    KvCache cache_;
    int64_t forward_passes_ = 0;
};
