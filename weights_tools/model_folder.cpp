#include "weights_tools/model_folder.h"

#include <algorithm>
#include <filesystem>
#include <set>
#include <span>

#include "utils/error.h"
#include "utils/files.h"
#include "utils/json.h"
#include "weights_tools/names.h"

namespace fs = std::filesystem;

// ---- what a model consists of

std::vector<int64_t> TensorSpec::shape() const {
    return vector ? std::vector<int64_t>{cols} : std::vector<int64_t>{rows, cols};
}

std::vector<TensorSpec> tensor_specs(const ModelConfig& config, Head head) {
    Arena plan("shapes", host_memory());  // never allocated
    Parameters parameters;
    parameters.plan(plan, config, head);
    std::vector<TensorSpec> specs;
    parameters.for_each(config, [&](const std::string& name, const Tensor& t) {
        specs.push_back({folder_name(config.family, name), name, t.rows, t.cols, is_vector(name)});
    });
    return specs;
}

// ---- opening

// generation_config.json's stop ids; none where it has none.
static std::vector<int> generation_eos_ids(const std::string& path, int V) {
    const Json json = read_json(path);
    std::vector<int> ids;
    if (!has(json, "eos_token_id")) return ids;
    const Json& eos = json["eos_token_id"];
    for (const Json& id : eos.is_array() ? eos : Json::array({eos}))
        ids.push_back(int(get_int(Json{{"eos_token_id", id}}, "eos_token_id", path, 0, V - 1)));
    return ids;
}

std::string resolve_model_path(const std::string& path) {
    if (file_exists(path + "/config.json") || !file_exists(path + "/latest")) return path;
    std::string name = read_text(path + "/latest");
    while (!name.empty() && isspace(uint8_t(name.back()))) name.pop_back();
    return path + "/" + name;
}

// What is at a path that was taken for a model folder, and what to do; "": such a folder.
static std::string why_no_model(const std::string& path) {
    if (!file_exists(path)) return "there is no such folder; give a Hugging Face model folder";
    if (!folder_exists(path)) return "is a file; give the model's folder";
    if (file_exists(path + "/config.json")) return "";
    if (const std::string newest = resolve_model_path(path); newest != path)
        return "is a run's folder, not a model's; its newest checkpoint is " + newest;
    if (file_exists(path + "/config.toml"))
        return "is a run's folder, and `latest` in it, which names a checkpoint, is missing";
    return "holds no config.json; give a Hugging Face model folder";
}

ModelConfig read_model_config(const std::string& path) {
    const std::string file = path + "/config.json", generation = path + "/generation_config.json";
    if (const std::string why = why_no_model(path); !why.empty())
        fail(Exit::BadFile, "%s: %s", path.c_str(), why.c_str());
    ModelConfig config = parse_config(read_json(file), file);
    if (file_exists(generation))
        if (std::vector<int> ids = generation_eos_ids(generation, config.V); !ids.empty())
            config.eos_ids = std::move(ids);
    return config;
}

static std::string file_name(const FileTensor& t) { return fs::path(t.file->path()).filename().string(); }

// Everything about the tensors that does not fit the config, one line each.
static std::vector<std::string> tensor_faults(ModelFolder& folder, Head head) {
    std::vector<std::string> faults;
    std::set<std::string> expected;
    for (const TensorSpec& spec : tensor_specs(folder.config, head)) {
        expected.insert(spec.name);
        const std::string wanted = show_shape(spec.shape());
        const FileTensor* t = folder.weights.find(spec.name);
        if (!t)
            faults.push_back("tensor '" + spec.name + "' " + wanted + " is missing");
        else if (t->shape != spec.shape())
            faults.push_back(file_name(*t) + ": tensor '" + spec.name + "' is " + show_shape(t->shape) +
                             ", config.json says " + wanted);
        else if (t->dtype == DType::I32)
            faults.push_back(file_name(*t) + ": tensor '" + spec.name +
                             "' is I32, weights must be F32, BF16 or F16");
    }
    const std::string lm_head = folder_name(folder.config.family, "lm_head.weight");
    for (const FileTensor* t : folder.weights.tensors()) {
        if (expected.count(t->name) || t->name.ends_with(".rotary_emb.inv_freq")) continue;
        if (t->name == lm_head && head == Head::Value)
            folder.notices.push_back(lm_head + " is ignored: a value model has no use for it");
        else if (t->name == lm_head && folder.config.tied)
            folder.notices.push_back(lm_head + " is ignored: config.json ties the head to the embedding");
        else
            faults.push_back(file_name(*t) + ": tensor '" + t->name + "' " + show_shape(t->shape) +
                             " is in no model of this config.json");
    }
    return faults;
}

