// ops.h -- everything a network needs from a device: the engine's table of contents.
//
// The network is written once over this interface; CpuOps and CudaOps implement it and switch on the data type, once,
// here. Every method is one kernel stem: its header (rmsnorm.h, ...) holds the formula and the naive reference.
//
// Shape letters: T packed tokens, S key/value slots, N target rows, C width, NH query heads, NKV key/value heads,
// HD head size, F MLP width, V vocabulary. Tensors are two-dimensional views and may be strided (a column range of a
// fused projection). Arguments come as: outputs, saved statistics, inputs, weights, sizes, scalars.
// `=` overwrites, `+=` accumulates: activation gradients are `=` (the residual stream is the exception and says so),
// parameter gradients are `+=`. No operation allocates memory visible to its caller.
#pragma once
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>

#include "utils/arena.h"
#include "utils/tensor.h"

// Which key/value slots a token attends to: up to three half-open ranges [begin, end), pairwise disjoint, any of them
// empty. By convention 0 is the shared prefix, 1 the sequence's own clean context, 2 its own block.
struct AttentionSpans {
    int begin[3] = {0, 0, 0};
    int end[3] = {0, 0, 0};
};
constexpr int SPAN_INTS = 6;  // an AttentionSpans as a row of an I32 tensor: begin[3], end[3]

// Which probability of the candidate counts as its confidence.
enum class Confidence : int {
    Tempered,  // softmax(logits / temperature), before top-k and top-p
    Plain,     // softmax(logits)
    Filtered,  // after temperature, top-k and top-p
};

// How a random number becomes an id of the distribution that temperature, top-k and top-p leave.
enum class Draw : int {
    Inverse,  // one number, by the inverse of the cumulative distribution
    Gumbel,   // a number u for every id: the largest p / -log u, with u in double (LLaDA)
};

// How one row's candidate is drawn. Temperature 0 is the argmax (lowest id on ties) and its confidence is Plain.
struct SampleRow {
    uint64_t seed = 0;
    // Philox counter {position, step, Stream::Sample, sequence}: one half of its bits draws the candidate, the other
    // half is for the order of positions
    uint32_t sequence = 0, position = 0, step = 0;
    float temperature = 0;
    int top_k = 0;    // 0: off. Exactly k are kept, lowest id on ties
    float top_p = 1;  // 1: off. The token that crosses p is kept
    Confidence confidence = Confidence::Tempered;
    Draw draw = Draw::Inverse;
    int margin = 0;  // 1: confidence is the difference of the two largest such probabilities
};

struct Sampled {
    int token;
    float confidence;  // probability of `token` as SampleRow::confidence says, or the margin
    float logprob;     // log softmax(logits)[token]: untempered, unfiltered, what training computes
    float entropy;     // nats, of the distribution that Tempered / Plain / Filtered confidence is read from
};

// Which masked positions a step reveals.
enum class Remasking : int {
    LowConfidenceStatic,
    LowConfidenceDynamic,
    Sequential,
    EntropyBounded,
    Factor,  // the most confident, as many as the confidence of the last of them allows (Fast-dLLM)
    Random,
    Margin,   // by the margin of the two likeliest ids, largest first
    Entropy,  // lowest first
    Origin,   // each independently, at random
};

// n(step): how many it reveals.
enum class RevealSchedule : int {
    Even,       // B / S, the remainder going to the first steps; once S steps are used up, what is left
    Floor,      // B / S without remainder, in as many steps as it takes (lmdeploy)
    Timesteps,  // masks * (1 - s / t), t going from 1 to eps in S steps; in the last of them what is left (Dream)
};

// What low_confidence_dynamic reveals when fewer than n(step) candidates are above the threshold.
enum class Fallback : int {
    Top,  // the n most confident; the same as joining them to those above the threshold (dLLM-RL), which are among them
    Leftmost,  // the first n masked positions (JetEngine)
    One,       // the most confident one, and only where none is above the threshold (lmdeploy)
};

// How many masked positions a step of a block reveals, and which: the formulas are reveal_block.h's.
struct RevealRule {
    Remasking remasking = Remasking::LowConfidenceDynamic;
    Fallback fallback = Fallback::Top;
    int inclusive = 0;  // 1: confidence >= threshold instead of >
    RevealSchedule schedule = RevealSchedule::Even;
    int block = 4, steps = 4;     // B, S
    float eps = 1e-3f;            // the last timestep
    float order_temperature = 0;  // above 0: the n positions are drawn: softmax(score / temperature)
    double threshold = 0.9, entropy_bound = 0.35, factor = 1;
};

