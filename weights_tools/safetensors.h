// safetensors.h -- reading and writing one .safetensors file: 8 bytes of header length, a JSON header, the data.
//
// Every rule of the format is checked before a byte of data is used: lengths, UTF-8, duplicate names, types,
// shapes, and that the tensors cover the data exactly, without holes or overlaps. Faults throw Error(BadFile)
// naming the file. Model weights, the optimizer's state and the numbers that programs dump all go through
// here.
#pragma once
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "kernels/ops.h"
#include "utils/files.h"

class SafetensorsFile;

// A tensor as a file describes it. Types other than F32, BF16, F16 and I32 are refused.
struct FileTensor {
    std::string name;
    DType dtype = DType::F32;
    std::vector<int64_t> shape;
    uint64_t begin = 0, bytes = 0;  // in the data area
    const SafetensorsFile* file = nullptr;

    int64_t size() const { return int64_t(bytes / size_of(dtype)); }
};
std::string show_shape(const std::vector<int64_t>& shape);  // "(2048, 1024)"

class SafetensorsFile {
  public:
    explicit SafetensorsFile(const std::string& path);
    ~SafetensorsFile();
    SafetensorsFile(const SafetensorsFile&) = delete;
    SafetensorsFile& operator=(const SafetensorsFile&) = delete;

    const std::string& path() const { return path_; }
    const std::vector<FileTensor>& tensors() const { return tensors_; }  // in the order of their data
    const FileTensor* find(const std::string& name) const;               // null where there is none
    const FileTensor& get(const std::string& name) const;  // throws Error(BadFile) where there is none
    const std::map<std::string, std::string>& metadata() const { return metadata_; }

    // Copies bytes of a tensor's data, from any thread. By pread(), not from the mapping: a file that shrinks
    // meanwhile is an error then, and nothing but the destination becomes resident.
    void read(const FileTensor& tensor, uint64_t offset, void* out, size_t bytes) const;

    // A tensor's data where it lies in the file, mapped read-only, for programs that read weights and never
    // change them: no copy, and one set of pages for all processes. Null where that cannot be. A file that
    // shrinks meanwhile ends the program (signals.h).
    const char* mapped(const FileTensor& tensor) const;
    // Brings a part of that into memory; a fault of the disk is the error that read() would make of it.
    void fetch(const FileTensor& tensor, uint64_t offset, size_t bytes) const;

  private:
    void parse_header(uint64_t file_size);
    std::string path_;
    int fd_ = -1;
    char* mapping_ = nullptr;  // all of the file
    uint64_t size_ = 0;
    uint64_t data_begin_ = 0;
    std::vector<FileTensor> tensors_;
    std::map<std::string, size_t> index_;
    std::map<std::string, std::string> metadata_;
};

// One of many tensors to load: where from, and where to. `to` is contiguous, has as many elements, and is
// F32, BF16 (from any float type) or I32 (from I32). Where it is the file's own place, data is fetched and not
// copied.
struct Load {
    const FileTensor* from;
    Tensor to;
};
// Loads all of them, on every core; no more than a few MiB of memory beside the destinations. Throws Error(Interrupted,
// Terminated) after a signal (signals.h), before all is loaded.
void load_tensors(const std::vector<Load>& loads, Ops& ops);
// The same into the host's memory.
void load_tensors(const std::vector<Load>& loads);

// Float types to and from fp32, element by element.
void to_floats(float* out, const void* inp, DType dtype, size_t n);
void from_floats(void* out, DType dtype, const float* inp, size_t n);

// ---- writing

struct NewTensor {
    std::string name;
    DType dtype = DType::F32;
    std::vector<int64_t> shape;
    uint64_t bytes() const;
};

// Writes a file tensor by tensor: nothing of it need be in memory, and nobody ever sees half of it.
class SafetensorsWriter {
  public:
    // Larger elements come first, then names in order, as the reference implementation writes; `tensors()`
    // says so.
    SafetensorsWriter(const std::string& path, std::vector<NewTensor> tensors);
    const std::vector<NewTensor>& tensors() const { return tensors_; }
    void write(const void* data, size_t bytes);  // the data of tensors() in order, in pieces of any size
    void commit();                               // throws where data is missing

  private:
    std::vector<NewTensor> tensors_;
    uint64_t left_ = 0;
    AtomicFile file_;
};

// A tensor of a device and the name and type it gets in a file. `vector`: written as (n), not (1, n).
struct Save {
    std::string name;
    Tensor from;  // contiguous
    bool vector = false;
    DType dtype = DType::F32;
};
NewTensor described(const Save& save);
void write_tensor(SafetensorsWriter& writer, const Save& save, Ops& ops);
// Writes them all, cast to their types where those differ (between F32 and BF16).
void save_tensors(const std::string& path, const std::vector<Save>& saves, Ops& ops);
void save_tensors(const std::string& path, const std::vector<Save>& saves);  // of the host's memory
