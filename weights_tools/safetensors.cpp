#include "weights_tools/safetensors.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cstring>

#include "utils/error.h"
#include "utils/json.h"

static_assert(std::endian::native == std::endian::little, "safetensors data is little-endian");

namespace {
constexpr uint64_t MAX_HEADER = 100'000'000;  // the reference implementation's limit
constexpr size_t MAX_NAME = 1024;

// The file being read, for messages.
struct Where {
    const std::string& path;
    [[noreturn]] void bad(const std::string& what) const { throw Error(Exit::BadFile, path + ": " + what); }
    [[noreturn]] void bad(const std::string& tensor, const std::string& what) const {
        bad("tensor '" + tensor + "': " + what);
    }
};

std::string show(const Json& value) {
    const std::string text = dump(value);
    return text.size() > 60 ? text.substr(0, 57) + "..." : text;
}

DType parse_dtype(const Json& info, const std::string& name, const Where& where) {
    const Json& value = info["dtype"];
    for (const DType dtype : {DType::F32, DType::BF16, DType::F16, DType::I32})
        if (value == name_of(dtype)) return dtype;
    where.bad(name, "dtype is " + show(value) + ": F32, BF16, F16 and I32 are supported");
}

// Whole numbers in a list of the header. nlohmann keeps those that are not negative as unsigned.
std::vector<uint64_t> parse_numbers(const Json& info, const char* field, const std::string& name,
                                    const Where& where) {
    const Json& list = info[field];
    bool whole = list.is_array();
    if (whole)
        for (const Json& n : list) whole = whole && n.is_number_unsigned() && n.get<uint64_t>() <= INT64_MAX;
    if (!whole)
        where.bad(name, format("%s is %s, must be a list of whole numbers", field, show(list).c_str()));
    return list.get<std::vector<uint64_t>>();
}

FileTensor parse_tensor(const std::string& name, const Json& info, const Where& where) {
    if (!info.is_object()) where.bad(name, "its entry must be an object, but is " + show(info));
    for (const char* field : {"dtype", "shape", "data_offsets"})
        if (!info.contains(field)) where.bad(name, format("%s is missing", field));
    if (info.size() != 3)
        for (const auto& [field, value] : info.items())
            if (field != "dtype" && field != "shape" && field != "data_offsets")
                where.bad(name, "unknown field " + show(Json(field)));

    FileTensor t;
    t.name = name;
    t.dtype = parse_dtype(info, name, where);
    uint64_t bytes = size_of(t.dtype);
    bool overflow = false;
    for (const uint64_t n : parse_numbers(info, "shape", name, where)) {
        t.shape.push_back(int64_t(n));
        overflow = overflow || __builtin_mul_overflow(bytes, n, &bytes) || bytes > INT64_MAX;
    }
    if (overflow) where.bad(name, "shape " + show(info["shape"]) + " is impossibly large");
    const std::vector<uint64_t> offsets = parse_numbers(info, "data_offsets", name, where);
    if (offsets.size() != 2 || offsets[0] > offsets[1])
        where.bad(name, "data_offsets is " + show(info["data_offsets"]) + ", must be [begin, end]");
    t.begin = offsets[0];
    t.bytes = offsets[1] - offsets[0];
    if (t.bytes != bytes)
        where.bad(name, format("shape %s of %s needs %llu bytes, data_offsets give %llu",
                               show(info["shape"]).c_str(), name_of(t.dtype), (unsigned long long)bytes,
                               (unsigned long long)t.bytes));
    return t;
}

void check_name(const std::string& name, const Where& where) {
    if (name.empty()) where.bad("a tensor has no name");
    if (name.size() > MAX_NAME) where.bad(format("a tensor's name is %zu bytes long", name.size()));
    for (const char c : name)
        if (uint8_t(c) < 32 || c == 127)
            where.bad("a tensor's name has a control character: " + show(Json(name)));
}

// Sorted by their place, the tensors must follow each other without gap from the first byte to the last.
void check_places(std::vector<FileTensor>& tensors, uint64_t data_bytes, const Where& where) {
    std::sort(tensors.begin(), tensors.end(), [](const FileTensor& a, const FileTensor& b) {
        return std::pair(a.begin, a.begin + a.bytes) < std::pair(b.begin, b.begin + b.bytes);
    });
    uint64_t end = 0;
    for (const FileTensor& t : tensors) {
        if (t.begin < end)
            where.bad(t.name, format("its data begins at %llu and overlaps another's, which ends at %llu",
                                     (unsigned long long)t.begin, (unsigned long long)end));
        if (t.begin > end)
            where.bad(t.name, format("its data begins at %llu: the bytes from %llu on belong to no tensor",
                                     (unsigned long long)t.begin, (unsigned long long)end));
        end = t.begin + t.bytes;
    }
    if (end > data_bytes)
        where.bad(
            format("is truncated: its tensors need %llu bytes of data, %llu are there; get the file again",
                   (unsigned long long)end, (unsigned long long)data_bytes));
    if (end < data_bytes)
        where.bad(format("has %llu bytes after its last tensor, which belong to none",
                         (unsigned long long)(data_bytes - end)));
}

void read_exactly(int fd, uint64_t offset, char* out, size_t bytes, const Where& where) {
    while (bytes > 0) {
        const ssize_t n = pread(fd, out, std::min<size_t>(bytes, 1 << 30), off_t(offset));
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) where.bad(format("cannot read: %s", strerror(errno)));
        if (n == 0) where.bad("ended early: it was cut short while it was being read");
        out += n;
        offset += uint64_t(n);
        bytes -= size_t(n);
    }
}
}  // namespace