// A masked position of a block, one of the targets of a forward pass.
struct RevealTarget {
    int row = 0;   // of the batch that the next step forwards: where its id is written when it is revealed
    int ends = 0;  // 1: once it and everything before it in the block is revealed, the sequence is at its end
    int step = 0;  // of the run, from 1, in which it was revealed; 0: it is still masked
    int token = 0;
    float logprob = 0, entropy = 0;
};

// A sequence's block: targets [first, first + count), by position.
struct RevealBlock {
    int first = 0, count = 0;
    int step = 0;  // denoising steps it has had
    // Of RevealRun::stops: ids that end the sequence once all before them is revealed.
    int first_stop = 0, n_stops = 0;
    int padding = 0;
    RevealRule rule;
};

// A run of denoising steps of some blocks, in device memory. Records are rows of I32 (see `records`).
struct RevealRun {
    Tensor targets;  // (N) RevealTarget
    Tensor blocks;   // (n_blocks) RevealBlock
    Tensor rows;     // (N) SampleRow of each target in the step to come
    Tensor sampled;  // (N) Sampled of each target in this step
    Tensor stops;    // (1, any) stop ids
    Tensor token;    // (1, T) of the batch that the next step forwards; absent: there is none
    Tensor status;   // (1, STATUS_INTS)
};
enum RevealStatus : int {
    RUNNING,   // 1: another step may follow
    STEPS,     // done so far
    MOST,      // most steps the run may have
    N_BLOCKS,  // of the run
    STATUS_INTS
};

// Records of 32-bit fields as a tensor, one per row.
template <class Record>
Tensor records(Record* first, int64_t n) {
    static_assert(sizeof(Record) % sizeof(int) == 0);
    return tensor(const_cast<std::remove_const_t<Record>*>(first), n, int64_t(sizeof(Record) / sizeof(int)),
                  DType::I32);
}
template <class Record>
Record* records_of(const Tensor& t) {
    CHECK(t.cols == int64_t(sizeof(Record) / sizeof(int)) && t.contiguous(), "records of %lld numbers",
          (long long)t.cols);
    return reinterpret_cast<Record*>(t.as<int>());
}

// Sizes of batches that one recording serves: n rounded up to one of eight steps per power of two.
constexpr int size_bucket(int n) {
    int step = 1;
    while (n > 16 * step) step *= 2;
    return (n + step - 1) / step * step;
}

// The same with two steps per power of two: for sizes that cost little, so that fewer recordings serve all of them.
constexpr int coarse_bucket(int n) {
    int power = 1;
    while (2 * power < n) power *= 2;
    return n <= power ? n : 2 * n <= 3 * power ? power + power / 2 : 2 * power;
}

// A target of a training pass: everything of its loss but the network's output (pair_loss.h).
struct LossPair {
    double old = 0;     // output of the old policy (value model)
    double credit = 0;  // what the target gets: the advantage A_j (policy), the return R_j (value model)
    double weight = 0;  // of its loss in the sum
    int current = 0;    // 1: the old policy (value model) is the one in training, and `old` is not read
    int padding = 0;
};

// Queries, keys and values of a layer, made from their projection qkv (T, (NH + 2 NKV) * HD) = [q | k | v].
struct QkvForward {
    Tensor q, q_rstd;  // (T, NH*HD), (T, NH): normed and rotated; q absent: not made
    Tensor k, k_rstd;  // (S, NKV*HD), (T, NKV): likewise
    Tensor v;          // (S, NKV*HD): copied; absent: not made
    // (1, T): the row that each token's key and value go to, distinct; -1: they are not kept; absent: row t
    Tensor slot;
    Tensor qkv;             // strided or not
    Tensor q_norm, k_norm;  // (HD); absent: no norm, and rstd is not used
    Tensor position, rope;  // (1, T), (max_position, HD)
    int heads = 0, kv_heads = 0;
    float eps = 0;

    int HD() const { return int(qkv.cols) / (heads + 2 * kv_heads); }
    Tensor raw_q() const { return qkv.col_range(0, heads * HD()); }
    Tensor raw_k() const { return qkv.col_range(heads * HD(), (heads + kv_heads) * HD()); }
    Tensor raw_v() const { return qkv.col_range((heads + kv_heads) * HD(), qkv.cols); }
};

struct AdamW {
    float lr = 0, beta1 = 0.9f, beta2 = 0.999f, eps = 1e-8f, weight_decay = 0;
    int64_t step = 1;      // 1 for the first update: bias correction divides by 1 - beta^step
    float grad_scale = 1;  // multiplies the gradient first (clipping by global norm)
};

