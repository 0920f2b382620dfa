#include "kernels/sampling.h"

#include "kernels/lm_head.h"
#include "kernels/parallel.h"

namespace cpu {

template <class W>
static void sample_rows(std::span<Sampled> out, std::span<const SampleRow> rows, Tensor hidden, Tensor weight,
                        int mask_id, int n_ids) {
    const int C = int(hidden.cols), V = int(weight.rows);
    const Rows<const float> x = rows_of<const float>(hidden);
    const Rows<const W> w = rows_of<const W>(weight);
    parallel_for(hidden.rows, int64_t(V) * C, [&](int64_t n) {
        const std::vector<float> logits = ref::head_logits<float, W>(x[n], w, C, V);
        out[size_t(n)] = ref::sample(logits, rows[size_t(n)], mask_id, n_ids);
    });
}

void head_sample(std::span<Sampled> out, std::span<const SampleRow> rows, Tensor hidden, Tensor weight,
                 int mask_id, int n_ids) {
    CHECK(int64_t(rows.size()) == hidden.rows && out.size() == rows.size(),
          "%zu rows to sample, %lld hidden states", rows.size(), (long long)hidden.rows);
    CHECK(n_ids > (mask_id == 0 ? 1 : 0), "no id may be drawn: n_ids %d, mask id %d", n_ids, mask_id);
    if (weight.dtype == DType::BF16)
        sample_rows<Bf16>(out, rows, hidden, weight, mask_id, n_ids);
    else
        sample_rows<float>(out, rows, hidden, weight, mask_id, n_ids);
}

}  // namespace cpu
