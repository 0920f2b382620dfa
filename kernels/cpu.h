// cpu.h -- what every CPU launcher is given: the inner kernels of this machine, and scratch memory.
#pragma once
#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "kernels/ops.h"
#include "kernels/simd.h"

namespace cpu {

struct Candidate {
    int id;
    float logit;
    double weight;  // exp((logit - largest) / temperature)
};

// What sampling one row needs beside its logits.
struct RowScratch {
    std::vector<Candidate> candidates;
    std::vector<float> chunks;  // one number per chunk of the vocabulary
};

struct Context {
    const Simd& simd;
    std::vector<float> scratch = {};           // grows to what the largest call needed, then stays
    std::vector<float> panels = {};            // likewise, for matrix products (matmul.cpp)
    std::vector<RowScratch> row_scratch = {};  // one per thread

    float* floats(size_t n) {
        if (scratch.size() < n) scratch.resize(n);
        return scratch.data();
    }
    float* packed(size_t n) {  // aligned to a cache line
        constexpr size_t LINE = 16;
        if (panels.size() < n + LINE) panels.resize(n + LINE);
        return panels.data() + (-reinterpret_cast<uintptr_t>(panels.data()) / sizeof(float)) % LINE;
    }
};

}  // namespace cpu

// make_cpu_ops() takes the best instruction set there is; tests take each.
std::unique_ptr<Ops> make_cpu_ops(const Simd& simd);