class Ops : public Memory {
  public:
    // ---- memory ------------------------------------------------------------------------------------------------
    virtual std::string device_name() const = 0;
    virtual bool on_host() const { return false; }  // the host may read and write tensors in place
    // Of contiguous tensors. upload() returns when `host` may be reused; download() waits for everything before it.
    virtual void upload(Tensor device, const void* host) = 0;
    virtual void download(void* host, Tensor device) = 0;
    virtual void zero(Tensor t) = 0;
    virtual void copy(Tensor out, Tensor inp) = 0;  // casts between F32 and BF16

    // ---- rows --------------------------------------------------------------------------------------------------
    // out (T, C) = weight (V, C)[token (T)]
    virtual void embedding_forward(Tensor out, Tensor token, Tensor weight) = 0;
    // dweight (V, C) += dout at the rows of token
    virtual void embedding_backward(Tensor dweight, Tensor dout, Tensor token) = 0;
    // out (N, C) = inp (T, C)[row (N)]
    virtual void gather_rows(Tensor out, Tensor inp, Tensor row) = 0;
    // dinp (T, C) = 0, then dinp[row] += dout (N, C)
    virtual void gather_rows_backward(Tensor dinp, Tensor dout, Tensor row) = 0;
    // out (S, C)[slot (T)] = inp (T, C): where keys and values are written
    virtual void scatter_rows(Tensor out, Tensor inp, Tensor slot) = 0;
    // hidden (N, C)[row (M)] += scale (1, M) * (hidden[row] - unconditional (M, C)): classifier-free guidance of the logits
    // computed from them. Rows are distinct.
    virtual void guide_rows(Tensor hidden, Tensor unconditional, Tensor row, Tensor scale) = 0;

    // ---- normalisation -------------------------------------------------------------------------------------------
    // out (T, C) = inp * rstd * weight (C), rstd (T) = 1 / sqrt(mean(inp^2) + eps)
    virtual void rmsnorm_forward(Tensor out, Tensor rstd, Tensor inp, Tensor weight, float eps) = 0;
    // dinp (T, C) += (the residual stream), dweight (C) +=
    virtual void rmsnorm_backward(Tensor dinp, Tensor dweight, Tensor dout, Tensor rstd, Tensor inp,
                                  Tensor weight) = 0;

    // ---- matrix products -----------------------------------------------------------------------------------------
    // out (T, N) = inp (T, K) weight (N, K)^T [+ bias (N)] [+ residual (T, N), which may be out itself]
    virtual void linear_forward(Tensor out, Tensor inp, Tensor weight, Tensor bias = {},
                                Tensor residual = {}) = 0;
    // A second copy of `weight` in the device's own order, with which products of few rows are faster: its shape and type,
    // without memory; no rows where there is no gain or the weight is too large. weight may be only planned.
    virtual Tensor packed_shape(Tensor /*weight*/) const { return {}; }
    // Fills that copy. With its data as weight.packed, linear_forward and head_sample give the same bits as without, for
    // as long as weight does not change.
    virtual void pack(Tensor /*packed*/, Tensor /*weight*/) {}
    // dinp (T, K) = dout (T, N) weight (N, K)       dweight (N, K) += dout^T inp       dbias (N) += column sums
    // Any of dinp, dweight, dbias may be absent.
    virtual void linear_backward(Tensor dinp, Tensor dweight, Tensor dbias, Tensor dout, Tensor inp,
                                 Tensor weight) = 0;

    // ---- q/k norm + RoPE ------------------------------------------------------------------------------------------
    // Each head of HD: out = rope(inp * rstd * weight, position); without weight: out = rope(inp, position), rstd unused.
    // out (T, H*HD), rstd (T, H), inp (T, H*HD), weight (HD) or absent, position (T).
    // rope is (max_position, HD): the row of a position holds cos (HD/2) then sin (HD/2); half-split (NeoX) rotation.
    virtual void head_norm_rope_forward(Tensor out, Tensor rstd, Tensor inp, Tensor weight, Tensor position,
                                        Tensor rope, int heads, float eps) = 0;
    // The same for a layer's queries and keys; its values are copied to the rows of the keys. One pass over the projection.
    virtual void qkv_forward(const QkvForward& layer) = 0;
    // dinp (T, H*HD) =, dweight (HD) +=
    virtual void head_norm_rope_backward(Tensor dinp, Tensor dweight, Tensor dout, Tensor rstd, Tensor inp,
                                         Tensor weight, Tensor position, Tensor rope, int heads) = 0;

