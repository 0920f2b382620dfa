// timed_ops.h -- Ops that measure themselves: every call goes on to another Ops, its time and its
// floating-point operations are added up by kind. What an update or a pass spends its time on.
#pragma once
#include <algorithm>
#include <array>

#include "kernels/ops.h"
#include "utils/timer.h"

class TimedOps : public Ops {
  public:
    enum Kind { LINEAR, LINEAR_BACKWARD, ATTENTION, ATTENTION_BACKWARD, HEAD, HEAD_BACKWARD, OTHER, KINDS };
    static const char* name(int kind) {
        static const char* const names[] = {
            "linear",  "linear, backward",  "attention", "attention, backward",
            "LM head", "LM head, backward", "the rest"};
        return names[kind];
    }
    struct Total {
        double seconds = 0, flops = 0;
    };

    explicit TimedOps(Ops& ops) : ops_(ops) {}
    std::array<Total, KINDS> take() {  // the totals since the last call
        const std::array<Total, KINDS> all = totals_;
        totals_ = {};
        return all;
    }

    void* allocate(size_t bytes) override { return ops_.allocate(bytes); }
    void release(void* block, size_t bytes) override { ops_.release(block, bytes); }
    size_t available() const override { return ops_.available(); }
    std::string device_name() const override { return ops_.device_name(); }
    bool on_host() const override { return ops_.on_host(); }
    void upload(Tensor t, const void* host) override {
        other([&] { ops_.upload(t, host); });
    }
    void download(void* host, Tensor t) override {
        other([&] { ops_.download(host, t); });
    }
    void zero(Tensor t) override {
        other([&] { ops_.zero(t); });
    }
    void copy(Tensor out, Tensor inp) override {
        other([&] { ops_.copy(out, inp); });
    }
    void embedding_forward(Tensor out, Tensor token, Tensor weight) override {
        other([&] { ops_.embedding_forward(out, token, weight); });
    }
    void embedding_backward(Tensor dweight, Tensor dout, Tensor token) override {
        other([&] { ops_.embedding_backward(dweight, dout, token); });
    }
    void gather_rows(Tensor out, Tensor inp, Tensor row) override {
        other([&] { ops_.gather_rows(out, inp, row); });
    }
    void gather_rows_backward(Tensor dinp, Tensor dout, Tensor row) override {
        other([&] { ops_.gather_rows_backward(dinp, dout, row); });
    }
    void scatter_rows(Tensor out, Tensor inp, Tensor slot) override {
        other([&] { ops_.scatter_rows(out, inp, slot); });
    }
    void guide_rows(Tensor hidden, Tensor unconditional, Tensor row, Tensor scale) override {
        other([&] { ops_.guide_rows(hidden, unconditional, row, scale); });
    }
    void rmsnorm_forward(Tensor out, Tensor rstd, Tensor inp, Tensor weight, float eps) override {
        other([&] { ops_.rmsnorm_forward(out, rstd, inp, weight, eps); });
    }
    void rmsnorm_backward(Tensor dinp, Tensor dweight, Tensor dout, Tensor rstd, Tensor inp,
                          Tensor weight) override {
        other([&] { ops_.rmsnorm_backward(dinp, dweight, dout, rstd, inp, weight); });
    }
    Tensor packed_shape(Tensor weight) const override { return ops_.packed_shape(weight); }
    void pack(Tensor packed, Tensor weight) override {
        other([&] { ops_.pack(packed, weight); });
    }
    void linear_forward(Tensor out, Tensor inp, Tensor weight, Tensor bias, Tensor residual) override {
        timed(LINEAR, 2 * product(inp, weight),
              [&] { ops_.linear_forward(out, inp, weight, bias, residual); });
    }
    void linear_backward(Tensor dinp, Tensor dweight, Tensor dbias, Tensor dout, Tensor inp,
                         Tensor weight) override {
        timed(LINEAR_BACKWARD, 4 * product(inp, weight),
              [&] { ops_.linear_backward(dinp, dweight, dbias, dout, inp, weight); });
    }
    void head_norm_rope_forward(Tensor out, Tensor rstd, Tensor inp, Tensor weight, Tensor position,
                                Tensor rope, int heads, float eps) override {
        other([&] { ops_.head_norm_rope_forward(out, rstd, inp, weight, position, rope, heads, eps); });
    }
    void qkv_forward(const QkvForward& layer) override {
        other([&] { ops_.qkv_forward(layer); });
    }
    void head_norm_rope_backward(Tensor dinp, Tensor dweight, Tensor dout, Tensor rstd, Tensor inp,
                                 Tensor weight, Tensor position, Tensor rope, int heads) override {
        other([&] {
            ops_.head_norm_rope_backward(dinp, dweight, dout, rstd, inp, weight, position, rope, heads);
        });
    }
    void attention_forward(Tensor out, Tensor lse, Tensor q, Tensor k, Tensor v, Tensor see, int heads,
                           int kv_heads) override {
        timed(ATTENTION, 4 * pairs(see) * double(q.cols),
              [&] { ops_.attention_forward(out, lse, q, k, v, see, heads, kv_heads); });
    }
    void attention_backward(Tensor dq, Tensor dk, Tensor dv, Tensor scratch, Tensor dout, Tensor out,
                            Tensor lse, Tensor q, Tensor k, Tensor v, Tensor see, int heads,
                            int kv_heads) override {
        timed(ATTENTION_BACKWARD, 10 * pairs(see) * double(q.cols), [&] {
            ops_.attention_backward(dq, dk, dv, scratch, dout, out, lse, q, k, v, see, heads, kv_heads);
        });
    }
    void swiglu_forward(Tensor out, Tensor gate_up) override {
        other([&] { ops_.swiglu_forward(out, gate_up); });
    }
    void swiglu_backward(Tensor dgate_up, Tensor dout, Tensor gate_up) override {
        other([&] { ops_.swiglu_backward(dgate_up, dout, gate_up); });
    }
    void head_logprob(Tensor logprob, Tensor lse, Tensor entropy, Tensor hidden, Tensor weight,
                      Tensor target) override {
        timed(HEAD, 2 * product(hidden, weight),
              [&] { ops_.head_logprob(logprob, lse, entropy, hidden, weight, target); });
    }
    void head_backward(Tensor dhidden, Tensor dweight, Tensor dlogprob, Tensor lse, Tensor hidden,
                       Tensor weight, Tensor target) override {  // the logits are computed again
        timed(HEAD_BACKWARD, 6 * product(hidden, weight),
              [&] { ops_.head_backward(dhidden, dweight, dlogprob, lse, hidden, weight, target); });
    }
    void head_sample(Tensor sampled, Tensor rows, Tensor hidden, Tensor weight, int mask_id,
                     int n_ids) override {
        timed(HEAD, 2 * product(hidden, weight),
              [&] { ops_.head_sample(sampled, rows, hidden, weight, mask_id, n_ids); });
    }
    void value_head_forward(Tensor value, Tensor hidden, Tensor weight) override {
        other([&] { ops_.value_head_forward(value, hidden, weight); });
    }
    void value_head_backward(Tensor dhidden, Tensor dweight, Tensor dvalue, Tensor hidden,
                             Tensor weight) override {
        other([&] { ops_.value_head_backward(dhidden, dweight, dvalue, hidden, weight); });
    }
    void policy_loss_backward(Tensor dlogprob, Tensor logprob, Tensor pairs, double clip_low,
                              double clip_high, double kl_beta) override {
        other([&] { ops_.policy_loss_backward(dlogprob, logprob, pairs, clip_low, clip_high, kl_beta); });
    }
    void value_loss_backward(Tensor dvalue, Tensor value, Tensor pairs, double value_clip) override {
        other([&] { ops_.value_loss_backward(dvalue, value, pairs, value_clip); });
    }
    void adamw(Tensor param, Tensor m, Tensor v, Tensor grad, const AdamW& options, Tensor master) override {
        other([&] { ops_.adamw(param, m, v, grad, options, master); });
    }
    double sum_of_squares(std::span<const Tensor> tensors) override { return ops_.sum_of_squares(tensors); }
    void reveal_blocks(const RevealRun& run) override {
        other([&] { ops_.reveal_blocks(run); });
    }
    void repeat_while(Tensor running, std::span<const int> key, const std::function<void()>& step) override {
        ops_.repeat_while(running, key, step);
    }

  private:
    template <class Call>
    void timed(Kind kind, double flops, const Call& call) {
        Timer timer;
        call();
        totals_[kind].seconds += timer.restart();
        totals_[kind].flops += flops;
    }
    template <class Call>
    void other(const Call& call) {
        timed(OTHER, 0, call);
    }
    static double product(const Tensor& inp, const Tensor& weight) {
        return double(inp.rows) * double(weight.rows) * double(weight.cols);
    }
    static double pairs(const Tensor& see) {  // (row, slot) pairs that meet
        const AttentionSpans* spans = reinterpret_cast<const AttentionSpans*>(see.as<int>());
        double n = 0;
        for (int64_t t = 0; t < see.rows; t++)
            for (int r = 0; r < 3; r++) n += std::max(0, spans[t].end[r] - spans[t].begin[r]);
        return n;
    }

    Ops& ops_;
    std::array<Total, KINDS> totals_;
};
