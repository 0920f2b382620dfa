// weight_files.h -- the tensors of a model folder, wherever they lie: one file, or shards with an index.
#pragma once
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "weights_tools/safetensors.h"

class WeightFiles {
  public:
    // A folder with model.safetensors, or with model.safetensors.index.json and its shards; or one
    // .safetensors file. All faults of an index and its shards are reported together.
    explicit WeightFiles(const std::string& path);

    const std::vector<const FileTensor*>& tensors() const {
        return tensors_;
    }  // file by file, in the order of data
    const FileTensor* find(const std::string& name) const;
    size_t n_files() const { return files_.size(); }
    const std::string& path() const { return path_; }
    const std::vector<std::string>& notices() const { return notices_; }
    uint64_t bytes() const;  // of all tensors

  private:
    void open_shards(const std::string& index_path);
    void add(std::unique_ptr<SafetensorsFile> file);
    std::string path_;
    std::vector<std::unique_ptr<SafetensorsFile>> files_;
    std::vector<const FileTensor*> tensors_;
    std::map<std::string, const FileTensor*> index_;
    std::vector<std::string> notices_;
};

constexpr uint64_t MAX_SHARD_BYTES = 5'000'000'000;  // transformers' default

// Writes `tensors` into `folder` as model.safetensors, or as shards of at most max_bytes (a larger tensor has
// one to itself) and their index. `write` is called once per tensor and writes its data.
void write_weight_files(const std::string& folder, const std::vector<NewTensor>& tensors, uint64_t max_bytes,
                        const std::function<void(const NewTensor&, SafetensorsWriter&)>& write);
