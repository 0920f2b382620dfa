// reveal_block.cu -- see reveal_block.h. One block of threads decides for all sequences, a warp per sequence's block of masks,
// so that it can also say whether the run goes on. Ranks are counted, nothing is sorted.
#include "kernels/cuda_kernels.h"
#include "kernels/reveal_block.h"

namespace cuda {

constexpr int WARPS = 8;

// ---- kernels ----

struct RevealArguments {
    RevealTarget* targets;
    RevealBlock* blocks;
    SampleRow* rows;
    const Sampled* sampled;
    const int* stops;
    int *token, *status;
    int *order, *chosen;  // (N) each: a block's masked targets in order; whether a target is revealed
};

// A confidence that is not a number counts as the lowest, so that the order is always total.
__device__ inline float comparable(float confidence) { return confidence == confidence ? confidence : -1.0f; }

// What a warp knows of its block: all members are the same in every lane.
struct Masks {
    const RevealTarget* targets;
    const Sampled* sampled;
    RevealRule rule;
    int count;

    __device__ bool masked(int i) const { return i < count && targets[i].step == 0; }
    __device__ bool sure(int i) const {
        const double c = double(comparable(sampled[i].confidence));
        return rule.inclusive ? c >= rule.threshold : c > rule.threshold;
    }
    // How many masked targets come before target i in the order of `by`.
    __device__ int rank(int i, Remasking by) const {
        int before = 0;
        for (int j = 0; j < count; j++) {
            if (!masked(j) || j == i) continue;
            bool earlier = j < i;
            if (by == Remasking::EntropyBounded) {
                const float ej = sampled[j].entropy, ei = sampled[i].entropy;
                earlier = ej < ei || (ej == ei && earlier);
            } else if (by != Remasking::Sequential) {
                const float cj = comparable(sampled[j].confidence), ci = comparable(sampled[i].confidence);
                earlier = cj > ci || (cj == ci && earlier);
            }
            before += earlier;
        }
        return before;
    }
    // The order of the first n, where those above the threshold are too few or the rule knows none.
    __device__ Remasking fallback_order() const {
        const bool leftmost =
            rule.remasking == Remasking::LowConfidenceDynamic && rule.fallback == Fallback::Leftmost;
        return leftmost ? Remasking::Sequential : rule.remasking;
    }
};

__device__ inline void choose(int* chosen, int* order, const Masks& m, int step) {
    const int lane = int(threadIdx.x) % WARP;
    const RevealRule& rule = m.rule;
    int n_masked = 0, n_sure = 0;
    for (int i0 = 0; i0 < m.count; i0 += WARP) {
        const bool masked = m.masked(i0 + lane);
        n_masked += __popc(__ballot_sync(FULL_WARP, masked));
        n_sure += __popc(__ballot_sync(FULL_WARP, masked && m.sure(i0 + lane)));
    }
    const bool everything = !rule.floor_schedule && step >= rule.steps;
    int n =
        rule.floor_schedule ? max(1, rule.block / rule.steps) : reveal_count(rule.block, rule.steps, step);
    if (rule.remasking == Remasking::LowConfidenceDynamic && rule.fallback == Fallback::One) n = 1;
    int k = min(n, n_masked);
    const bool by_entropy = rule.remasking == Remasking::EntropyBounded && !everything;
    const bool by_factor = rule.remasking == Remasking::Factor && !everything;
    if (by_entropy || by_factor)
        for (int i = lane; i < m.count; i += WARP)
            if (m.masked(i)) order[m.rank(i, rule.remasking)] = i;
    __syncwarp();  // the order is whole before it is read
    if (by_factor) {
        k = n_masked;
        for (int r0 = 0; r0 < n_masked; r0 += WARP) {
            const int r = r0 + lane;
            const unsigned ends = __ballot_sync(
                FULL_WARP,
                r < n_masked && ends_factor(rule, r, n_masked, comparable(m.sampled[order[r]].confidence)));
            if (!ends) continue;
            k = r0 + __popc(ends ^ (ends - 1)) - 1;  // the lowest that is set
            break;
        }
    }
    for (int i = lane; i < m.count; i += WARP) {
        bool now = m.masked(i);
        if (now && by_entropy) {
            const int mine = m.rank(i, Remasking::EntropyBounded);
            double sum = 0;
            for (int r = 0; r <= mine; r++) sum += double(m.sampled[order[r]].entropy);
            now = mine == 0 || sum < rule.entropy_bound;
        } else if (now && !everything) {
            const bool enough = rule.remasking == Remasking::LowConfidenceDynamic && n_sure >= k;
            now = enough ? m.sure(i) : m.rank(i, m.fallback_order()) < k;
        }
        chosen[i] = now;
    }
    __syncwarp();  // everybody has looked at the masks before they are lifted
}

// Whether the sequence can go on: the first of its targets that is still masked comes before any end. One lane's work.
__device__ inline bool goes_on(const RevealTarget* targets, int count, const int* stops, int n_stops) {
    for (int i = 0; i < count; i++) {
        if (targets[i].step == 0) return true;
        if (targets[i].ends) return false;
        for (int s = 0; s < n_stops; s++)
            if (stops[s] == targets[i].token) return false;
    }
    return false;
}

__global__ void reveal_blocks_kernel(RevealArguments arg) {
    __shared__ int stopped[WARPS];
    const int lane = int(threadIdx.x) % WARP, warp = int(threadIdx.x) / WARP;
    const int n_blocks = arg.status[N_BLOCKS], step = arg.status[STEPS] + 1;
    int stop = 0;
    for (int b = warp; b < n_blocks; b += WARPS) {
        const RevealBlock block = arg.blocks[b];
        RevealTarget* targets = arg.targets + block.first;
        const Sampled* sampled = arg.sampled + block.first;
        choose(arg.chosen + block.first, arg.order + block.first, {targets, sampled, block.rule, block.count},
               block.step);
        for (int i = lane; i < block.count; i += WARP) {
            arg.rows[block.first + i].step++;
            if (!arg.chosen[block.first + i]) continue;
            targets[i].step = step;
            targets[i].token = sampled[i].token;
            targets[i].logprob = sampled[i].logprob;
            targets[i].entropy = sampled[i].entropy;
            if (arg.token) arg.token[targets[i].row] = sampled[i].token;
        }
        __syncwarp();  // all are revealed before the end is looked for
        if (lane == 0) {
            arg.blocks[b].step = block.step + 1;
            stop |= !goes_on(targets, block.count, arg.stops + block.first_stop, block.n_stops);
        }
    }
    if (lane == 0) stopped[warp] = stop;
    __syncthreads();  // every warp's verdict is written before thread 0 reads them, and the old status read before it writes
    if (threadIdx.x == 0) {
        for (int w = 0; w < WARPS; w++) stop |= stopped[w];
        arg.status[STEPS] = step;
        arg.status[RUNNING] = !stop && step < arg.status[MOST];
    }
}

// ---- launchers ----

void reveal_blocks(const Context& ctx, const RevealRun& run) {
    const size_t N = size_t(run.targets.rows);
    const RevealArguments arg{.targets = records_of<RevealTarget>(run.targets),
                              .blocks = records_of<RevealBlock>(run.blocks),
                              .rows = records_of<SampleRow>(run.rows),
                              .sampled = records_of<Sampled>(run.sampled),
                              .stops = run.stops.as<int>(),
                              .token = optional<int>(run.token),
                              .status = run.status.as<int>(),
                              .order = ctx.workspace.take<int>(N),
                              .chosen = ctx.workspace.take<int>(N)};
    launch(reveal_blocks_kernel, 1, WARPS * WARP, 0, ctx.stream, arg);
}

}  // namespace cuda
