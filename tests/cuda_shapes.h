// cuda_shapes.h -- ragged matrices in fp32 and bf16, with and without gaps between their rows, for the tests of single CUDA
// operations.
#pragma once
#include "tests/cuda_testing.h"

struct CudaShape {
    DType dtype;
    int T, C, gap;
};
inline void PrintTo(const CudaShape& s, std::ostream* out) {
    *out << name_of(s.dtype) << " " << s.T << "x" << s.C << (s.gap ? " with gaps" : "");
}

class CudaShapes : public testing::TestWithParam<CudaShape> {
  protected:
    std::unique_ptr<Ops> ops = cuda_ops_for_tests();
    const CudaShape shape = GetParam();
    const DType dtype = shape.dtype;
    const int T = shape.T, C = shape.C, gap = shape.gap;

    DeviceMatrix random(int rows, int cols, uint32_t seed, double scale = 1, double mean = 0) {
        return {*ops, rows, cols, dtype, random_floats(size_t(rows * cols), seed, scale, mean), gap};
    }
    // A norm's weights, a bias: F32 beside matrices of any type.
    DeviceMatrix random_vector(int n, uint32_t seed, double scale = 1, double mean = 0) {
        return {*ops, 1, n, DType::F32, random_floats(size_t(n), seed, scale, mean)};
    }
    // A parameter gradient that is not zero before: fp32.
    DeviceMatrix gradient(int rows, int cols, uint32_t seed) {
        return {*ops, rows, cols, DType::F32, random_floats(size_t(rows * cols), seed), gap};
    }
    DeviceMatrix gradient_vector(int n, uint32_t seed) {
        return {*ops, 1, n, DType::F32, random_floats(size_t(n), seed)};
    }
    DeviceMatrix statistic(int64_t n) { return {*ops, 1, n, DType::F32}; }
};

inline const std::vector<CudaShape> RAGGED_SHAPES = {
    {DType::F32, 1, 1, 0},   {DType::F32, 5, 12, 0},   {DType::F32, 3, 31, 3},   {DType::F32, 67, 33, 1},
    {DType::F32, 2, 260, 0}, {DType::F32, 131, 8, 4},  {DType::BF16, 1, 2, 0},   {DType::BF16, 5, 24, 0},
    {DType::BF16, 3, 31, 3}, {DType::BF16, 66, 32, 8}, {DType::BF16, 2, 264, 0}, {DType::BF16, 131, 8, 8}};
inline const auto RAGGED = testing::ValuesIn(RAGGED_SHAPES);
// Of what is contiguous: parameters, their gradients.
inline const auto RAGGED_WITHOUT_GAPS = testing::ValuesIn([] {
    std::vector<CudaShape> shapes = RAGGED_SHAPES;
    for (CudaShape& s : shapes) s.gap = 0;
    return shapes;
}());
