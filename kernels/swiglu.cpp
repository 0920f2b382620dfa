#include "kernels/swiglu.h"

#include "kernels/parallel.h"

namespace cpu {

void swiglu_forward(Context& context, Tensor out, Tensor gate_up) {
    const int F = int(out.cols);
    const Rows<float> o = rows_of<float>(out);
    const Rows<const float> x = rows_of<const float>(gate_up);
    parallel_for(out.rows, 2 * F, [&](int64_t t) { context.simd.swiglu(o[t], x[t], x[t] + F, F); });
}

void swiglu_backward(Context& context, Tensor dgate_up, Tensor dout, Tensor gate_up) {
    const int F = int(dout.cols);
    const Rows<float> dx = rows_of<float>(dgate_up);
    const Rows<const float> d = rows_of<const float>(dout), x = rows_of<const float>(gate_up);
    parallel_for(dout.rows, 3 * F,
                 [&](int64_t t) { context.simd.swiglu_backward(dx[t], dx[t] + F, d[t], x[t], x[t] + F, F); });
}

}  // namespace cpu
