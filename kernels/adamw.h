// adamw.h -- Adam with decoupled weight decay (Loshchilov & Hutter, arXiv 1711.05101).
//
//   g = grad_scale * grad
//   m = beta1 m + (1 - beta1) g            v = beta2 v + (1 - beta2) g^2
//   param -= lr (m / (1 - beta1^step) / (sqrt(v / (1 - beta2^step)) + eps) + weight_decay param)
// With a master (fp32) the master is updated, and param is a copy of it, rounded to nearest if it is BF16. Moments in BF16
// are rounded stochastically (stochastic_rounding.h), after their exact values have moved the parameter.
// Parallel over ranges of elements.
#pragma once
#include "kernels/cpu.h"
#include "kernels/ops.h"
#include "kernels/view.h"

namespace ref {

template <class T>
void adamw(T* param, T* m, T* v, const T* grad, int64_t n, const AdamW& o) {
    const T correct1 = T(1 - std::pow(double(o.beta1), double(o.step))),
            correct2 = T(1 - std::pow(double(o.beta2), double(o.step)));
    for (int64_t i = 0; i < n; i++) {
        const T g = T(o.grad_scale) * grad[i];
        m[i] = T(o.beta1) * m[i] + (T(1) - T(o.beta1)) * g;
        v[i] = T(o.beta2) * v[i] + (T(1) - T(o.beta2)) * g * g;
        param[i] -= T(o.lr) * (m[i] / correct1 / (std::sqrt(v[i] / correct2) + T(o.eps)) +
                               T(o.weight_decay) * param[i]);
    }
}

}  // namespace ref

namespace cpu {
void adamw(Context& context, Tensor param, Tensor m, Tensor v, Tensor grad, const AdamW& options,
           Tensor master);
}  // namespace cpu
