// attention.h -- softmax attention over spans of slots.
//
//   forward    out (T, NH*HD) = sum_s p_s v_s,  p = softmax(q k^T / sqrt(HD)) over the slots s in the spans see (T)
//              lse (T, NH) = log of the sum of exponentials. A token that sees nothing: out = 0, lse = -infinity
//   backward   with D (T, NH) = sum_i dout_i out_i (scratch) and ds = p (dout . v_s - D) / sqrt(HD), all overwritten:
//              dq = sum_s ds k_s        dk_s = sum_t ds q_t        dv_s = sum_t p dout_t
// Query head h reads key/value head h / (NH / NKV). q, out (T, NH*HD); k, v (S, NKV*HD).
// Forward and dq are parallel over rows, and a row's result depends on that row alone; dk and dv are parallel
// over key/value heads and chunks of slots, each owned by one thread.
#pragma once
#include <algorithm>
#include <limits>
#include <vector>

#include "kernels/cpu.h"
#include "kernels/ops.h"
#include "kernels/view.h"

namespace ref {

template <class T>
void attention_forward(Rows<T> out, Rows<T> lse, Rows<const T> q, Rows<const T> k, Rows<const T> v,
                       const AttentionSpans* see, int n, int heads, int kv_heads, int HD) {
    const double scale = 1 / std::sqrt(double(HD));
    for (int t = 0; t < n; t++)
        for (int h = 0; h < heads; h++) {
            const int g = h / (heads / kv_heads);
            std::vector<T> score;
            std::vector<int> slot;
            double max = -std::numeric_limits<double>::infinity();
            for (int r = 0; r < 3; r++)
                for (int s = see[t].begin[r]; s < see[t].end[r]; s++) {
                    T dot = T(0);
                    for (int i = 0; i < HD; i++) dot += q[t][h * HD + i] * k[s][g * HD + i];
                    score.push_back(dot * T(scale));
                    slot.push_back(s);
                    max = std::max(max, double(real_part(score.back())));
                }
            T sum = T(0);
            T* o = out[t] + h * HD;
            for (int i = 0; i < HD; i++) o[i] = T(0);
            for (T& x : score) sum += x = std::exp(x - T(max));
            lse[t][h] = T(max);
            if (score.empty()) continue;
            lse[t][h] += std::log(sum);
            for (size_t j = 0; j < score.size(); j++)
                for (int i = 0; i < HD; i++) o[i] += score[j] / sum * v[slot[j]][g * HD + i];
        }
}

template <class T>
void attention_backward(Rows<T> dq, Rows<T> dk, Rows<T> dv, Rows<T> scratch, Rows<const T> dout,
                        Rows<const T> out, Rows<const T> lse, Rows<const T> q, Rows<const T> k,
                        Rows<const T> v, const AttentionSpans* see, int n, int n_slots, int heads,
                        int kv_heads, int HD) {
    const T scale = T(1 / std::sqrt(double(HD)));
    for (int s = 0; s < n_slots; s++)
        for (int i = 0; i < kv_heads * HD; i++) dk[s][i] = dv[s][i] = T(0);
    for (int t = 0; t < n; t++)
        for (int h = 0; h < heads; h++) {
            const int g = h / (heads / kv_heads);
            const T *d = dout[t] + h * HD, *qt = q[t] + h * HD;
            T* dqt = dq[t] + h * HD;
            T D = T(0);
            for (int i = 0; i < HD; i++) D += d[i] * out[t][h * HD + i];
            scratch[t][h] = D;
            for (int i = 0; i < HD; i++) dqt[i] = T(0);
            for (int r = 0; r < 3; r++)
                for (int s = see[t].begin[r]; s < see[t].end[r]; s++) {
                    const T *ks = k[s] + g * HD, *vs = v[s] + g * HD;
                    T dot = T(0), dp = T(0);
                    for (int i = 0; i < HD; i++) dot += qt[i] * ks[i], dp += d[i] * vs[i];
                    const T p = std::exp(dot * scale - lse[t][h]);
                    const T ds = p * (dp - D) * scale;
                    for (int i = 0; i < HD; i++) {
                        dqt[i] += ds * ks[i];
                        dk[s][g * HD + i] += ds * qt[i];
                        dv[s][g * HD + i] += p * d[i];
                    }
                }
        }
}

}  // namespace ref

namespace cpu {
void attention_forward(Context& context, Tensor out, Tensor lse, Tensor q, Tensor k, Tensor v, Tensor see,
                       int heads, int kv_heads);
void attention_backward(Context& context, Tensor dq, Tensor dk, Tensor dv, Tensor scratch, Tensor dout,
                        Tensor out, Tensor lse, Tensor q, Tensor k, Tensor v, Tensor see, int heads,
                        int kv_heads);
}  // namespace cpu
