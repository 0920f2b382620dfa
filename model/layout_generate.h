// layout_generate.h -- the layouts of generation: pure functions that append to a TokenBatch.
//
// Positions [0, shared) of a sequence are the whole blocks of its prompt, at slots that other sequences may
// use too; the rest lies in a run of slots of its own. Every layout is made of two pieces:
//
//   add_prompt   whole prompt blocks: a token of block b sees blocks <= b
//   add_block    one block as it stands: its tokens see everything before it, the block itself, and as much behind it
//                as the caller says
//
//   prefill + first denoise     add_prompt, add_block (masks)
//   denoise (cached)            add_block (masks)
//   commit + denoise, fused     add_block (finished block b), add_block (masks of block b+1); b's keys are written before
//                               b+1 reads them
//   full attention              add_block (the whole canvas, position 0)
//   ... with a prefix cache     add_block (the block and what comes after it)
//   ... with a dual cache       add_block (the block), seeing what is behind it, too
//   autoregressive              add_prompt in blocks of 1, add_block (the last token); its row predicts the next
#pragma once
#include <span>

#include "model/batch.h"

struct SequenceSlots {
    int shared = 0;  // positions [0, shared) ...
    int prefix = 0;  // ... are at slots [prefix, prefix + shared)
    int own = 0;     // the slot of position `shared`
};

// Positions [begin, end) of a prompt, both multiples of `block`; position 0 is at slot `prefix`. Returns the first row.
int add_prompt(TokenBatch& batch, std::span<const int> prompt, int begin, int end, int block, int prefix);

// `ids` at positions [position, position + ids.size()), position >= shared. They also see the `behind` positions that
// follow, whose keys are in the cache. Returns the first row.
int add_block(TokenBatch& batch, std::span<const int> ids, int position, const SequenceSlots& at,
              int behind = 0);
