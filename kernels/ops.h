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

// How one row's candidate is drawn. Temperature 0 is the argmax (lowest id on ties) and its confidence is Plain.
struct SampleRow {
    uint64_t seed = 0;
    uint32_t sequence = 0, position = 0, step = 0;  // Philox counter {position, step, Stream::Sample, sequence}
    float temperature = 0;
    int top_k = 0;    // 0: off. Exactly k are kept, lowest id on ties
    float top_p = 1;  // 1: off. The token that crosses p is kept
    Confidence confidence = Confidence::Tempered;
};

struct Sampled {
    int token;
    float confidence;  // probability of `token` as SampleRow::confidence says
    float logprob;     // log softmax(logits)[token]: untempered, unfiltered, what training computes
    float entropy;     // nats, of the distribution that Tempered / Plain / Filtered confidence is read from
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
    virtual bool on_host() const { return false; }               // the host may read and write tensors in place
    virtual void upload(Tensor device, const void* host) = 0;    // contiguous; returns when `host` may be reused
    virtual void download(void* host, Tensor device) = 0;        // contiguous; waits for everything before it
    virtual void zero(Tensor t) = 0;
    virtual void copy(Tensor out, Tensor inp) = 0;               // casts between F32 and BF16

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

    // ---- normalisation -------------------------------------------------------------------------------------------
    // out (T, C) = inp * rstd * weight (C), rstd (T) = 1 / sqrt(mean(inp^2) + eps)
    virtual void rmsnorm_forward(Tensor out, Tensor rstd, Tensor inp, Tensor weight, float eps) = 0;
    // dinp (T, C) += (the residual stream), dweight (C) +=
    virtual void rmsnorm_backward(Tensor dinp, Tensor dweight, Tensor dout, Tensor rstd, Tensor inp, Tensor weight) = 0;

    // ---- matrix products -----------------------------------------------------------------------------------------
    // out (T, N) = inp (T, K) weight (N, K)^T [+ bias (N)] [+ residual (T, N), which may be out itself]
    virtual void linear_forward(Tensor out, Tensor inp, Tensor weight, Tensor bias = {}, Tensor residual = {}) = 0;
    // dinp (T, K) = dout (T, N) weight (N, K)       dweight (N, K) += dout^T inp       dbias (N) += column sums
    // Any of dinp, dweight, dbias may be absent.
    virtual void linear_backward(Tensor dinp, Tensor dweight, Tensor dbias, Tensor dout, Tensor inp, Tensor weight) = 0;

    // ---- q/k norm + RoPE ------------------------------------------------------------------------------------------
    // Each head of HD: out = rope(inp * rstd * weight, position); without weight: out = rope(inp, position), rstd unused.
    // out (T, H*HD), rstd (T, H), inp (T, H*HD), weight (HD) or absent, position (T).
    // rope is (max_position, HD): the row of a position holds cos (HD/2) then sin (HD/2); half-split (NeoX) rotation.
    virtual void head_norm_rope_forward(Tensor out, Tensor rstd, Tensor inp, Tensor weight, Tensor position, Tensor rope,
                                        int heads, float eps) = 0;
    // dinp (T, H*HD) =, dweight (HD) +=
    virtual void head_norm_rope_backward(Tensor dinp, Tensor dweight, Tensor dout, Tensor rstd, Tensor inp, Tensor weight,
                                         Tensor position, Tensor rope, int heads) = 0;

    // ---- span attention --------------------------------------------------------------------------------------------
    // out (T, NH*HD) = softmax(q k^T / sqrt(HD)) v over the slots that see (T, 6) names; query head h reads key/value
    // head h / (NH/NKV). q (T, NH*HD), k and v (S, NKV*HD). lse (T, NH): log of the sum of exponentials, saved.
    virtual void attention_forward(Tensor out, Tensor lse, Tensor q, Tensor k, Tensor v, Tensor see, int heads, int kv_heads) = 0;
    // dq (T, NH*HD) =, dk and dv (S, NKV*HD) =. scratch (T, NH): row sums of dout * out.
    virtual void attention_backward(Tensor dq, Tensor dk, Tensor dv, Tensor scratch, Tensor dout, Tensor out, Tensor lse, Tensor q,
                                    Tensor k, Tensor v, Tensor see, int heads, int kv_heads) = 0;

    // ---- MLP -----------------------------------------------------------------------------------------------------
    // out (T, F) = silu(gate) * up, gate_up (T, 2F) = [gate | up]
    virtual void swiglu_forward(Tensor out, Tensor gate_up) = 0;
    virtual void swiglu_backward(Tensor dgate_up, Tensor dout, Tensor gate_up) = 0;

    // ---- LM head: never a (T, V) tensor ------------------------------------------------------------------------------
    // logits = hidden (N, C) weight (V, C)^T, chunked over V.
    // logprob (N) = logits[target] - lse, lse (N) saved; entropy (N), where present, of softmax(logits).
    virtual void head_logprob(Tensor logprob, Tensor lse, Tensor entropy, Tensor hidden, Tensor weight, Tensor target) = 0;
    // d loss / d logprob = dlogprob (N):  dhidden (N, C) =, dweight (V, C) += (absent: skipped)
    virtual void head_backward(Tensor dhidden, Tensor dweight, Tensor dlogprob, Tensor lse, Tensor hidden, Tensor weight,
                               Tensor target) = 0;
    // One candidate per row. Ids equal to mask_id or >= n_ids are never drawn (but stay in every softmax). rows and out are
    // the host's.
    virtual void head_sample(std::span<Sampled> out, std::span<const SampleRow> rows, Tensor hidden, Tensor weight, int mask_id,
                             int n_ids) = 0;
    // value (N) = hidden (N, C) . weight (1, C)
    virtual void value_head_forward(Tensor value, Tensor hidden, Tensor weight) = 0;
    // dhidden (N, C) =, dweight (1, C) +=
    virtual void value_head_backward(Tensor dhidden, Tensor dweight, Tensor dvalue, Tensor hidden, Tensor weight) = 0;

    // ---- optimizer -------------------------------------------------------------------------------------------------
    // Decoupled weight decay (Loshchilov & Hutter): param, m, v are updated in place from grad, all of one shape.
    virtual void adamw(Tensor param, Tensor m, Tensor v, Tensor grad, const AdamW& options) = 0;
    virtual double sum_of_squares(Tensor t) = 0;  // in double, in an order that depends on the shape alone
};

// Every fp32 kernel on the host's cores. Weights may be BF16 where a method reads them (linear_forward, embedding_forward,
// head_*): accumulated in fp32, never expanded to a copy of the model.
std::unique_ptr<Ops> make_cpu_ops();
