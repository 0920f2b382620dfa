// cpu_ops.cpp -- Ops on the host's cores: every method is its stem's launcher.
#include <algorithm>
#include <cstring>

#include "kernels/adamw.h"
#include "kernels/attention.h"
#include "kernels/cpu.h"
#include "kernels/embedding.h"
#include "kernels/linear.h"
#include "kernels/lm_head.h"
#include "kernels/ops.h"
#include "kernels/packed_weight.h"
#include "kernels/pair_loss.h"
#include "kernels/parallel.h"
#include "kernels/reveal_block.h"
#include "kernels/rmsnorm.h"
#include "kernels/rope.h"
#include "kernels/rows.h"
#include "kernels/sampling.h"
#include "kernels/sum_of_squares.h"
#include "kernels/swiglu.h"
#include "kernels/value_head.h"

namespace {

template <class Out, class In>
void cast_row(Out* out, const In* inp, int64_t n) {
    for (int64_t i = 0; i < n; i++)
        if constexpr (std::is_same_v<Out, Bf16>)
            out[i] = to_bf16(number(inp[i]));
        else
            out[i] = number(inp[i]);
}

class CpuOps : public Ops {
  public:
    explicit CpuOps(const Simd& simd) : context_{simd} {}

    // ---- memory
    void* allocate(size_t bytes) override { return host_memory().allocate(bytes); }
    void release(void* block, size_t bytes) override { host_memory().release(block, bytes); }
    size_t available() const override { return host_memory().available(); }
    std::string device_name() const override {
        return format("CPU, %s, %d thread%s", context_.simd.name, max_threads(),
                      max_threads() == 1 ? "" : "s");
    }
    bool on_host() const override { return true; }
    void upload(Tensor device, const void* host) override {
        CHECK(device.contiguous(), "upload into a strided tensor");
        if (device.size()) memcpy(device.data, host, device.bytes());
    }
    void download(void* host, Tensor device) override {
        CHECK(device.contiguous(), "download of a strided tensor");
        if (device.size()) memcpy(host, device.data, device.bytes());
    }
    void zero(Tensor t) override {
        parallel_for(t.contiguous() ? 1 : t.rows, t.cols, [&](int64_t r) {
            const Tensor part = t.contiguous() ? t : t.row_range(r, r + 1);
            if (part.size()) memset(part.data, 0, part.bytes());
        });
    }
    void copy(Tensor out, Tensor inp) override {
        CHECK(out.rows == inp.rows && out.cols == inp.cols, "copy of (%lld, %lld) to (%lld, %lld)",
              (long long)inp.rows, (long long)inp.cols, (long long)out.rows, (long long)out.cols);
        const bool same = out.dtype == inp.dtype, to_f32 = out.dtype == DType::F32;
        CHECK(same || (to_f32 && inp.dtype == DType::BF16) ||
                  (out.dtype == DType::BF16 && inp.dtype == DType::F32),
              "copy of %s to %s", name_of(inp.dtype), name_of(out.dtype));
        parallel_for(out.rows, out.cols, [&](int64_t r) {
            const Tensor o = out.row_range(r, r + 1), x = inp.row_range(r, r + 1);
            if (same)
                memmove(o.data, x.data, x.bytes());
            else if (to_f32)
                cast_row(o.as<float>(), x.as<Bf16>(), x.cols);
            else
                cast_row(o.as<Bf16>(), x.as<float>(), x.cols);
        });
    }

    // ---- rows
    void embedding_forward(Tensor out, Tensor token, Tensor weight) override {
        cpu::embedding_forward(out, token, weight);
    }
    void embedding_backward(Tensor dweight, Tensor dout, Tensor token) override {
        cpu::embedding_backward(context_, dweight, dout, token);
    }
    void gather_rows(Tensor out, Tensor inp, Tensor row) override { cpu::gather_rows(out, inp, row); }
    void gather_rows_backward(Tensor dinp, Tensor dout, Tensor row) override {
        cpu::gather_rows_backward(context_, dinp, dout, row);
    }
    void scatter_rows(Tensor out, Tensor inp, Tensor slot) override { cpu::scatter_rows(out, inp, slot); }
    void guide_rows(Tensor hidden, Tensor unconditional, Tensor row, Tensor scale) override {
        cpu::guide_rows(hidden, unconditional, row, scale);
    }

    // ---- normalisation
    void rmsnorm_forward(Tensor out, Tensor rstd, Tensor inp, Tensor weight, float eps) override {
        cpu::rmsnorm_forward(context_, out, rstd, inp, weight, eps);
    }
    void rmsnorm_backward(Tensor dinp, Tensor dweight, Tensor dout, Tensor rstd, Tensor inp,
                          Tensor weight) override {
        cpu::rmsnorm_backward(context_, dinp, dweight, dout, rstd, inp, weight);
    }

    // ---- matrix products
    void linear_forward(Tensor out, Tensor inp, Tensor weight, Tensor bias, Tensor residual) override {
        cpu::linear_forward(context_, out, inp, weight, bias, residual);
    }
    Tensor packed_shape(Tensor weight) const override {
        return on_host() ? cpu::packed_shape(weight) : Tensor{};
    }
    void pack(Tensor packed, Tensor weight) override { cpu::pack(context_.simd, packed, weight); }
    void linear_backward(Tensor dinp, Tensor dweight, Tensor dbias, Tensor dout, Tensor inp,
                         Tensor weight) override {
        cpu::linear_backward(context_, dinp, dweight, dbias, dout, inp, weight);
    }

