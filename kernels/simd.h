// simd.h -- the serial inner kernels, compiled once per instruction set and chosen at run time.
//
// kernels/simd_kernels.h is one source, included by simd_avx512.cpp, simd_avx2.cpp and simd_generic.cpp,
// which the Makefile compiles with flags of their own. Those files include no standard templates and define
// nothing with external linkage but their table, so that no instruction of theirs can leak into code that
// runs elsewhere.
//
// Everything that is added up is added in an order that depends on the lengths alone: a row's result has the
// same bits whatever the shape of the call around it.
#pragma once
#include <cstdint>

constexpr int PANEL = 64;  // columns of a packed panel
// Columns of a panel of a weight that is packed once and for all (packed_weight.h).
constexpr int PACKED_COLUMNS = 32;

struct Simd {
    const char* name;
    int lanes;        // floats of one vector
    int narrow_rows;  // up to so many rows `narrow` is faster than packing

    // ---- matrix products
    // out (M, N) = a (M, D) b (D, N), or += ; a's element (m, d) is a[m * a_row + d * a_depth]. Every element
    // of out is one sum over d in ascending order.
    void (*outer)(float* out, int64_t out_row, const float* a, int64_t a_row, int64_t a_depth, const float* b,
                  int64_t b_row, int M, int N, int D, bool accumulate);
    // packed (K, n) = weight (n, K)^T for n <= PANEL, rows of packed PANEL apart.
    void (*transpose)(float* packed, const float* weight, int64_t weight_row, int n, int K);
    void (*transpose_bf16)(float* packed, const uint16_t* weight, int64_t weight_row, int n, int K);
    // out (M, N) = inp (M, K) weight (N, K)^T for a few rows: the same bits as transpose and outer. weight is
    // float (element 4) or bf16 (element 2).
    void (*narrow)(float* out, int64_t out_row, const float* inp, int64_t inp_row, const void* weight,
                   int64_t weight_row, int element, int M, int N, int K);
    // The same, with the same bits, from a weight in panels (packed_weight.h), then [+ bias (N)] [+ residual (M, N)].
    struct Packed {
        float* out;
        int64_t out_row;
        const float* inp;
        int64_t inp_row;
        const void* panels;  // from the first of the N columns on
        int element;         // bytes: 4 float, 2 bf16
        int M, N, K;
        const float* bias = nullptr;
        const float* residual = nullptr;  // may be out
        int64_t residual_row = 0;
    };
    void (*packed)(const Packed& p);
    // out = inp [+ bias] [+ residual]
    void (*add_bias)(float* out, const float* inp, const float* bias, const float* residual, int n);
    void (*add)(float* out, const float* inp, float scale, int n);  // out += scale * inp
    void (*multiply)(float* x, float scale, int n);                 // x *= scale

    // ---- softmax
    // max of x; sum of e = exp((x - max) * scale); weighted: sum of e * (x - max) * scale. n > 0
    void (*softmax_stats)(float* max, float* sum, float* weighted, const float* x, float scale, int n);
    float (*max)(const float* x, int n);  // -infinity of nothing
    // out = exp((x - shift) * scale), returns the sum; out may be x
    float (*exp)(float* out, const float* x, float shift, float scale, int n);
    // score = p = exp(score - lse), dp = p * (dp - D): both in place
    void (*softmax_backward)(float* score, float* dp, float lse, float D, int n);

    // ---- rows
    float (*dot)(const float* a, const float* b, int n);
    float (*rmsnorm)(float* out, const float* inp, const float* weight, float eps, int n);  // returns rstd
    // dinp += ; dweight += unless null
    void (*rmsnorm_backward)(float* dinp, float* dweight, const float* dout, float rstd, const float* inp,
                             const float* weight, int n);
    void (*multiply_add)(float* out, const float* a, const float* b, float scale,
                         int n);  // out += scale * a * b
    // one head: inp * scale * weight (or inp where weight is null), rotated by the angles of table: forward
    // sign 1, back -1
    void (*rope)(float* out, const float* inp, float scale, const float* weight, const float* table,
                 float sign, int HD);
    void (*swiglu)(float* out, const float* gate, const float* up, int n);
    void (*swiglu_backward)(float* dgate, float* dup, const float* dout, const float* gate, const float* up,
                            int n);
    struct AdamStep {  // the scalars of one update
        float grad_scale, beta1, beta2, one_minus_beta1, one_minus_beta2, correct1, correct2, lr, eps,
            weight_decay;
    };
    void (*adamw)(float* param, float* m, float* v, const float* grad, int n, const AdamStep& step);
};

enum class Isa { Generic, Avx2, Avx512 };
const Simd* simd(Isa isa);  // null where this machine or this build has it not
const Simd& best_simd();
