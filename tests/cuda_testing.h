// cuda_testing.h -- what the tests of the CUDA kernels share. They go through Ops alone, so the same files
// test the kernels executed on the CPU (in run_tests) and on a GPU (in run_gpu_tests).
#pragma once
#include "tests/rounded.h"
// the references after their scalar
#include "kernels/cuda_ops.h"
#include "tests/kernel_testing.h"

// On a GPU the usual workspace; in the emulation one so small that every loop over pieces of it goes round
// several times.
constexpr size_t SMALL_WORKSPACE = size_t(256) << 10;
inline std::unique_ptr<Ops> cuda_ops_for_tests(size_t emulated_workspace = SMALL_WORKSPACE) {
    return make_cuda_ops(0, cuda_device_count() ? CUDA_WORKSPACE : emulated_workspace);
}

// A matrix in device memory, an allocation of its own. Its rows may be further apart than they are long; the
// gaps are checked whenever it is read.
class DeviceMatrix {
  public:
    DeviceMatrix(Ops& ops, int64_t rows, int64_t cols, DType dtype, const std::vector<float>& values,
                 int64_t gap = 0)
        : ops_(ops), values_(values), bytes_(size_t(rows * (cols + gap)) * size_of(dtype)) {
        CHECK(int64_t(values.size()) == rows * cols, "%zu values for (%lld, %lld)", values.size(),
              (long long)rows, (long long)cols);
        whole_ = tensor(ops.allocate(bytes_), rows, cols + gap, dtype);
        view_ = whole_.col_range(0, cols);
        std::vector<float> all(size_t(whole_.size()), GAP);
        for (int64_t r = 0; r < rows; r++)
            for (int64_t c = 0; c < cols; c++) {
                float& x = values_[size_t(r * cols + c)];
                if (dtype == DType::BF16) x = to_float(to_bf16(x));
                all[size_t(r * whole_.cols + c)] = x;
            }
        put(all);
    }
    // Filled with NaN: whatever a kernel should overwrite.
    DeviceMatrix(Ops& ops, int64_t rows, int64_t cols, DType dtype, int64_t gap = 0)
        : DeviceMatrix(ops, rows, cols, dtype, std::vector<float>(size_t(rows * cols), NAN), gap) {}
    ~DeviceMatrix() { ops_.release(whole_.data, bytes_); }
    DeviceMatrix(const DeviceMatrix&) = delete;
    DeviceMatrix& operator=(const DeviceMatrix&) = delete;

    operator Tensor() const { return view_; }
    // What was put there at first, rounded to the matrix's type.
    template <class T = double>
    std::vector<T> values() const {
        std::vector<T> out;
        for (const float x : values_) out.push_back(T(x));
        return out;
    }
    // What is there now.
    std::vector<double> read() const {
        std::vector<float> all(size_t(whole_.size()));
        if (whole_.dtype == DType::F32) {
            ops_.download(all.data(), whole_);
        } else {
            std::vector<Bf16> bits(all.size());
            ops_.download(bits.data(), whole_);
            for (size_t i = 0; i < all.size(); i++) all[i] = to_float(bits[i]);
        }
        std::vector<double> out;
        for (int64_t r = 0; r < whole_.rows; r++)
            for (int64_t c = 0; c < whole_.cols; c++) {
                const float x = all[size_t(r * whole_.cols + c)];
                if (c < view_.cols)
                    out.push_back(double(x));
                else
                    EXPECT_EQ(x, GAP) << "written behind row " << r;
            }
        return out;
    }

  private:
    static constexpr float GAP = -12352;  // exact in bf16
    void put(const std::vector<float>& all) {
        if (whole_.dtype == DType::F32) return ops_.upload(whole_, all.data());
        std::vector<Bf16> bits;
        for (const float x : all) bits.push_back(to_bf16(x));
        ops_.upload(whole_, bits.data());
    }
    Ops& ops_;
    std::vector<float> values_;
    size_t bytes_;
    Tensor whole_, view_;
};

class DeviceInts {
  public:
    DeviceInts(Ops& ops, const std::vector<int>& values, int64_t cols = 0)
        : ops_(ops), bytes_(values.size() * sizeof(int)) {
        const int64_t n = int64_t(values.size());
        view_ = tensor(ops.allocate(bytes_), cols ? n / cols : 1, cols ? cols : n, DType::I32);
        ops.upload(view_, values.data());
    }
    ~DeviceInts() { ops_.release(view_.data, bytes_); }
    DeviceInts(const DeviceInts&) = delete;
    DeviceInts& operator=(const DeviceInts&) = delete;
    operator Tensor() const { return view_; }

  private:
    Ops& ops_;
    size_t bytes_;
    Tensor view_;
};

inline std::vector<float> random_floats(size_t n, uint32_t seed, double scale = 1, double mean = 0) {
    const std::vector<double> x = normals(n, seed, scale, mean);
    return {x.begin(), x.end()};
}

// `reference` is called with a scalar of each kind and returns its outputs: the exact ones in double, and
// those of a computation as good as the kernel's, whose largest error times two (plus 1e-6 of the largest
// value) the kernel may make.
class Expected {
  public:
    template <class Reference>
    Expected(DType dtype, Reference&& reference) : exact_(reference(double())) {
        if (dtype == DType::F32)
            keep(reference(float()), false);
        else
            keep(reference(Rounded()), true);
    }
    // stored: the output is kept in the matrices' type, and so rounded once more.
    void check(const DeviceMatrix& got, size_t output, const char* name, bool stored = true) const {
        const std::vector<double> g = got.read();
        const std::vector<double>&exact = exact_[output],
              &rounded = stored ? stored_[output] : plain_[output];
        ASSERT_EQ(g.size(), exact.size()) << name;
        double error = 0, largest = 0;
        for (size_t i = 0; i < g.size(); i++) {
            error = std::max(error, std::abs(rounded[i] - exact[i]));
            largest = std::max(largest, std::abs(exact[i]));
        }
        for (size_t i = 0; i < g.size(); i++)
            ASSERT_NEAR(g[i], exact[i], 2 * error + 1e-6 * std::max(1.0, largest))
                << name << ", element " << i;
    }
    const std::vector<double>& exact(size_t output) const { return exact_[output]; }

  private:
    template <class T>
    void keep(const Vectors<T>& outputs, bool bf16) {
        for (const auto& output : outputs) {
            std::vector<double> plain, stored;
            for (const T& x : output) {
                plain.push_back(double(x));
                stored.push_back(bf16 ? double(to_float(to_bf16(float(double(x))))) : double(x));
            }
            plain_.push_back(plain);
            stored_.push_back(stored);
        }
    }
    Vectors<double> exact_, plain_, stored_;
};
