// tensor.h -- a view of numbers in memory: pointer, type, shape, distance between rows.
//
// Never owns anything and is freely copied. The memory may be the host's or a device's.
#pragma once
#include <cstddef>
#include <cstdint>
#include <string>

#include "utils/error.h"

enum class DType : uint8_t { F32, BF16, F16, I32 };
size_t size_of(DType dtype);       // bytes of one element
const char* name_of(DType dtype);  // "F32", as safetensors spells it

template <class T>
constexpr DType dtype_of();
template <>
constexpr DType dtype_of<float>() {
    return DType::F32;
}
template <>
constexpr DType dtype_of<int>() {
    return DType::I32;
}
// bf16 on the host is its bit pattern; arithmetic happens in fp32.
struct Bf16 {
    uint16_t bits;
};
template <>
constexpr DType dtype_of<Bf16>() {
    return DType::BF16;
}

// Two dimensions are all the engine needs: rows of `cols` elements, `stride` elements apart.
// A vector is one row. Parameters that are matrices are (out, in), row-major, as in PyTorch.
struct Tensor {
    void* data = nullptr;
    int64_t rows = 0, cols = 0;
    int64_t stride = 0;  // elements from one row to the next; cols where the tensor is contiguous
    DType dtype = DType::F32;
    const void* packed = nullptr;  // a weight's second copy, made by Ops::pack(); parts of a tensor have none

    explicit operator bool() const { return data != nullptr; }
    int64_t size() const { return rows * cols; }
    bool contiguous() const { return stride == cols || rows <= 1; }
    size_t bytes() const { return size_t(size()) * size_of(dtype); }

    // Typed access; throws where the type is not the tensor's.
    template <class T>
    T* as() const {
        CHECK(dtype == dtype_of<T>(), "tensor of type %s read as %s", name_of(dtype), name_of(dtype_of<T>()));
        return static_cast<T*>(data);
    }
    template <class T>
    T* row(int64_t r) const {
        return as<T>() + r * stride;
    }
    // Address of an element; a tensor that is only planned has none, and neither have its parts.
    void* at(int64_t element) const {
        return data ? static_cast<char*>(data) + size_t(element) * size_of(dtype) : nullptr;
    }
    Tensor row_range(int64_t begin, int64_t end) const {
        return {at(begin * stride), end - begin, cols, stride, dtype};
    }
    Tensor col_range(int64_t begin, int64_t end) const {
        return {at(begin), rows, end - begin, stride, dtype};
    }
};

// A contiguous view.
inline Tensor tensor(void* data, int64_t rows, int64_t cols, DType dtype = DType::F32) {
    return {data, rows, cols, cols, dtype};
}

float to_float(Bf16 x);
Bf16 to_bf16(float x);  // round to nearest even; a NaN stays a NaN
float half_to_float(uint16_t bits);