    // ---- span attention --------------------------------------------------------------------------------------------
    // out (T, NH*HD) = softmax(q k^T / sqrt(HD)) v over the slots that see (T, 6) names; query head h reads key/value
    // head h / (NH/NKV). q (T, NH*HD), k and v (S, NKV*HD). lse (T, NH): log of the sum of exponentials, saved.
    virtual void attention_forward(Tensor out, Tensor lse, Tensor q, Tensor k, Tensor v, Tensor see,
                                   int heads, int kv_heads) = 0;
    // dq (T, NH*HD) =, dk and dv (S, NKV*HD) =. scratch (T, NH): row sums of dout * out.
    virtual void attention_backward(Tensor dq, Tensor dk, Tensor dv, Tensor scratch, Tensor dout, Tensor out,
                                    Tensor lse, Tensor q, Tensor k, Tensor v, Tensor see, int heads,
                                    int kv_heads) = 0;

    // ---- MLP -----------------------------------------------------------------------------------------------------
    // out (T, F) = silu(gate) * up, gate_up (T, 2F) = [gate | up]
    virtual void swiglu_forward(Tensor out, Tensor gate_up) = 0;
    virtual void swiglu_backward(Tensor dgate_up, Tensor dout, Tensor gate_up) = 0;

    // ---- LM head: never a (T, V) tensor ------------------------------------------------------------------------------
    // logits = hidden (N, C) weight (V, C)^T, chunked over V.
    // logprob (N) = logits[target] - lse, lse (N) saved; entropy (N), where present, of softmax(logits).
    virtual void head_logprob(Tensor logprob, Tensor lse, Tensor entropy, Tensor hidden, Tensor weight,
                              Tensor target) = 0;
    // d loss / d logprob = dlogprob (N):  dhidden (N, C) =, dweight (V, C) += (absent: skipped)
    virtual void head_backward(Tensor dhidden, Tensor dweight, Tensor dlogprob, Tensor lse, Tensor hidden,
                               Tensor weight, Tensor target) = 0;
    // One candidate per row: sampled (N) Sampled, rows (N) SampleRow. Ids equal to mask_id or >= n_ids are never drawn (but
    // stay in every softmax).
    virtual void head_sample(Tensor sampled, Tensor rows, Tensor hidden, Tensor weight, int mask_id,
                             int n_ids) = 0;
    // value (N) = hidden (N, C) . weight (1, C)
    virtual void value_head_forward(Tensor value, Tensor hidden, Tensor weight) = 0;
    // dhidden (N, C) =, dweight (1, C) +=
    virtual void value_head_backward(Tensor dhidden, Tensor dweight, Tensor dvalue, Tensor hidden,
                                     Tensor weight) = 0;

    // ---- losses: pairs (N) LossPair, one per target --------------------------------------------------------------------
    // dlogprob (N) = d loss / d logprob (N) of the clipped surrogate and its divergence from the old policy
    virtual void policy_loss_backward(Tensor dlogprob, Tensor logprob, Tensor pairs, double clip_low,
                                      double clip_high, double kl_beta) = 0;
    // dvalue (N) = d loss / d value (N) of the clipped regression
    virtual void value_loss_backward(Tensor dvalue, Tensor value, Tensor pairs, double value_clip) = 0;

    // ---- generation --------------------------------------------------------------------------------------------------
    // One step's decision for every block of the run: targets are revealed from `sampled`, their ids written into `token`,
    // rows and status advanced to the next step. The run goes on while every block keeps a mask and no sequence ends.
    virtual void reveal_blocks(const RevealRun& run) = 0;
    // Calls `step` while `running`, an I32 in device memory that `step` writes, is not 0. `step` may be recorded once and
    // its launches repeated from the recording, also in later calls with the same key: it must start the same operations
    // on the same tensors, and upload and download nothing. key: everything that its sizes follow from.
    virtual void repeat_while(Tensor running, std::span<const int> key, const std::function<void()>& step);

    // ---- optimizer -------------------------------------------------------------------------------------------------
    // Decoupled weight decay (Loshchilov & Hutter): param, m, v are updated in place from grad, all of one shape.
    // m and v may be BF16. With a master (F32) the master is updated, and param (F32 or BF16) becomes its copy.
    virtual void adamw(Tensor param, Tensor m, Tensor v, Tensor grad, const AdamW& options,
                       Tensor master = {}) = 0;
    // The sum over all elements of all tensors, each contiguous: in double, in an order that depends on the shapes alone.
    virtual double sum_of_squares(std::span<const Tensor> tensors) = 0;
};

// Every fp32 kernel on the host's cores. Weights may be BF16 where a method reads them (linear_forward, embedding_forward,
// head_*): accumulated in fp32, never expanded to a copy of the model.
std::unique_ptr<Ops> make_cpu_ops();
// A GPU of which only the free memory is known: everything can be planned for it, nothing allocated or computed.
std::unique_ptr<Ops> make_planned_ops(size_t bytes);
