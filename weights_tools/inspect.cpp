#include "weights_tools/inspect.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "utils/error.h"
#include "utils/signals.h"

namespace {
constexpr int64_t PIECE = 1 << 20;  // elements in memory at a time

// Numbers of a tensor as doubles, which hold every type exactly.
class Reader {
  public:
    explicit Reader(const FileTensor& t) : t_(t) {}
    const std::vector<double>& read(int64_t begin, size_t n) {
        raw_.resize(n * size_of(t_.dtype));
        floats_.resize(n);
        numbers_.resize(n);
        t_.file->read(t_, uint64_t(begin) * size_of(t_.dtype), raw_.data(), raw_.size());
        if (t_.dtype == DType::I32) {
            std::vector<int32_t> integers(n);
            memcpy(integers.data(), raw_.data(), raw_.size());
            std::copy(integers.begin(), integers.end(), numbers_.begin());
        } else {
            to_floats(floats_.data(), raw_.data(), t_.dtype, n);
            std::copy(floats_.begin(), floats_.end(), numbers_.begin());
        }
        return numbers_;
    }

  private:
    const FileTensor& t_;
    std::vector<char> raw_;
    std::vector<float> floats_;
    std::vector<double> numbers_;
};

TensorDifference compare(const FileTensor& a, const FileTensor& b) {
    TensorDifference d{a.name, "", 0, 0};
    if (a.shape != b.shape) {
        d.mismatch = show_shape(a.shape) + " and " + show_shape(b.shape);
        return d;
    }
    Reader read_a(a), read_b(b);
    double difference = 0, norm = 0;
    for (int64_t begin = 0; begin < a.size(); begin += PIECE) {
        throw_if_interrupted("interrupted");
        const size_t n = size_t(std::min(PIECE, a.size() - begin));
        const std::vector<double>&x = read_a.read(begin, n), &y = read_b.read(begin, n);
        for (size_t i = 0; i < n; i++) {
            const bool same = x[i] == y[i] || (std::isnan(x[i]) && std::isnan(y[i]));
            double gap = same ? 0 : std::abs(x[i] - y[i]);
            if (std::isnan(gap)) gap = std::numeric_limits<double>::infinity();
            d.largest = std::max(d.largest, gap);
            difference += gap * gap;
            norm += y[i] * y[i];
        }
    }
    d.relative = difference == 0 ? 0 : std::sqrt(difference) / std::sqrt(norm);
    return d;
}
}  // namespace

std::vector<NonFinite> find_non_finite(const WeightFiles& weights,
                                       const std::function<void(uint64_t)>& progress) {
    std::vector<NonFinite> found;
    uint64_t done = 0;
    for (const FileTensor* t : weights.tensors()) {
        Reader reader(*t);
        NonFinite count{t->name};
        for (int64_t begin = 0; begin < t->size(); begin += PIECE) {
            throw_if_interrupted("interrupted");
            const size_t n = size_t(std::min(PIECE, t->size() - begin));
            for (const double x : reader.read(begin, n)) {
                count.nan += std::isnan(x);
                count.infinite += std::isinf(x);
            }
            progress(done += n * size_of(t->dtype));
        }
        if (count.nan || count.infinite) found.push_back(count);
    }
    return found;
}

std::vector<TensorDifference> compare(const WeightFiles& a, const WeightFiles& b,
                                      const std::function<void(uint64_t)>& progress) {
    std::vector<TensorDifference> all;
    uint64_t done = 0;
    for (const FileTensor* t : a.tensors()) {
        const FileTensor* other = b.find(t->name);
        all.push_back(other ? compare(*t, *other) : TensorDifference{t->name, "only in " + a.path(), 0, 0});
        progress(done += t->bytes);
    }
    for (const FileTensor* t : b.tensors())
        if (!a.find(t->name)) all.push_back({t->name, "only in " + b.path(), 0, 0});
    return all;
}
