// cuda_attention.h -- span attention on CUDA, forward and backward, on random spans beside the reference.
#pragma once
#include <functional>

#include "tests/cuda_testing.h"
// after the references' scalar
#include "tests/attention_reference.h"

struct CudaAttentionCase {
    const char* name;
    DType dtype;
    AttentionShape shape;
    int gap;
    int written_gap = -1;   // of the outputs, where it is not that of the inputs
    double key_growth = 0;  // keys of slot s are 1 + s * key_growth times as large, and so are the scores
};
inline void PrintTo(const CudaAttentionCase& c, std::ostream* out) { *out << c.name; }
inline std::string case_name(const testing::TestParamInfo<CudaAttentionCase>& info) {
    return info.param.name;
}

inline std::vector<int> as_ints(const std::vector<AttentionSpans>& see) {
    const int* first = see[0].begin;
    return {first, first + see.size() * SPAN_INTS};
}

inline void expect_lse(const DeviceMatrix& lse, const std::vector<double>& exact) {
    const std::vector<double> l = lse.read();
    for (size_t i = 0; i < l.size(); i++) {
        if (std::isinf(exact[i])) {
            ASSERT_EQ(l[i], -INFINITY) << "a row that sees nothing";
        } else {  // scores are sums in fp32 of exact products
            ASSERT_NEAR(l[i], exact[i], 1e-5 * std::max(1.0, std::abs(exact[i]))) << "lse, element " << i;
        }
    }
}

// Ops::attention_forward, or another way to it.
using CudaAttentionForward = std::function<void(Ops&, Tensor out, Tensor lse, Tensor q, Tensor k, Tensor v,
                                                Tensor see, int heads, int kv_heads)>;
// Ops::attention_backward, or another way to it.
using CudaAttentionBackwardPass =
    std::function<void(Ops&, Tensor dq, Tensor dk, Tensor dv, Tensor scratch, Tensor dout, Tensor out,
                       Tensor lse, Tensor q, Tensor k, Tensor v, Tensor see, int heads, int kv_heads)>;

// Twice, for the same bits every time.
inline void check_cuda_attention(const CudaAttentionCase& c, const std::vector<AttentionSpans>& see,
                                 bool backward, const CudaAttentionForward& forward = &Ops::attention_forward,
                                 const CudaAttentionBackwardPass& backward_pass = &Ops::attention_backward) {
    const auto [T, S, NH, NKV, HD, block] = c.shape;
    const int CQ = NH * HD, CK = NKV * HD;
    const std::unique_ptr<Ops> ops = cuda_ops_for_tests();
    const DeviceInts device_see(*ops, as_ints(see), SPAN_INTS);
    const auto random = [&](int rows, int cols, uint32_t seed, double scale, double growth = 0) {
        std::vector<float> values = random_floats(size_t(rows * cols), seed, scale);
        for (int i = 0; i < rows * cols; i++) values[size_t(i)] *= float(1 + i / cols * growth);
        return DeviceMatrix(*ops, rows, cols, c.dtype, values, c.gap);
    };
    const int written = c.written_gap < 0 ? c.gap : c.written_gap;
    const DeviceMatrix q = random(T, CQ, 1, 2), k = random(S, CK, 2, 1, c.key_growth),
                       v = random(S, CK, 3, 1), d = random(T, CQ, 4, 1);
    const Expected want(c.dtype, [&]<class X>(X) {
        return attention_reference<X>(c.shape, see, q.values<X>(), k.values<X>(), v.values<X>(),
                                      d.values<X>());
    });
    std::vector<double> first;
    for (int run = 0; run < 2; run++) {
        DeviceMatrix out(*ops, T, CQ, c.dtype, written), lse(*ops, T, NH, DType::F32),
            sums(*ops, T, NH, DType::F32);
        DeviceMatrix dq(*ops, T, CQ, c.dtype, written), dk(*ops, S, CK, c.dtype, written),
            dv(*ops, S, CK, c.dtype, written);
        forward(*ops, out, lse, q, k, v, device_see, NH, NKV);
        want.check(out, ATT_OUT, "out");
        expect_lse(lse, want.exact(ATT_LSE));
        std::vector<double> all = out.read();
        if (backward) {
            backward_pass(*ops, dq, dk, dv, sums, d, out, lse, q, k, v, device_see, NH, NKV);
            want.check(dq, ATT_DQ, "dq");
            want.check(dk, ATT_DK, "dk");
            want.check(dv, ATT_DV, "dv");
            for (const DeviceMatrix* m : {&dq, &dk, &dv})
                for (const double x : m->read()) all.push_back(x);
        }
        if (run == 0) first = all;
        EXPECT_EQ(all, first) << "the same bits every time";
    }
}
// Rows whose scores are all far above 0 or far below it, in turn, behind one that has none: means of values that are all the same.
inline void check_extreme_scores(DType dtype, int T, int S, int HD,
                                 const CudaAttentionForward& forward = &Ops::attention_forward) {
    const std::unique_ptr<Ops> ops = cuda_ops_for_tests();
    std::vector<AttentionSpans> see;
    std::vector<float> queries;
    for (int t = 0; t < T; t++) {
        see.push_back({{0, 0, 0}, {t ? S : 0, 0, 0}});
        queries.insert(queries.end(), size_t(HD), t % 2 ? -50.0f : 50.0f);
    }
    const DeviceInts device_see(*ops, as_ints(see), SPAN_INTS);
    const DeviceMatrix q(*ops, T, HD, dtype, queries),
        k(*ops, S, HD, dtype, std::vector<float>(size_t(S * HD), 50)),
        v(*ops, S, HD, dtype, std::vector<float>(size_t(S * HD), 3));
    DeviceMatrix out(*ops, T, HD, dtype), lse(*ops, T, 1, DType::F32);
    forward(*ops, out, lse, q, k, v, device_see, 1, 1);
    const std::vector<double> o = out.read();
    std::vector<double> exact;
    for (int t = 0; t < T; t++) {
        exact.push_back(t ? (t % 2 ? -2500 : 2500) * std::sqrt(double(HD)) + std::log(S) : -INFINITY);
        for (int i = 0; i < HD; i++) ASSERT_NEAR(o[size_t(t * HD + i)], t ? 3 : 0, 1e-5) << "row " << t;
    }
    expect_lse(lse, exact);
}
inline void check_cuda_attention(const CudaAttentionCase& c, bool backward,
                                 const CudaAttentionForward& forward = &Ops::attention_forward,
                                 const CudaAttentionBackwardPass& backward_pass = &Ops::attention_backward) {
    check_cuda_attention(c, random_spans(c.shape, uint64_t(c.shape.T * 31 + c.shape.S)), backward, forward,
                         backward_pass);
}
