// rope.h -- RMSNorm of every head (Qwen3), then rotary position embedding (Su et al., arXiv 2104.09864).
//
//   forward    y = inp * rstd * weight (HD) per head, or inp where weight is absent;   rstd (T, H)
//              out[i]        = y[i] cos - y[i + HD/2] sin          half-split (NeoX) form, i < HD/2
//              out[i + HD/2] = y[i + HD/2] cos + y[i] sin
//   backward   dy = the rotation back; dinp (T, H*HD) = as in rmsnorm.h; dweight (HD) +=
// rope (max_position, HD): the row of a position holds cos (HD/2), then sin (HD/2).
// Parallel over rows; dweight through a fixed number of partial sums, so the number of threads does not matter.
#pragma once
#include "kernels/cpu.h"
#include "kernels/view.h"

namespace ref {

template <class T>
void head_norm_rope_forward(Rows<T> out, Rows<T> rstd, Rows<const T> inp, const T* weight,
                            const int* position, Rows<const T> rope, int n, int heads, int HD, double eps) {
    const int half = HD / 2;
    for (int t = 0; t < n; t++)
        for (int h = 0; h < heads; h++) {
            const T* x = inp[t] + h * HD;
            const T *cosine = rope[position[t]], *sine = cosine + half;
            T* o = out[t] + h * HD;
            T r = T(1);
            if (weight) {
                T sum = T(0);
                for (int i = 0; i < HD; i++) sum += x[i] * x[i];
                r = T(1) / std::sqrt(sum / T(HD) + T(eps));
                rstd[t][h] = r;
            }
            for (int i = 0; i < half; i++) {
                const T a = weight ? x[i] * r * weight[i] : x[i];
                const T b = weight ? x[i + half] * r * weight[i + half] : x[i + half];
                o[i] = a * cosine[i] - b * sine[i];
                o[i + half] = b * cosine[i] + a * sine[i];
            }
        }
}

template <class T>
void head_norm_rope_backward(Rows<T> dinp, T* dweight, Rows<const T> dout, Rows<const T> rstd,
                             Rows<const T> inp, const T* weight, const int* position, Rows<const T> rope,
                             int n, int heads, int HD) {
    const int half = HD / 2;
    for (int t = 0; t < n; t++)
        for (int h = 0; h < heads; h++) {
            const T *d = dout[t] + h * HD, *x = inp[t] + h * HD;
            const T *cosine = rope[position[t]], *sine = cosine + half;
            T* dx = dinp[t] + h * HD;
            for (int i = 0; i < half; i++) {  // dinp holds dy until the norm is undone
                const T a = d[i], b = d[i + half];
                dx[i] = a * cosine[i] + b * sine[i];
                dx[i + half] = b * cosine[i] - a * sine[i];
            }
            if (!weight) continue;
            const T r = rstd[t][h];
            T dot = T(0);
            for (int i = 0; i < HD; i++) dot += dx[i] * weight[i] * x[i];
            for (int i = 0; i < HD; i++) {
                dweight[i] += dx[i] * x[i] * r;
                dx[i] = r * (dx[i] * weight[i] - x[i] * r * r * dot / T(HD));
            }
        }
}

}  // namespace ref

namespace cpu {
void head_norm_rope_forward(Context& context, Tensor out, Tensor rstd, Tensor inp, Tensor weight,
                            Tensor position, Tensor rope, int heads, float eps);
// The same for a layer's queries and keys, and its values copied: keys and values of token t go into row slot[t], or
// nowhere if that is -1.
void qkv_forward(Context& context, const QkvForward& layer);
void head_norm_rope_backward(Context& context, Tensor dinp, Tensor dweight, Tensor dout, Tensor rstd,
                             Tensor inp, Tensor weight, Tensor position, Tensor rope, int heads);
}  // namespace cpu
