// swiglu.h -- the gated activation of the MLP (Shazeer, arXiv 2002.05202).
//
//   forward    out (T, F) = silu(gate) * up,  gate_up (T, 2F) = [gate | up],  silu(x) = x / (1 + exp(-x))
//   backward   dgate_up (T, 2F) = [dgate | dup],  dgate = dout up (s + gate s (1 - s)),  dup = dout gate s,
//              s = 1 / (1 + exp(-gate))
// Parallel over rows.
#pragma once
#include "kernels/cpu.h"
#include "kernels/view.h"

namespace ref {

template <class T>
void swiglu_forward(Rows<T> out, Rows<const T> gate_up, int n, int F) {
    for (int t = 0; t < n; t++)
        for (int f = 0; f < F; f++) {
            const T gate = gate_up[t][f], up = gate_up[t][F + f];
            out[t][f] = gate / (T(1) + std::exp(-gate)) * up;
        }
}

template <class T>
void swiglu_backward(Rows<T> dgate_up, Rows<const T> dout, Rows<const T> gate_up, int n, int F) {
    for (int t = 0; t < n; t++)
        for (int f = 0; f < F; f++) {
            const T gate = gate_up[t][f], up = gate_up[t][F + f], d = dout[t][f];
            const T s = T(1) / (T(1) + std::exp(-gate));
            dgate_up[t][f] = d * up * (s + gate * s * (T(1) - s));
            dgate_up[t][F + f] = d * gate * s;
        }
}

}  // namespace ref

namespace cpu {
void swiglu_forward(Context& context, Tensor out, Tensor gate_up);
void swiglu_backward(Context& context, Tensor dgate_up, Tensor dout, Tensor gate_up);
}  // namespace cpu
