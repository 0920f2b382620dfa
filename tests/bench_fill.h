// bench_fill.h -- numbers for tensors of any size on any device, quickly: a block of them is uploaded, and copied over the rest.
#pragma once
#include <algorithm>
#include <cstring>
#include <functional>
#include <vector>

#include "kernels/ops.h"
#include "utils/philox.h"

// Of a length that no row of a matrix divides, so that rows differ; a multiple of 8, so that copies go in packs of 16 bytes.
inline std::vector<float> random_block(const std::function<float(Rng&)>& draw) {
    Rng rng(1, Stream::Noise);
    std::vector<float> block((1 << 20) + 8);
    for (float& x : block) x = draw(rng);
    return block;
}

// t (contiguous, F32 or BF16) = mean + scale * block, over and over.
inline void fill_with(Ops& ops, const Tensor& t, const std::vector<float>& block, float scale = 1,
                      float mean = 0) {
    const int64_t n = std::min(t.size(), int64_t(block.size()));
    std::vector<char> host(size_t(n) * size_of(t.dtype));
    for (int64_t i = 0; i < n; i++) {
        const float x = mean + scale * block[size_t(i)];
        const Bf16 half = to_bf16(x);
        if (t.dtype == DType::F32)
            memcpy(host.data() + i * 4, &x, 4);
        else
            memcpy(host.data() + i * 2, &half, 2);
    }
    const Tensor flat = tensor(t.data, 1, t.size(), t.dtype);
    ops.upload(flat.col_range(0, n), host.data());
    for (int64_t filled = n; filled < t.size();) {
        const int64_t more = std::min(filled, t.size() - filled);
        ops.copy(flat.col_range(filled, filled + more), flat.col_range(0, more));
        filled += more;
    }
}