std::string show_shape(const std::vector<int64_t>& shape) {
    std::string text = "(";
    for (size_t i = 0; i < shape.size(); i++) text += (i ? ", " : "") + std::to_string(shape[i]);
    return text + ")";
}

// ---- reading

SafetensorsFile::SafetensorsFile(const std::string& path) : path_(path) {
    const Where where{path_};
    fd_ = open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);  // a pipe without a writer must not hang
    if (fd_ < 0) where.bad(format("cannot read: %s", strerror(errno)));
    try {
        struct stat info;
        if (fstat(fd_, &info) != 0) where.bad(format("cannot read: %s", strerror(errno)));
        if (!S_ISREG(info.st_mode)) where.bad("is not a regular file");
        size_ = uint64_t(info.st_size);
        parse_header(size_);
    } catch (...) {
        close(fd_);
        throw;
    }
    for (size_t i = 0; i < tensors_.size(); i++) {
        tensors_[i].file = this;
        index_[tensors_[i].name] = i;
    }
    void* mapping = mmap(nullptr, size_, PROT_READ, MAP_SHARED, fd_, 0);
    if (mapping != MAP_FAILED) mapping_ = static_cast<char*>(mapping);
}

SafetensorsFile::~SafetensorsFile() {
    if (mapping_) munmap(mapping_, size_);
    close(fd_);
}

void SafetensorsFile::parse_header(uint64_t file_size) {
    const Where where{path_};
    if (file_size == 0) where.bad("is empty");
    if (file_size < 8)
        where.bad(format("has %llu bytes: not a safetensors file", (unsigned long long)file_size));
    char start[8];
    read_exactly(fd_, 0, start, 8, where);
    if (memcmp(start, "version ", 8) == 0)
        where.bad("is a Git LFS pointer, not the weights: fetch them with `git lfs pull`");
    uint64_t length;
    memcpy(&length, start, 8);
    if (length > MAX_HEADER)
        where.bad(format("header length is %llu, over %llu: not a safetensors file",
                         (unsigned long long)length, (unsigned long long)MAX_HEADER));
    if (length > file_size - 8)
        where.bad(format("is truncated: its header needs %llu bytes, %llu are there; get the file again",
                         (unsigned long long)length, (unsigned long long)(file_size - 8)));
    std::string text(length, '\0');
    read_exactly(fd_, 8, text.data(), length, where);
    const Json header = parse_json(text, path_ + " header");
    if (!header.is_object()) where.bad("header must be a JSON object, but is " + show(header));

    for (const auto& [name, info] : header.items()) {
        if (name != "__metadata__") {
            check_name(name, where);
            tensors_.push_back(parse_tensor(name, info, where));
            continue;
        }
        if (!info.is_object()) where.bad("__metadata__ must be an object, but is " + show(info));
        for (const auto& [key, value] : info.items()) {
            if (!value.is_string())
                where.bad("__metadata__ " + show(Json(key)) + " is " + show(value) + ", must be a string");
            metadata_[key] = value.get<std::string>();
        }
    }
    data_begin_ = 8 + length;
    check_places(tensors_, file_size - data_begin_, where);
}

