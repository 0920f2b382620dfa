// model_folder.h -- Hugging Face model folders: opening, checking, loading, saving.
#pragma once
#include <memory>
#include <string>
#include <vector>

#include "model/parameters.h"
#include "weights_tools/weight_files.h"

// A folder that has been read as far as headers go; no weights are in memory yet.
struct ModelFolder {
    std::string path;
    ModelConfig config;  // eos_ids are generation_config.json's where it has some
    WeightFiles weights;
    bool is_value = false;             // it holds value_head.weight
    DType dtype = DType::F32;          // of its matrices; F32 where they differ
    std::vector<std::string> notices;  // config.notices, and what is odd about the files
};
// Throws Error(BadFile) where config.json, an index or a file's header is unsound. `head` is what the folder
// is wanted for: ALL missing, unexpected and mis-shaped tensors are in one error.
ModelFolder open_model_folder(const std::string& path, Head head);
ModelFolder open_model_folder(const std::string& path);  // for whatever it holds
// The newest checkpoint where `path` is a run folder (its `latest` says which), else `path`.
std::string resolve_model_path(const std::string& path);
// Config and stop ids alone, for plans: no weights need be there.
ModelConfig read_model_config(const std::string& path);

// For weights in the host's memory that are only read while the folder is there: every matrix that lies in a file in
// the wanted type and in one piece is used where it lies in the mapped file. Its room in the arena is never touched, and
// so takes no memory. After allocate(), before bind() and load_weights().
void use_files(const ModelFolder& folder, Parameters& parameters);

// Fills the planned and allocated parameters (F32 or BF16, on ops' device) from the folder.
void load_weights(const ModelFolder& folder, const Parameters& parameters, Ops& ops);

// A model in memory of its own.
struct LoadedModel {
    LoadedModel(const std::string& path, Ops& ops, Head head, DType dtype);
    ModelFolder folder;
    Arena arena;
    Parameters parameters;
    const ModelConfig& config() const { return folder.config; }
};

// What a model's tensors are, in the order of Parameters::for_each, by their names in folders of its family.
struct TensorSpec {
    std::string name;       // in the folder
    std::string canonical;  // in Parameters
    int64_t rows, cols;
    bool vector;  // (cols) in files
    std::vector<int64_t> shape() const;
};
std::vector<TensorSpec> tensor_specs(const ModelConfig& config, Head head);

// Writes a complete Hugging Face folder `path`, which must exist and be private to the caller (an AtomicFolder's):
// weights in `dtype`, sharded where large; config.json (config.raw where there is one, with the type, block length and
// sizes brought up to date); generation_config.json; and every other file of `source` that is not weights (tokenizer,
// *.py, ...; "": none).
void save_model_folder(const std::string& path, const Parameters& parameters, const ModelConfig& config,
                       const std::string& source, DType dtype, Ops& ops);

// The parts of it, for programs that stream weights.
void save_configs(const std::string& path, const ModelConfig& config, const std::string& source, DType dtype);
void copy_companions(const std::string& source, const std::string& path);

// Gradients, or anything else shaped like the parameters, by the folder's tensor names, in fp32.
void save_parameters(const std::string& file, const Parameters& parameters, const ModelConfig& config,
                     Ops& ops);
