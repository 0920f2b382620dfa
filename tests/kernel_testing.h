// kernel_testing.h -- what the kernel tests share: complex-step gradients, strided matrices, derived
// tolerances.
#pragma once
#include <gtest/gtest.h>

#include <complex>
#include <memory>
#include <vector>

#include "kernels/cpu.h"
#include "kernels/ops.h"
#include "kernels/view.h"
#include "utils/philox.h"

using Complex = std::complex<double>;
template <class T>
using Vectors = std::vector<std::vector<T>>;

inline std::vector<double> normals(size_t n, uint32_t seed, double scale = 1, double mean = 0) {
    Rng rng(seed, Stream::Noise, 77);
    std::vector<double> out(n);
    for (double& x : out) x = mean + scale * double(rng.normal());
    return out;
}

template <class T>
Rows<T> rows(std::vector<T>& v, int cols) {
    return {v.data(), cols};
}
template <class T>
Rows<const T> rows(const std::vector<T>& v, int cols) {
    return {v.data(), cols};
}

template <class T>
T dot(const std::vector<T>& a, const std::vector<double>& b) {
    T sum = T(0);
    for (size_t i = 0; i < a.size(); i++) sum += a[i] * T(b[i]);
    return sum;
}

// Complex step: for an analytic loss, Im loss(x + ih) / h is the derivative to machine precision at h =
// 1e-30, since nothing is subtracted. inputs[i] and gradients[i] belong together; loss takes
// Vectors<Complex>.
template <class Loss>
void expect_gradients(const Vectors<double>& inputs, const Vectors<double>& gradients, Loss&& loss) {
    constexpr double STEP = 1e-30;
    Vectors<Complex> x;
    for (const auto& v : inputs) x.emplace_back(v.begin(), v.end());
    ASSERT_EQ(inputs.size(), gradients.size());
    for (size_t k = 0; k < inputs.size(); k++) {
        ASSERT_EQ(inputs[k].size(), gradients[k].size());
        for (size_t i = 0; i < inputs[k].size(); i++) {
            x[k][i] = Complex(inputs[k][i], STEP);
            const double expected = loss(x).imag() / STEP;
            x[k][i] = inputs[k][i];
            ASSERT_NEAR(gradients[k][i], expected, 1e-10 * std::max(1.0, std::abs(expected)))
                << "input " << k << ", element " << i;
        }
    }
}

// A float matrix whose rows may be further apart than they are long; the gaps must survive every kernel.
class Matrix {
  public:
    Matrix(int64_t rows, int64_t cols, int64_t gap = 0, float fill = 0)
        : rows_(rows), cols_(cols), stride_(cols + gap), storage_(size_t(rows * stride_ + gap + 1), GAP) {
        for (int64_t r = 0; r < rows; r++)
            for (int64_t c = 0; c < cols; c++) at(r, c) = fill;
    }
    static Matrix random(int64_t rows, int64_t cols, uint32_t seed, int64_t gap = 0, double scale = 1,
                         double mean = 0) {
        Matrix m(rows, cols, gap);
        const std::vector<double> x = normals(size_t(rows * cols), seed, scale, mean);
        for (int64_t r = 0; r < rows; r++)
            for (int64_t c = 0; c < cols; c++) m.at(r, c) = float(x[size_t(r * cols + c)]);
        return m;
    }
    float& at(int64_t r, int64_t c) { return storage_[size_t(r * stride_ + c)]; }
    Tensor tensor() { return {storage_.data(), rows_, cols_, stride_, DType::F32}; }
    operator Tensor() { return tensor(); }
    template <class T>
    std::vector<T> values() const {
        std::vector<T> out;
        for (int64_t r = 0; r < rows_; r++)
            for (int64_t c = 0; c < cols_; c++) out.push_back(T(storage_[size_t(r * stride_ + c)]));
        return out;
    }
    // Rounded to bf16 in place; returns the bf16 copy.
    std::vector<Bf16> round_to_bf16() {
        std::vector<Bf16> out;
        for (int64_t r = 0; r < rows_; r++)
            for (int64_t c = 0; c < cols_; c++) {
                out.push_back(to_bf16(at(r, c)));
                at(r, c) = to_float(out.back());
            }
        return out;
    }
    void expect_gaps_untouched() const {
        for (size_t i = 0; i < storage_.size(); i++) {
            const bool inside = int64_t(i) % stride_ < cols_ && int64_t(i) < rows_ * stride_;
            if (!inside) {
                ASSERT_EQ(storage_[i], GAP) << "written outside at " << i;
            }
        }
    }

  private:
    static constexpr float GAP = -12345.5f;
    int64_t rows_, cols_, stride_;
    std::vector<float> storage_;
};

// The kernel's error may be twice that of the reference run in float (both against the reference in double),
// plus 1e-6 of the largest value.
inline void expect_close(const Matrix& got, const std::vector<double>& exact,
                         const std::vector<float>& reference) {
    got.expect_gaps_untouched();
    const std::vector<double> g = got.values<double>();
    ASSERT_EQ(g.size(), exact.size());
    ASSERT_EQ(g.size(), reference.size());
    double error = 0, largest = 1;
    for (size_t i = 0; i < g.size(); i++) {
        error = std::max(error, std::abs(double(reference[i]) - exact[i]));
        largest = std::max(largest, std::abs(exact[i]));
    }
    for (size_t i = 0; i < g.size(); i++)
        ASSERT_NEAR(g[i], exact[i], 2 * error + 1e-6 * largest) << "element " << i;
}

inline Tensor ints(std::vector<int>& v) { return tensor(v.data(), 1, int64_t(v.size()), DType::I32); }

inline std::vector<int> random_ints(size_t n, int limit, uint32_t seed) {
    Rng rng(seed, Stream::Noise, 78);
    std::vector<int> out(n);
    for (int& x : out) x = int(rng.below(uint32_t(limit)));
    return out;
}

// Records in memory of the ops, as long as this lives.
template <class Record>
class DeviceRecords {
  public:
    DeviceRecords(Ops& ops, const std::vector<Record>& host) : ops_(ops), n_(host.size()) {
        if (n_ == 0) return;
        view_ = records<Record>(nullptr, int64_t(n_));
        view_.data = ops.allocate(view_.bytes());
        ops.upload(view_, host.data());
    }
    ~DeviceRecords() {
        if (view_) ops_.release(view_.data, view_.bytes());
    }
    DeviceRecords(const DeviceRecords&) = delete;
    DeviceRecords& operator=(const DeviceRecords&) = delete;
    operator Tensor() const { return view_; }
    std::vector<Record> read() const {
        std::vector<Record> out(n_);
        if (n_) ops_.download(out.data(), view_);
        return out;
    }

  private:
    Ops& ops_;
    size_t n_;
    Tensor view_;
};

inline std::vector<Sampled> sample_rows(Ops& ops, const std::vector<SampleRow>& rows, Tensor hidden,
                                        Tensor weight, int mask_id, int n_ids) {
    const DeviceRecords<SampleRow> in(ops, rows);
    const DeviceRecords<Sampled> out(ops, std::vector<Sampled>(rows.size()));
    ops.head_sample(out, in, hidden, weight, mask_id, n_ids);
    return out.read();
}

// Every implementation this machine can run.
inline std::vector<std::unique_ptr<Ops>> cpu_variants() {
    std::vector<std::unique_ptr<Ops>> out;
    for (Isa isa : {Isa::Generic, Isa::Avx2, Isa::Avx512})
        if (const Simd* found = simd(isa)) out.push_back(make_cpu_ops(*found));
    return out;
}
