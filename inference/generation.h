// generation.h -- one response while it is generated: what is revealed, which block is denoised, when it ends. Knows
// nothing of the network, of slots, or of other sequences.
#pragma once
#include <span>
#include <vector>

#include "inference/engine.h"

// How a model's positions are cut into blocks.
enum class Geometry {
    Blocks,          // aligned to absolute position 0, the end of the prompt opening the first one
    Canvas,          // counted from the end of the prompt, all positions forwarded in every pass
    Autoregressive,  // one token at a time, predicted by the row before it
};
Geometry geometry_of(const ModelConfig& config);

// What a pass forwards of a sequence: positions [begin, end), which see every position before `sees`. Where those are not
// forwarded, their keys are the ones an earlier pass left.
struct Window {
    int begin, end, sees;
    int rows() const { return end - begin; }
};
// Of a canvas of n positions while its block [lo, hi) is denoised, after the pass that opened the block.
Window canvas_window(int lo, int hi, int n, const GenerateOptions& options, bool shift);

class Generation {
  public:
    // prompt_ids and options are those of `request`, which must outlive it.
    Generation(const Request& request, const ModelConfig& config);

    int n_positions() const { return int(token_.size()); }  // prompt, output, and the rest of the last block
    // Tokens of the prompt that other sequences may share: its whole blocks.
    int shared() const { return shared_; }
    // The block being denoised.
    int begin() const { return lo_; }
    int end() const { return hi_; }
    // The finished block before it, if its keys are not in the cache yet; else empty.
    int commit_begin() const { return commit_; }
    int commit_end() const { return commit_ < 0 ? -1 : lo_; }
    void committed() { commit_ = -1; }
    // What the next pass forwards, without commits (empty where the row before the block predicts it), and what the one
    // after it forwards if the block is not finished by then.
    Window window() const { return window_at(block_step_); }
    Window next_window() const { return window_at(block_step_ + 1); }
    // Ids of every position whose keys and values will not change any more, given that the pass before was complete.
    std::span<const int> settled() const {
        return std::span(token_).first(size_t(commit_ >= 0 ? commit_ : lo_));
    }
    std::span<const int> prompt() const { return request_.prompt_ids; }

    // Ids of [begin, end) as the network sees them: the mask id where masked.
    std::vector<int> ids(int begin, int end) const;
    // For guidance: the ids of the whole canvas with everything that was given masked too, and how much the candidates
    // are guided away from what these predict (0: not at all).
    std::vector<int> ids_without_prompt() const;
    float guidance() const { return request_.options.cfg_scale; }
    // Positions of the current block that are still masked, ascending; never empty before the end.
    const std::vector<int>& masked() const { return masked_; }
    SampleRow sample_row(int position) const;
    // For Ops::reveal_blocks: the block as a record, and whether the response is at its end, whatever the id, once
    // masked()[i] and all before it are revealed: the limit, or a known stop id, comes next.
    RevealBlock reveal_block() const;
    bool ends_at(size_t i) const;
    std::span<const int> stop_ids() const;  // empty where generation does not end at a stop id

    // `steps` reveal steps: targets[i] belongs to masked()[i]. Moves on to the next block when none is masked
    // any more. A log-probability that is not finite is an error (Exit::Runtime).
    void reveal(std::span<const RevealTarget> targets, int steps);
    bool finished() const { return finish_reason_ != nullptr; }

    PartialResponse progress() const;
    Trajectory trajectory() const;  // before the end: interrupted
    int forward_passes = 0;

  private:
    void open_block(int begin);
    Window window_at(int block_step) const;
    void check_end();

    const Request& request_;
    RevealRule rule_;
    Geometry geometry_;
    int mask_id_;
    bool shift_;
    int prompt_length_;  // positions before it are no output; 0 where gaps are filled in
    int limit_, shared_, block_;
    int lo_ = 0, hi_ = 0, commit_ = -1;
    int n_final_ = 0;  // output tokens before the first masked position
    int block_step_ = 0, step_ = 0;
    const char* finish_reason_ = nullptr;
    std::vector<int> token_, revealed_;  // by position: id, reveal step (0: prompt)
    std::vector<float> logprob_, entropy_;
    std::vector<int> masked_;
};
