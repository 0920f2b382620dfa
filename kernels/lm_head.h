// lm_head.h -- log-probabilities of target ids, without ever holding (N, V) logits.
//
//   logits = hidden (N, C) weight (V, C)^T
//   forward    lse (N) = log sum_v exp(logits_v)     logprob (N) = logits[target] - lse
//              entropy (N), where wanted = lse - sum_v p_v logits_v        p = softmax(logits)
//   backward   for d loss / d logprob = dlogprob (N):  dlogits_v = dlogprob ([v = target] - p_v)
//              dhidden (N, C) = dlogits weight        dweight (V, C) += dlogits^T hidden
// Tiles of rows by chunks of the vocabulary; the maximum and the sums are kept online (Milakov & Gimelshein,
// arXiv 1805.02867). The backward pass computes the logits again. weight may be BF16 in the forward pass.
#pragma once
#include <algorithm>
#include <limits>
#include <vector>

#include "kernels/cpu.h"
#include "kernels/view.h"

namespace ref {

template <class T, class W = T>
std::vector<T> head_logits(const T* hidden, Rows<const W> weight, int C, int V) {
    std::vector<T> logits(static_cast<size_t>(V), T(0));
    for (int v = 0; v < V; v++)
        for (int c = 0; c < C; c++) logits[size_t(v)] += hidden[c] * T(number(weight[v][c]));
    return logits;
}

template <class T>
T log_sum_exp(const std::vector<T>& x) {
    double max = real_part(x[0]);
    for (const T& e : x) max = std::max(max, double(real_part(e)));
    T sum = T(0);
    for (const T& e : x) sum += std::exp(e - T(max));
    return T(max) + std::log(sum);
}

// entropy may be null.
template <class T, class W = T>
void head_logprob(T* logprob, T* lse, T* entropy, Rows<const T> hidden, Rows<const W> weight,
                  const int* target, int N, int C, int V) {
    for (int n = 0; n < N; n++) {
        const std::vector<T> logits = head_logits<T, W>(hidden[n], weight, C, V);
        lse[n] = log_sum_exp(logits);
        logprob[n] = logits[size_t(target[n])] - lse[n];
        if (!entropy) continue;
        T mean = T(0);
        for (const T& x : logits) mean += std::exp(x - lse[n]) * x;
        entropy[n] = lse[n] - mean;
    }
}

// dweight may be absent.
template <class T>
void head_backward(Rows<T> dhidden, Rows<T> dweight, const T* dlogprob, const T* lse, Rows<const T> hidden,
                   Rows<const T> weight, const int* target, int N, int C, int V) {
    for (int n = 0; n < N; n++) {
        const std::vector<T> logits = head_logits<T>(hidden[n], weight, C, V);
        for (int c = 0; c < C; c++) dhidden[n][c] = T(0);
        for (int v = 0; v < V; v++) {
            const T dlogit = dlogprob[n] * (T(v == target[n] ? 1 : 0) - std::exp(logits[size_t(v)] - lse[n]));
            for (int c = 0; c < C; c++) {
                dhidden[n][c] += dlogit * weight[v][c];
                if (dweight) dweight[v][c] += dlogit * hidden[n][c];
            }
        }
    }
}

}  // namespace ref

namespace cpu {

constexpr int HEAD_CHUNK = 256;  // of the vocabulary

// The sums of softmax(x * scale) over the x seen so far, relative to the largest: `sum` of e = exp((x - max) * scale),
// `weighted` of e * (x - max) * scale.
struct SoftmaxSum {
    float max = -std::numeric_limits<float>::infinity(), sum = 0, weighted = 0;

    void merge(const SoftmaxSum& other, float scale) {
        const float top = std::max(max, other.max);
        for (int part = 0; part < 2; part++) {
            const SoftmaxSum s = part ? other : *this;
            const float shift = s.sum > 0 ? (s.max - top) * scale : 0, shrink = std::exp(shift);
            sum = (part ? sum : 0) + s.sum * shrink;
            weighted = (part ? weighted : 0) + (s.weighted + s.sum * shift) * shrink;
        }
        max = top;
    }
    float log_sum(float scale) const { return max * scale + std::log(sum); }
    float entropy() const { return std::log(sum) - weighted / sum; }
};
// Of a whole row, chunk after chunk, with the same bits as head_logprob has.
SoftmaxSum softmax_sum(const Simd& simd, const float* logits, float scale, int V);

void head_logprob(Context& context, Tensor logprob, Tensor lse, Tensor entropy, Tensor hidden, Tensor weight,
                  Tensor target);
void head_backward(Context& context, Tensor dhidden, Tensor dweight, Tensor dlogprob, Tensor lse,
                   Tensor hidden, Tensor weight, Tensor target);
}  // namespace cpu