    // ---- q/k norm + RoPE
    void head_norm_rope_forward(Tensor out, Tensor rstd, Tensor inp, Tensor weight, Tensor position,
                                Tensor rope, int heads, float eps) override {
        cpu::head_norm_rope_forward(context_, out, rstd, inp, weight, position, rope, heads, eps);
    }
    void qkv_forward(const QkvForward& layer) override { cpu::qkv_forward(context_, layer); }
    void head_norm_rope_backward(Tensor dinp, Tensor dweight, Tensor dout, Tensor rstd, Tensor inp,
                                 Tensor weight, Tensor position, Tensor rope, int heads) override {
        cpu::head_norm_rope_backward(context_, dinp, dweight, dout, rstd, inp, weight, position, rope, heads);
    }

    // ---- span attention
    void attention_forward(Tensor out, Tensor lse, Tensor q, Tensor k, Tensor v, Tensor see, int heads,
                           int kv_heads) override {
        cpu::attention_forward(context_, out, lse, q, k, v, see, heads, kv_heads);
    }
    void attention_backward(Tensor dq, Tensor dk, Tensor dv, Tensor scratch, Tensor dout, Tensor out,
                            Tensor lse, Tensor q, Tensor k, Tensor v, Tensor see, int heads,
                            int kv_heads) override {
        cpu::attention_backward(context_, dq, dk, dv, scratch, dout, out, lse, q, k, v, see, heads, kv_heads);
    }

    // ---- MLP
    void swiglu_forward(Tensor out, Tensor gate_up) override { cpu::swiglu_forward(context_, out, gate_up); }
    void swiglu_backward(Tensor dgate_up, Tensor dout, Tensor gate_up) override {
        cpu::swiglu_backward(context_, dgate_up, dout, gate_up);
    }

    // ---- heads
    void head_logprob(Tensor logprob, Tensor lse, Tensor entropy, Tensor hidden, Tensor weight,
                      Tensor target) override {
        cpu::head_logprob(context_, logprob, lse, entropy, hidden, weight, target);
    }
    void head_backward(Tensor dhidden, Tensor dweight, Tensor dlogprob, Tensor lse, Tensor hidden,
                       Tensor weight, Tensor target) override {
        cpu::head_backward(context_, dhidden, dweight, dlogprob, lse, hidden, weight, target);
    }
    void head_sample(Tensor sampled, Tensor rows, Tensor hidden, Tensor weight, int mask_id,
                     int n_ids) override {
        cpu::head_sample(context_, {records_of<Sampled>(sampled), size_t(sampled.rows)},
                         {records_of<SampleRow>(rows), size_t(rows.rows)}, hidden, weight, mask_id, n_ids);
    }
    void value_head_forward(Tensor value, Tensor hidden, Tensor weight) override {
        cpu::value_head_forward(context_, value, hidden, weight);
    }
    void value_head_backward(Tensor dhidden, Tensor dweight, Tensor dvalue, Tensor hidden,
                             Tensor weight) override {
        cpu::value_head_backward(context_, dhidden, dweight, dvalue, hidden, weight);
    }

    // ---- losses
    void policy_loss_backward(Tensor dlogprob, Tensor logprob, Tensor pairs, double clip_low,
                              double clip_high, double kl_beta) override {
        cpu::policy_loss_backward(dlogprob, logprob, pairs, clip_low, clip_high, kl_beta);
    }
    void value_loss_backward(Tensor dvalue, Tensor value, Tensor pairs, double value_clip) override {
        cpu::value_loss_backward(dvalue, value, pairs, value_clip);
    }

    // ---- generation
    void reveal_blocks(const RevealRun& run) override { cpu::reveal_blocks(run); }

    // ---- optimizer
    void adamw(Tensor param, Tensor m, Tensor v, Tensor grad, const AdamW& options, Tensor master) override {
        cpu::adamw(context_, param, m, v, grad, options, master);
    }
    double sum_of_squares(std::span<const Tensor> tensors) override {
        double sum = 0;
        for (const Tensor& t : tensors) sum += cpu::sum_of_squares(t);
        return sum;
    }

  private:
    cpu::Context context_;
};

class PlannedGpu : public CpuOps {
  public:
    explicit PlannedGpu(size_t bytes) : CpuOps(best_simd()), bytes_(bytes) {}
    void* allocate(size_t) override { fail(Exit::NoMemory, "a planned GPU has no memory"); }
    std::string device_name() const override { return "a planned GPU"; }
    bool on_host() const override { return false; }
    size_t available() const override { return bytes_; }

  private:
    size_t bytes_;
};

}  // namespace

std::unique_ptr<Ops> make_planned_ops(size_t bytes) { return std::make_unique<PlannedGpu>(bytes); }
std::unique_ptr<Ops> make_cpu_ops() { return make_cpu_ops(best_simd()); }
std::unique_ptr<Ops> make_cpu_ops(const Simd& simd) { return std::make_unique<CpuOps>(simd); }
