// engine.h -- generation with a KV cache, many sequences per forward pass.
//
// Block models: blocks are aligned to absolute position 0. The whole blocks of a prompt are prefilled; its tail
// opens the first generated block as already revealed tokens, and that block's first denoising step rides in the
// prefill pass. When no mask is left in a block its keys and values are committed, fused into the first denoising
// pass of the next block; the last block is never committed.
//
// Full-attention models: every pass forwards the whole canvas of every sequence, and with guidance a second one with
// the prompt masked. With an approximate cache (options.h) only the pass that opens a block does; those that follow
// forward the block (and what comes after it) over the keys that pass left.
//
// Autoregressive models: one token per pass, whose row predicts the next.
//
// On a device the steps of a block follow each other without the host: it is asked only when a sequence has finished
// its block or is at its end.
#pragma once
#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "inference/options.h"
#include "inference/trajectory.h"
#include "model/transformer.h"

struct Request {
    std::vector<int> prompt_ids;
    uint32_t sequence = 0;  // Philox stream: the sequence's number over the whole run
    GenerateOptions options;
};

struct EngineLimits {
    int max_active = 256;     // sequences in flight
    int max_rows = 4096;      // rows of one forward pass; a longer prompt is prefilled in several
    int kv_slots = 16384;     // slots of the KV cache, shared prompts counted once
    bool fuse_commit = true;  // false: commits get passes of their own (slower, the same result)
    // Keep the keys of the last sequence, for a next call whose prompt begins with it (a chat).
    bool keep_last = false;
};

// Slots and rows that requests of this shape need: what a caller plans EngineLimits by.
struct Footprint {
    int shared_slots;  // whole blocks of the prompt, counted once among sequences that share them
    int own_slots;     // of each sequence
    int positions;     // of each sequence, shared ones included
    int rows;          // of one pass at most, without the prompt's whole blocks
    int later_rows;    // of a pass that neither opens a block nor commits one, at most
};
Footprint footprint(int prompt_length, const GenerateOptions& options, const ModelConfig& config);

// A response while it is generated: one entry per position from the end of the prompt to the end of the
// current block (or canvas). Where it is still masked, step is NEVER and the id has no meaning.
struct PartialResponse {
    std::span<const int> token, step;
    std::span<const float> logprob;
    int n_final;  // how many leading tokens are output and will not change
};

struct Callbacks {  // any of them may be empty
    // after a reveal step of a request, or after the last of several that a device takes without the host
    std::function<void(int request, const PartialResponse&)> on_reveal;
    std::function<void(int request, const Trajectory& done)> on_finish;
    // asked before every pass the host lays out; true ends everything as "interrupted"
    std::function<bool()> should_stop;
    bool every_step = false;  // the host sees every step, also on a device
};

// Throws Error(Usage) where a model of this kind cannot answer the request, whatever the limits.
void check_request(const Request& request, const ModelConfig& config);

class Engine {
  public:
    // Plans cache and activations in `arena`, which the caller allocates before the first call of generate().
    // Only references are held: weights may change between calls. n_ids: ids from here on have no text and
    // are never drawn (the tokenizer's size; V without one).
    Engine(Ops& ops, const ModelConfig& config, const Parameters& weights, const EngineLimits& limits,
           int n_ids, Arena& arena);
    ~Engine();

    // Generates every request; trajectories in the order of requests. Requests whose prompts' whole blocks
    // have equal ids share their slots while they are active together. A sequence's result does not depend on
    // the others. Throws Error(Usage) before any work where a request's options are at fault, Error(NoMemory)
    // with the numbers where it cannot fit the limits.
    std::vector<Trajectory> generate(std::span<const Request> requests, const Callbacks& callbacks = {});

    // Throws what generate() would for these requests, without any work.
    void check(std::span<const Request> requests) const;
    void check(const Request& request) const;  // of one, whose number its message leaves out

    void forget();                   // drops what keep_last kept: call it when the weights change
    int64_t forward_passes() const;  // since the engine was made
    int64_t forwarded_rows() const;  // of all these passes
    const EngineLimits& limits() const;

  private:
    class Implementation;
    std::unique_ptr<Implementation> implementation_;
};
