// transfer.cpp -- moving tensors between files and memory, the host's or a device's, and between float types.
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <exception>
#include <map>
#include <mutex>

#include "kernels/parallel.h"
#include "utils/signals.h"
#include "weights_tools/safetensors.h"

namespace {
constexpr int64_t PIECE = 1 << 20;  // elements moved at a time: a few MiB, and still large reads

Tensor flat(const Tensor& t, int64_t begin, int64_t n) { return tensor(t.at(begin), 1, n, t.dtype); }

// A part of a tensor of a file, from element `begin` on, and where in the host's memory it goes.
struct Piece {
    const FileTensor* from;
    int64_t begin;
    Tensor to;
};

// Has the kernel make the pages of a destination at once, which takes less than making each when it is first
// written.
void make_pages(const Tensor& t) {
    const uintptr_t page = uintptr_t(sysconf(_SC_PAGESIZE)), first = reinterpret_cast<uintptr_t>(t.data),
                    begin = (first + page - 1) / page * page, end = (first + t.bytes()) / page * page;
    if (begin < end) madvise(reinterpret_cast<void*>(begin), end - begin, MADV_POPULATE_WRITE);
}

void load_piece(const Piece& piece) {
    const FileTensor& from = *piece.from;
    const DType dtype = piece.to.dtype;
    const size_t size = size_of(from.dtype);
    const uint64_t offset = uint64_t(piece.begin) * size;
    if (const char* data = from.file->mapped(from); data && piece.to.data == data + offset)
        return from.file->fetch(from, offset, piece.to.bytes());
    make_pages(piece.to);
    if (from.dtype == dtype) return from.file->read(from, offset, piece.to.data, piece.to.bytes());
    constexpr int64_t BUFFER = 1 << 14;
    char raw[BUFFER * 4];
    float floats[BUFFER];
    for (int64_t i = 0; i < piece.to.size(); i += BUFFER) {
        const Tensor out = flat(piece.to, i, std::min(BUFFER, piece.to.size() - i));
        const size_t n = size_t(out.size());
        from.file->read(from, uint64_t(piece.begin + i) * size, raw, n * size);
        if (dtype == DType::F32) {
            to_floats(out.as<float>(), raw, from.dtype, n);
        } else {
            to_floats(floats, raw, from.dtype, n);
            from_floats(out.data, dtype, floats, n);
        }
    }
}

void check_load(const Load& load) {
    const Tensor& to = load.to;
    CHECK(to.contiguous() && to.size() == load.from->size(), "tensor %s does not fit its destination",
          load.from->name.c_str());
    CHECK((to.dtype == DType::I32) == (load.from->dtype == DType::I32), "tensor %s: %s loaded as %s",
          load.from->name.c_str(), name_of(load.from->dtype), name_of(to.dtype));
}
}  // namespace

void to_floats(float* out, const void* inp, DType dtype, size_t n) {
    if (dtype == DType::F32) {
        memcpy(out, inp, n * 4);
    } else if (dtype == DType::BF16) {
        const Bf16* x = static_cast<const Bf16*>(inp);
        for (size_t i = 0; i < n; i++) out[i] = to_float(x[i]);
    } else {
        CHECK(dtype == DType::F16, "%s is not a float type", name_of(dtype));
        const uint16_t* x = static_cast<const uint16_t*>(inp);
        for (size_t i = 0; i < n; i++) out[i] = half_to_float(x[i]);
    }
}

void from_floats(void* out, DType dtype, const float* inp, size_t n) {
    if (dtype == DType::F32) {
        memcpy(out, inp, n * 4);
    } else {
        CHECK(dtype == DType::BF16, "cannot write %s", name_of(dtype));
        Bf16* x = static_cast<Bf16*>(out);
        for (size_t i = 0; i < n; i++) x[i] = to_bf16(inp[i]);
    }
}

