// masks.h -- the states a response is trained from: which copies of it, which tokens each has masked, which it trains.
//
// This is all that differs between TraceRL, random masking, coupled masks and every kind of SFT. Pure
// functions: ids in, a Sequence (model/layout.h) out. Block models: a copy is one block, and what the record
// does not say of the last block stays masked. Full attention: a copy is the whole sequence.
#pragma once
#include <vector>

#include "model/layout.h"
#include "train/record.h"
#include "train/sft_example.h"
#include "utils/philox.h"

struct MaskShape {
    int block = 4;  // 0: full attention
    int mask_id = -1;
};

// TraceRL (Sections 4.1 and 4.3 of arXiv 2509.06949): one copy per reveal step of a block (full attention: of the
// response), as the sampler saw it. Every `shrink` neighbouring steps are merged into the state before the first of
// them; tail steps count in the merging; a merged step that reveals no response token is dropped. Copies are in the
// order of the trace.
Sequence trace_sequence(const Record& record, const MaskShape& shape, int shrink);

// Random masking, the noise of the paper's Eq. 1: `m` masks per response. Each has a ratio per block (per copy under full
// attention), uniform in [low, high], and masks every token with that probability, at least one. `per_token` draws the
// ratio for each token instead, as the reference code does. `coupled` adds each mask's complement unless it is empty.
struct RandomMaskOptions {
    int m = 1;
    double low = 0.1, high = 0.9;
    bool per_token = false;
    bool coupled = false;
};
Sequence random_mask_sequence(const Record& record, const MaskShape& shape, const RandomMaskOptions& options,
                              Rng& rng);

// ---- supervised fine-tuning ----

Sequence sft_sequence(const SftExample& example, const MaskShape& shape);
// The weight of every target of sft_sequence(), in its order.
std::vector<double> sft_weights(const SftExample& example);

enum class SftMethod { SemiAr, RandomMask, Trace, Ar };
struct SftMaskOptions {
    SftMethod method = SftMethod::SemiAr;
    int block = 4;                 // of SemiAr under full attention, counted from the end of the prompt
    double low = 0.1, high = 0.9;  // noise levels are uniform between them
    bool weight_by_level = false;  // weight 1/t, the diffusion bound (Eq. 2); else 1
    bool complementary = false;    // every copy's complement is trained too
    int shrink = 1;                // Trace: neighbouring steps that are merged
};
// SemiAr (J_semi, Section 3.1): one noise level t per block, stratified over the blocks of the response; each token is
// masked with probability t, at least one; what follows the block is masked and not trained. RandomMask: one level for
// the whole sequence. Trace: the states of step_map, each training what it reveals. Ar: next token.
std::vector<SftCopy> sft_copies(const SftExample& example, const MaskShape& shape,
                                const SftMaskOptions& options, Rng& rng);