const FileTensor* SafetensorsFile::find(const std::string& name) const {
    const auto it = index_.find(name);
    return it == index_.end() ? nullptr : &tensors_[it->second];
}

const FileTensor& SafetensorsFile::get(const std::string& name) const {
    const FileTensor* t = find(name);
    if (!t) Where{path_}.bad("has no tensor '" + name + "'");
    return *t;
}

void SafetensorsFile::read(const FileTensor& tensor, uint64_t offset, void* out, size_t bytes) const {
    CHECK(tensor.file == this && offset <= tensor.bytes && bytes <= tensor.bytes - offset,
          "read past the end of tensor %s", tensor.name.c_str());
    read_exactly(fd_, data_begin_ + tensor.begin + offset, static_cast<char*>(out), bytes, Where{path_});
}

const char* SafetensorsFile::mapped(const FileTensor& tensor) const {
    CHECK(tensor.file == this, "tensor %s is another file's", tensor.name.c_str());
    const char* data = mapping_ ? mapping_ + data_begin_ + tensor.begin : nullptr;
    return reinterpret_cast<uintptr_t>(data) % size_of(tensor.dtype) ? nullptr : data;  // odd headers exist
}

void SafetensorsFile::fetch(const FileTensor& tensor, uint64_t offset, size_t bytes) const {
    CHECK(mapped(tensor) && offset <= tensor.bytes && bytes <= tensor.bytes - offset,
          "fetch past the end of tensor %s", tensor.name.c_str());
    const uint64_t first = data_begin_ + tensor.begin + offset,
                   begin = first - first % uint64_t(sysconf(_SC_PAGESIZE)), length = first + bytes - begin;
    unsigned char present = 0;
    if (mincore(mapping_ + begin, 1, &present) != 0 || !(present & 1))
        madvise(mapping_ + begin, length, MADV_WILLNEED);  // from the disk whole at once, not page by page
    if (madvise(mapping_ + begin, length, MADV_POPULATE_READ) == 0) return;
    if (errno == EINVAL) return;  // Linux before 5.14: pages come when they are touched
    std::vector<char> out(bytes);
    read(tensor, offset, out.data(), bytes);
}

// ---- writing

uint64_t NewTensor::bytes() const {
    uint64_t n = size_of(dtype);
    for (const int64_t s : shape) n *= uint64_t(s);
    return n;
}

static std::vector<NewTensor> in_file_order(std::vector<NewTensor> tensors) {
    std::sort(tensors.begin(), tensors.end(), [](const NewTensor& a, const NewTensor& b) {
        if (size_of(a.dtype) != size_of(b.dtype)) return size_of(a.dtype) > size_of(b.dtype);
        return a.name < b.name;
    });
    return tensors;
}

SafetensorsWriter::SafetensorsWriter(const std::string& path, std::vector<NewTensor> tensors)
    : tensors_(in_file_order(std::move(tensors))), file_(path) {
    Json::object_t header;
    header.emplace_back("__metadata__", Json{{"format", "pt"}});  // transformers insists on it
    for (const NewTensor& t : tensors_) {
        header.emplace_back(t.name, Json{{"dtype", name_of(t.dtype)},
                                         {"shape", t.shape},
                                         {"data_offsets", {left_, left_ + t.bytes()}}});
        left_ += t.bytes();
    }
    std::string text = dump(Json(std::move(header)));
    text.append((8 - text.size() % 8) % 8, ' ');  // so that the data is aligned
    const uint64_t length = text.size();
    file_.write(&length, 8);
    file_.write(text);
}

void SafetensorsWriter::write(const void* data, size_t bytes) {
    CHECK(bytes <= left_, "more data than the header announces");
    file_.write(data, bytes);
    left_ -= bytes;
}

void SafetensorsWriter::commit() {
    CHECK(left_ == 0, "%llu bytes of data are missing", (unsigned long long)left_);
    file_.commit();
}
