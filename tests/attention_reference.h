// attention_reference.h -- random spans, and what the reference makes of them: for the tests of every span attention.
#pragma once
#include "kernels/attention.h"
#include "tests/kernel_testing.h"

struct AttentionShape {
    int T, S, NH, NKV, HD;
    int block;  // rows of one block see the same
};

// Disjoint spans, any of them empty; one block sees everything, every sixth sees nothing.
inline std::vector<AttentionSpans> random_spans(const AttentionShape& shape, uint64_t seed) {
    Rng rng(seed, Stream::Noise, 5);
    std::vector<AttentionSpans> out;
    for (int t = 0; t < shape.T; t++) {
        if (t % shape.block) {
            out.push_back(out.back());
            continue;
        }
        AttentionSpans see;
        int at = 0;
        for (int r = 0; r < 3 && t / shape.block % 6 != 5; r++) {
            see.begin[r] = at + int(rng.below(uint32_t(shape.S - at) / 2 + 1));
            see.end[r] =
                see.begin[r] + (rng.below(4) ? int(rng.below(uint32_t(shape.S - see.begin[r] + 1))) : 0);
            at = see.end[r];
        }
        if (t / shape.block == 1) see = {{0, 0, 0}, {shape.S, 0, 0}};
        out.push_back(see);
    }
    return out;
}

enum AttentionOutput { ATT_OUT, ATT_LSE, ATT_DQ, ATT_DK, ATT_DV };

template <class X>
Vectors<X> attention_reference(const AttentionShape& shape, const std::vector<AttentionSpans>& see,
                               const std::vector<X>& q, const std::vector<X>& k, const std::vector<X>& v,
                               const std::vector<X>& dout) {
    const auto [T, S, NH, NKV, HD, block] = shape;
    const int CQ = NH * HD, CK = NKV * HD;
    std::vector<X> out(size_t(T * CQ)), lse(size_t(T * NH)), sums(size_t(T * NH)), dq(size_t(T * CQ)),
        dk(size_t(S * CK)), dv(size_t(S * CK));
    ref::attention_forward<X>(rows(out, CQ), rows(lse, NH), rows(q, CQ), rows(k, CK), rows(v, CK), see.data(),
                              T, NH, NKV, HD);
    ref::attention_backward<X>(rows(dq, CQ), rows(dk, CK), rows(dv, CK), rows(sums, NH), rows(dout, CQ),
                               rows(out, CQ), rows(lse, NH), rows(q, CQ), rows(k, CK), rows(v, CK),
                               see.data(), T, S, NH, NKV, HD);
    return {out, lse, dq, dk, dv};
}
