#include "kernels/swiglu.h"

#include "kernels/parallel.h"

namespace cpu {

void swiglu_forward(Tensor out, Tensor gate_up) {
    const int F = int(out.cols);
    const Rows<float> o = rows_of<float>(out);
    const Rows<const float> x = rows_of<const float>(gate_up);
    parallel_for(out.rows, 16 * F,
                 [&](int64_t t) { ref::swiglu_forward<float>(o.from(t), x.from(t), 1, F); });
}

void swiglu_backward(Tensor dgate_up, Tensor dout, Tensor gate_up) {
    const int F = int(dout.cols);
    const Rows<float> dx = rows_of<float>(dgate_up);
    const Rows<const float> d = rows_of<const float>(dout), x = rows_of<const float>(gate_up);
    parallel_for(dout.rows, 16 * F,
                 [&](int64_t t) { ref::swiglu_backward<float>(dx.from(t), d.from(t), x.from(t), 1, F); });
}

}  // namespace cpu
