// batch.h -- the one idea: a packed batch of tokens, each of which says what it may look at.
//
// Prefill, a denoising step, a KV-cache commit, SFT, TraceRL and full attention differ only in how the batch
// is laid out.
#pragma once
#include <span>
#include <vector>

#include "kernels/ops.h"

struct TokenBatch {
    std::vector<int> token;           // (T) vocabulary ids, mask id included
    std::vector<int> position;        // (T) rotary position inside its own sequence
    std::vector<int> slot;            // (T) where its key and value are written; -1: nowhere
    std::vector<AttentionSpans> see;  // (T) which slots this token attends to
    std::vector<int> target_row;      // (N) rows whose output is wanted; a row may occur more than once

    int T() const { return int(token.size()); }
    int n_targets() const { return int(target_row.size()); }
    void clear();
    // Appends one token; returns its row.
    int add(int id, int position, int slot, const AttentionSpans& see);
};

// The pairs a batch attends to, counted: the work of span attention is proportional to it.
int64_t visible_pairs(const TokenBatch& batch);
