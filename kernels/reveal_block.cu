// reveal_block.cu -- see reveal_block.h.
#include "kernels/cuda_kernels.h"
#include "kernels/reveal_block.h"

namespace cuda {

// ---- kernels ----

// A confidence that is not a number counts as the lowest, so that the order is always total.
__device__ inline float comparable(float confidence) { return confidence == confidence ? confidence : -1.0f; }

__global__ void reveal_blocks_kernel(uint8_t* revealed, int* n_revealed, const Sampled* sampled,
                                     const uint8_t* masked, const RevealBlock* blocks) {
    __shared__ int order[MOST_REVEAL_ROWS];  // of EntropyBounded: the masked rows by entropy
    const RevealBlock b = blocks[blockIdx.x];
    const int lane = int(threadIdx.x);
    const Sampled* s = sampled + b.first_row;
    const uint8_t* m = masked + b.first_row;

    int n_masked = 0, n_sure = 0;
    for (int i0 = 0; i0 < b.rows; i0 += WARP) {
        const int i = i0 + lane;
        const bool is_masked = i < b.rows && m[i];
        const bool sure = is_masked && double(comparable(s[i].confidence)) > b.threshold;
        n_masked += __popc(__ballot_sync(FULL_WARP, is_masked));
        n_sure += __popc(__ballot_sync(FULL_WARP, sure));
    }
    const int k = b.n < n_masked ? b.n : n_masked;
    // How many masked rows come before row i.
    const auto rank = [&](int i) {
        int before = 0;
        for (int j = 0; j < b.rows; j++) {
            if (!m[j] || j == i) continue;
            bool earlier = j < i;
            if (b.rule == RevealRule::EntropyBounded) {
                earlier = s[j].entropy < s[i].entropy || (s[j].entropy == s[i].entropy && earlier);
            } else if (b.rule != RevealRule::Sequential) {
                const float cj = comparable(s[j].confidence), ci = comparable(s[i].confidence);
                earlier = cj > ci || (cj == ci && earlier);
            }
            before += earlier;
        }
        return before;
    };
    if (b.rule == RevealRule::EntropyBounded)
        for (int i = lane; i < b.rows; i += WARP)
            if (m[i]) order[rank(i)] = i;
    __syncwarp();  // the order is whole before it is read
    int count = 0;
    for (int i0 = 0; i0 < b.rows; i0 += WARP) {
        const int i = i0 + lane;
        bool now = i < b.rows && m[i];
        if (now && b.rule == RevealRule::EntropyBounded) {
            const int mine = rank(i);
            double sum = 0;
            for (int r = 0; r <= mine; r++) sum += double(s[order[r]].entropy);
            now = mine == 0 || sum < b.bound;
        } else if (now && b.rule == RevealRule::Dynamic && n_sure >= k) {
            now = double(comparable(s[i].confidence)) > b.threshold;
        } else if (now) {
            now = rank(i) < k;
        }
        if (i < b.rows) revealed[b.first_row + i] = now;
        count += __popc(__ballot_sync(FULL_WARP, now));
    }
    if (lane == 0) n_revealed[blockIdx.x] = count;
}

// ---- launchers ----

void reveal_blocks(const Context& ctx, uint8_t* revealed, int* n_revealed, const Sampled* sampled,
                   const uint8_t* masked, const RevealBlock* blocks, int n) {
    if (n == 0) return;
    launch(reveal_blocks_kernel, unsigned(n), WARP, 0, ctx.stream, revealed, n_revealed, sampled, masked,
           blocks);
}

}  // namespace cuda