static DType weight_dtype(const WeightFiles& weights) {
    const FileTensor* first = nullptr;
    for (const FileTensor* t : weights.tensors()) {
        if (t->shape.size() != 2) continue;
        if (first && t->dtype != first->dtype) return DType::F32;
        first = t;
    }
    return first ? first->dtype : DType::F32;
}

static ModelFolder open_folder(const std::string& path, const Head* wanted) {
    ModelConfig config = read_model_config(path);
    ModelFolder folder{
        .path = path, .config = std::move(config), .weights = WeightFiles(path), .notices = {}};
    folder.is_value = folder.weights.find("value_head.weight");
    const Head head = wanted ? *wanted : folder.is_value ? Head::Value : Head::Policy;
    if (head == Head::Value && !folder.is_value)
        fail(Exit::BadFile,
             "%s: has no value_head.weight, so it is not a value model; make one with `convert "
             "value-init`",
             path.c_str());
    if (head == Head::Policy && folder.is_value)
        fail(Exit::BadFile, "%s: has value_head.weight, so it is a value model; a policy is needed here",
             path.c_str());
    folder.dtype = weight_dtype(folder.weights);
    folder.notices = folder.config.notices;
    for (const std::string& notice : folder.weights.notices()) folder.notices.push_back(notice);

    const std::vector<std::string> faults = tensor_faults(folder, head);
    if (faults.size() == 1) fail(Exit::BadFile, "%s: %s", path.c_str(), faults[0].c_str());
    if (faults.empty()) return folder;
    std::string text = format("%s: %zu tensors are not what config.json says:", path.c_str(), faults.size());
    for (const std::string& f : faults) text += "\n  " + f;
    throw Error(Exit::BadFile, text);
}

ModelFolder open_model_folder(const std::string& path, Head head) { return open_folder(path, &head); }
ModelFolder open_model_folder(const std::string& path) { return open_folder(path, nullptr); }

// ---- loading

static std::vector<Load> loads_of(const ModelFolder& folder, const Parameters& parameters) {
    std::vector<Load> loads;
    parameters.for_each(folder.config, [&](const std::string& name, const Tensor& t) {
        const FileTensor* from = folder.weights.find(folder_name(folder.config.family, name));
        CHECK(from, "%s was not checked for", name.c_str());
        loads.push_back({from, t});
    });
    return loads;
}

// Where all of a matrix lies in a file, in its type; null where it does not. `loads`: its parts, in order.
static const char* in_file(const Tensor& matrix, std::span<const Load> loads) {
    const char* begin = nullptr;
    int64_t bytes = 0;
    for (const auto& [from, to] : loads) {
        const char* data = from->dtype == matrix.dtype ? from->file->mapped(*from) : nullptr;
        if (!begin) begin = data;
        if (!data || data != begin + bytes) return nullptr;
        bytes += int64_t(from->bytes);
    }
    return begin;
}

void use_files(const ModelFolder& folder, Parameters& parameters) {
    const std::vector<Load> loads = loads_of(folder, parameters);
    auto part = loads.begin();
    for (Tensor* matrix : parameters.matrices()) {
        const char *begin = static_cast<char*>(matrix->data), *end = begin + matrix->bytes();
        const auto inside = [&](const Load& load) { return load.to.data >= begin && load.to.data < end; };
        const auto first = std::find_if(part, loads.end(), inside);
        part = std::find_if_not(first, loads.end(), inside);
        if (const char* data = in_file(*matrix, {first, part})) matrix->data = const_cast<char*>(data);
    }
}

