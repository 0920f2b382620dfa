#include "weights_tools/rewrite_folder.h"

#include <algorithm>

#include "utils/error.h"
#include "utils/signals.h"

static std::vector<NewTensor> new_tensors(const ModelFolder& from, const Rewrite& how) {
    std::vector<NewTensor> tensors;
    const Head head = how.to_value || from.is_value ? Head::Value : Head::Policy;
    for (const TensorSpec& spec : tensor_specs(from.config, head)) {
        const FileTensor* t = from.weights.find(spec.name);
        tensors.push_back({spec.name, how.dtype.value_or(t ? t->dtype : from.dtype), spec.shape()});
    }
    return tensors;
}

uint64_t rewritten_bytes(const ModelFolder& from, const Rewrite& how) {
    uint64_t sum = 0;
    for (const NewTensor& t : new_tensors(from, how)) sum += t.bytes();
    return sum;
}

void rewrite_folder(const std::string& path, const ModelFolder& from, const Rewrite& how,
                    const std::function<void(uint64_t)>& progress) {
    CHECK(!how.to_value || !from.is_value, "%s is a value model already", from.path.c_str());
    constexpr int64_t PIECE = 1 << 20;  // elements in memory at a time
    std::vector<char> raw(size_t(PIECE) * 4), cast(size_t(PIECE) * 4);
    std::vector<float> floats(size_t(PIECE), 0);
    uint64_t done = 0;
    const auto write = [&](const NewTensor& t, SafetensorsWriter& writer) {
        const FileTensor* source = from.weights.find(t.name);  // null: the new value head, which is zero
        const int64_t size = int64_t(t.bytes() / size_of(t.dtype));
        for (int64_t begin = 0; begin < size; begin += PIECE) {
            throw_if_interrupted("interrupted; nothing was written");
            const size_t n = size_t(std::min(PIECE, size - begin)), bytes = n * size_of(t.dtype);
            const char* data = cast.data();
            if (!source) {
                std::fill_n(cast.begin(), bytes, 0);
            } else {
                const size_t width = size_of(source->dtype);
                source->file->read(*source, uint64_t(begin) * width, raw.data(), n * width);
                if (source->dtype == t.dtype) {
                    data = raw.data();
                } else {
                    to_floats(floats.data(), raw.data(), source->dtype, n);
                    from_floats(cast.data(), t.dtype, floats.data(), n);
                }
            }
            writer.write(data, bytes);
            progress(done += bytes);
        }
    };
    write_weight_files(path, new_tensors(from, how), MAX_SHARD_BYTES, write);
    save_configs(path, from.config, how.companions.empty() ? from.path : how.companions,
                 how.dtype.value_or(from.dtype));
}
