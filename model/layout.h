// layout.h -- the layouts of training: sequences with noisy copies in, one packed TokenBatch out. Pure functions.
//
// A Sequence is a clean text; a Copy is a part of it as a sampler saw it at some moment. Clean tokens never
// look at noisy ones, so all copies of a sequence share one clean text, and sequences whose prompts' whole
// blocks have equal ids share the rows of those.
//
//   block model          clean token of block b sees clean blocks <= b; a copy of block b sees clean blocks < b
//                        and itself
//   full attention       a copy is the whole sequence and sees itself; there is no clean text
//   causal               the clean text, each token seeing itself and what is before it; row p-1 predicts p
#pragma once
#include <vector>

#include "model/batch.h"

struct Copy {
    int begin = 0;            // first position of the copy: the block's, or 0 for full attention
    std::vector<int> token;   // ids from `begin` on, masks where the sampler saw them; a block model's: B
    std::vector<int> target;  // positions that are trained from this state, ascending
    bool causal = false;      // the clean text itself under causal attention; begin and token are unused
};

struct Sequence {
    std::vector<int> token;  // clean ids: prompt, response, and what is known of the last block
    int prompt_length = 0;
    std::vector<Copy> copies;
};

// Where a target is read, in the order of sequences, copies and targets: batch.target_row[i] belongs to target[i].
struct Target {
    int sequence, copy;  // indices
    int position;        // in the sequence; its id is sequence.token[position]
};

struct PackedBatch {
    TokenBatch batch;
    std::vector<Target> target;
};

// block: the diffusion block length (blocks start at absolute position 0); 0: full attention.
// shift: the row of position p-1 of the same copy predicts p (Dream; causal copies always do, whatever
// `shift`). A value model reads a target at its own row: shift = false.
PackedBatch pack(std::span<const Sequence> sequences, int block, bool shift);

// Rows that pack() would make of these sequences: what micro-batches are cut by.
int64_t packed_tokens(std::span<const Sequence> sequences, int block);