void load_weights(const ModelFolder& folder, const Parameters& parameters, Ops& ops) {
    load_tensors(loads_of(folder, parameters), ops);
}

LoadedModel::LoadedModel(const std::string& path, Ops& ops, Head head, DType dtype)
    : folder(open_model_folder(path, head)), arena("weights", ops) {
    parameters.plan(arena, folder.config, head, dtype);
    arena.allocate();
    parameters.bind(folder.config);
    load_weights(folder, parameters, ops);
}

// ---- saving

// What must not be copied from one model folder to another: weights in any format, what describes them, and a
// trainer's own state.
static bool is_companion(const std::string& name) {
    if (name.starts_with(".") || name == "config.json" || name == "state.json" ||
        name.ends_with(".index.json"))
        return false;
    for (const char* weights :
         {".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".gguf", ".h5", ".msgpack", ".onnx"})
        if (name.ends_with(weights)) return false;
    return true;
}

void copy_companions(const std::string& source, const std::string& path) {
    std::error_code error;
    for (const fs::directory_entry& entry : fs::directory_iterator(source, error)) {
        const std::string name = entry.path().filename().string();
        std::error_code broken;
        if (!is_companion(name) || !entry.is_regular_file(broken)) continue;
        fs::copy_file(entry.path(), path + "/" + name, fs::copy_options::overwrite_existing, error);
        if (error) break;
    }
    if (error)
        fail(Exit::Runtime, "%s: cannot copy its files to %s: %s", source.c_str(), path.c_str(),
             error.message().c_str());
}

static const char* torch_name(DType dtype) {
    return dtype == DType::BF16 ? "bfloat16" : dtype == DType::F16 ? "float16" : "float32";
}

void save_configs(const std::string& path, const ModelConfig& config, const std::string& source,
                  DType dtype) {
    Json json = config.raw ? *config.raw : config_to_json(config);
    json[json.contains("dtype") ? "dtype" : "torch_dtype"] = torch_name(dtype);
    if (config.family == Family::Sdar || json.contains("block_size")) json["block_size"] = config.B;
    if (!source.empty()) copy_companions(source, path);
    write_file_atomic(path + "/config.json", json.dump(2) + "\n");
    const std::string generation = path + "/generation_config.json";
    if (config.eos_ids.empty() || file_exists(generation)) return;
    const Json stops = {{"eos_token_id", config.eos_ids}, {"pad_token_id", config.eos_ids.back()}};
    write_file_atomic(generation, stops.dump(2) + "\n");
}

// By the folder's names.
static std::vector<Save> saves_of(const Parameters& parameters, const ModelConfig& config, DType dtype) {
    std::vector<Save> saves;
    parameters.for_each(config, [&](const std::string& name, const Tensor& t) {
        saves.push_back({folder_name(config.family, name), t, is_vector(name), dtype});
    });
    return saves;
}

void save_model_folder(const std::string& path, const Parameters& parameters, const ModelConfig& config,
                       const std::string& source, DType dtype, Ops& ops) {
    std::map<std::string, Save> saves;
    std::vector<NewTensor> tensors;
    for (Save& save : saves_of(parameters, config, dtype)) {
        tensors.push_back(described(save));
        saves.emplace(save.name, save);
    }
    write_weight_files(path, tensors, MAX_SHARD_BYTES, [&](const NewTensor& t, SafetensorsWriter& writer) {
        write_tensor(writer, saves.at(t.name), ops);
    });
    save_configs(path, config, source, dtype);
}

void save_parameters(const std::string& file, const Parameters& parameters, const ModelConfig& config,
                     Ops& ops) {
    save_tensors(file, saves_of(parameters, config, DType::F32), ops);
}
