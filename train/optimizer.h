// optimizer.h -- AdamW with decoupled weight decay over everything a Parameters holds, and learning-rate schedules.
//
//   m = beta1 m + (1 - beta1) g      v = beta2 v + (1 - beta2) g^2
//   w -= lr (m / (1 - beta1^n) / (sqrt(v / (1 - beta2^n)) + eps) + decay w)       (Loshchilov & Hutter)
//
// g is clipped first so that its norm over all tensors is at most max_grad_norm. Norm weights and biases do not decay.
#pragma once
#include <string>

#include "kernels/ops.h"
#include "model/parameters.h"

enum class Schedule { Constant, Cosine };

struct OptimizerOptions {
    double lr = 1e-6;
    Schedule schedule = Schedule::Constant;
    int64_t warmup_steps = 0;  // linear from lr / warmup to lr
    int64_t total_steps = 0;   // where the cosine ends
    double min_lr_ratio = 0;   // the cosine's floor, as a part of lr
    double beta1 = 0.9, beta2 = 0.999, eps = 1e-8, weight_decay = 0;
    double max_grad_norm = 1;  // 0: no clipping
};

// Learning rate of update `step` = 0, 1, ...
double learning_rate(const OptimizerOptions& options, int64_t step);

class Optimizer {
  public:
    // Plans two moments per weight in an arena of its own, those of matrices in the type `moments`. master: the F32
    // parameters that are updated, the weights becoming their copy; null: the weights are F32 and updated themselves.
    Optimizer(Ops& ops, const ModelConfig& config, Head head, const Parameters& weights,
              const Parameters* master = nullptr, DType moments = DType::F32);
    void allocate();
    const Arena& arena() const { return arena_; }

    struct Report {
        double grad_norm = 0, lr = 0;
        bool skipped = false;
    };
    // One update of the weights from `gradients`. Where their norm is not finite nothing is changed, and
    // `skipped` says so.
    Report update(const Parameters& gradients, const OptimizerOptions& options);

    int64_t steps() const { return steps_; }
    void reset();  // moments and step count to zero

    // optimizer.safetensors: exactly the state, bit for bit.
    void save(const std::string& path) const;
    void load(const std::string& path);

  private:
    Ops& ops_;
    const ModelConfig& config_;
    const Parameters& weights_;
    const Parameters* master_;
    Parameters m_, v_;
    Arena arena_;
    int64_t steps_ = 0;
};