static void load_pieces(const std::vector<Piece>& pieces) {
    std::mutex mutex;
    std::exception_ptr fault;
    parallel_for(int64_t(pieces.size()), PIECE, [&](int64_t i) {
        try {
            throw_if_interrupted("interrupted while weights were loaded");
            load_piece(pieces[size_t(i)]);
        } catch (...) {  // an exception must not leave a parallel region
            const std::lock_guard lock(mutex);
            if (!fault) fault = std::current_exception();
        }
    });
    if (fault) std::rethrow_exception(fault);
}

void load_tensors(const std::vector<Load>& loads) {
    std::vector<Piece> pieces;
    for (const Load& load : loads) {
        check_load(load);
        for (int64_t begin = 0; begin < load.to.size(); begin += PIECE) {
            const Tensor part = flat(load.to, begin, std::min(PIECE, load.to.size() - begin));
            pieces.push_back({load.from, begin, part});
        }
    }
    load_pieces(pieces);
}

void load_tensors(const std::vector<Load>& loads, Ops& ops) {
    if (ops.on_host()) return load_tensors(loads);
    constexpr int64_t BATCH = 8 * PIECE;  // elements read on all cores, then uploaded
    std::vector<char> staging(size_t(BATCH) * 4);
    for (const Load& load : loads) {
        check_load(load);
        for (int64_t begin = 0; begin < load.to.size(); begin += BATCH) {
            const int64_t n = std::min(BATCH, load.to.size() - begin);
            const Tensor batch = tensor(staging.data(), 1, n, load.to.dtype);
            std::vector<Piece> pieces;
            for (int64_t i = 0; i < n; i += PIECE)
                pieces.push_back({load.from, begin + i, flat(batch, i, std::min(PIECE, n - i))});
            load_pieces(pieces);
            ops.upload(flat(load.to, begin, n), staging.data());
        }
    }
}

// ---- writing

NewTensor described(const Save& save) {
    NewTensor t{save.name, save.dtype, {save.from.rows, save.from.cols}};
    if (save.vector) t.shape = {save.from.size()};
    return t;
}

static void write_to(SafetensorsWriter& writer, const Save& save, Ops* ops) {
    CHECK(save.from.contiguous(), "tensor %s is strided", save.name.c_str());
    const bool host = !ops || ops->on_host();
    if (host && save.from.dtype == save.dtype) return writer.write(save.from.data, save.from.bytes());
    std::vector<char> raw(size_t(PIECE) * 4), cast(size_t(PIECE) * 4);
    std::vector<float> floats(size_t(PIECE), 0);
    for (int64_t begin = 0; begin < save.from.size(); begin += PIECE) {
        const Tensor piece = flat(save.from, begin, std::min(PIECE, save.from.size() - begin));
        if (!host) ops->download(raw.data(), piece);
        const void* data = host ? piece.data : raw.data();
        if (piece.dtype == save.dtype) {
            writer.write(data, piece.bytes());
            continue;
        }
        to_floats(floats.data(), data, piece.dtype, size_t(piece.size()));
        from_floats(cast.data(), save.dtype, floats.data(), size_t(piece.size()));
        writer.write(cast.data(), size_t(piece.size()) * size_of(save.dtype));
    }
}

void write_tensor(SafetensorsWriter& writer, const Save& save, Ops& ops) { write_to(writer, save, &ops); }

static void save_all(const std::string& path, const std::vector<Save>& saves, Ops* ops) {
    std::vector<NewTensor> tensors;
    std::map<std::string, const Save*> by_name;
    for (const Save& save : saves) {
        tensors.push_back(described(save));
        CHECK(by_name.emplace(save.name, &save).second, "tensor %s is written twice", save.name.c_str());
    }
    SafetensorsWriter writer(path, std::move(tensors));
    for (const NewTensor& t : writer.tensors()) write_to(writer, *by_name[t.name], ops);
    writer.commit();
}

void save_tensors(const std::string& path, const std::vector<Save>& saves, Ops& ops) {
    save_all(path, saves, &ops);
}
void save_tensors(const std::string& path, const std::vector<Save>& saves) { save_all(path, saves, nullptr); }
