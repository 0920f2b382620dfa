// reveal_block.cu -- see reveal_block.h. One block of threads decides for all sequences, a warp for each sequence's block of
// masks; being one, it can also say whether the run goes on. Ranks are counted, nothing is sorted.
#include "kernels/cuda_kernels.h"
#include "kernels/device/ptx.h"
#include "kernels/reveal_block.h"

namespace cuda {

constexpr int MOST_WARPS = 32;

// ---- kernels ----

struct RevealArguments {
    RevealTarget* targets;
    RevealBlock* blocks;
    SampleRow* rows;
    const Sampled* sampled;
    const int* stops;
    int *token, *status;
    double* score;        // (N) what masked targets are ordered by; not a number where not masked
    int *order, *chosen;  // (N) each: a block's masked targets in order; whether a target is revealed
};

// How many masked targets come before target i, which is one.
__device__ inline int rank(const double* score, int count, int i) {
    const double mine = score[i];
    int before = 0;
    for (int j = 0; j < count; j++) before += score[j] > mine || (score[j] == mine && j < i);
    return before;
}

// A warp's work: all arguments are those of one block, the same in every lane. Whether a target is masked is read by one lane alone, which
// the caller may let lift the mask.
__device__ inline void choose(int* chosen, int* order, double* score, const RevealTarget* targets,
                              const Sampled* sampled, const SampleRow* rows, int count,
                              const RevealRule& rule, int step) {
    const int lane = int(threadIdx.x) % WARP;
    int n_masked = 0, n_sure = 0;
    for (int i0 = 0; i0 < count; i0 += WARP) {
        const int i = i0 + lane;
        const bool masked = i < count && targets[i].step == 0;
        n_masked += __popc(__ballot_sync(FULL_WARP, masked));
        n_sure += __popc(__ballot_sync(FULL_WARP, masked && is_sure(rule, sampled[i].confidence)));
        if (i >= count) continue;
        const double u = masked && has_random_order(rule) ? order_uniform(rows[i]) : 0;
        score[i] = masked ? reveal_score(rule, sampled[i].confidence, sampled[i].entropy, u) : double(NAN);
    }
    __syncwarp();  // every score is written before ranks are counted
    const bool everything = is_last_step(rule, step),
               dynamic = rule.remasking == Remasking::LowConfidenceDynamic,
               origin = rule.remasking == Remasking::Origin,
               by_entropy = rule.remasking == Remasking::EntropyBounded && !everything,
               by_factor = rule.remasking == Remasking::Factor && !everything;
    int n = everything || origin ? n_masked : reveal_count(rule, step, n_masked);
    if (dynamic && rule.fallback == Fallback::One) n = min(n, 1);
    const bool enough = dynamic && n_sure >= min(n, n_masked);
    if (by_entropy || by_factor)
        for (int i = lane; i < count; i += WARP)
            if (targets[i].step == 0) order[rank(score, count, i)] = i;
    __syncwarp();  // the order is whole before it is read
    if (by_factor) {
        n = n_masked;
        for (int r0 = 0; r0 < n_masked; r0 += WARP) {
            const int r = r0 + lane;
            const unsigned ends = __ballot_sync(
                FULL_WARP, r < n_masked && ends_factor(rule, r, n_masked, sampled[order[r]].confidence));
            if (!ends) continue;
            n = r0 + __popc(ends ^ (ends - 1)) - 1;  // the lowest that is set
            break;
        }
    }
    for (int i = lane; i < count; i += WARP) {
        bool now = targets[i].step == 0;
        if (now && by_entropy) {
            const int mine = rank(score, count, i);
            double sum = 0;
            for (int r = 0; r <= mine; r++) sum += double(sampled[order[r]].entropy);
            now = mine == 0 || sum < rule.entropy_bound;
        } else if (now && !everything) {
            now = origin   ? score[i] < double(timestep_share(rule, step))
                  : enough ? is_sure(rule, sampled[i].confidence)
                           : rank(score, count, i) < n;
        }
        chosen[i] = now;
    }
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

__global__ void __launch_bounds__(MOST_WARPS* WARP) reveal_blocks_kernel(RevealArguments arg) {
    griddepcontrol_launch_dependents();
    griddepcontrol_wait();
    STATIC_SHARED(int, stopped, [MOST_WARPS]);
    const int lane = int(threadIdx.x) % WARP, warp = int(threadIdx.x) / WARP, warps = int(blockDim.x) / WARP;
    const int n_blocks = arg.status[N_BLOCKS], step = arg.status[STEPS] + 1;
    int stop = 0;
    for (int b = warp; b < n_blocks; b += warps) {
        const RevealBlock block = arg.blocks[b];
        RevealTarget* targets = arg.targets + block.first;
        const Sampled* sampled = arg.sampled + block.first;
        choose(arg.chosen + block.first, arg.order + block.first, arg.score + block.first, targets, sampled,
               arg.rows + block.first, block.count, block.rule, block.step);
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
    __syncwarp();  // a barrier of the block is for whole warps
    __syncthreads();  // every warp's verdict is written before thread 0 reads them, and the old status read before it writes
    if (threadIdx.x == 0) {
        for (int w = 0; w < warps; w++) stop |= stopped[w];
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
                              .score = ctx.workspace.take<double>(N),
                              .order = ctx.workspace.take<int>(N),
                              .chosen = ctx.workspace.take<int>(N)};
    launch_next(ctx, reveal_blocks_kernel, 1, threads_for(run.blocks.rows * WARP, MOST_WARPS * WARP), 0, arg);
}

}  // namespace cuda
