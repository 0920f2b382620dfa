#include "weights_tools/weight_files.h"

#include <filesystem>
#include <set>

#include "utils/error.h"
#include "utils/files.h"
#include "utils/json.h"

namespace {
constexpr size_t MAX_SHARDS = 10'000;  // far more than any model has; each is an open file

[[noreturn]] void refuse(const std::string& where, const std::vector<std::string>& faults) {
    if (faults.size() == 1) fail(Exit::BadFile, "%s: %s", where.c_str(), faults[0].c_str());
    std::string text = format("%s: %zu faults:", where.c_str(), faults.size());
    for (const std::string& f : faults) text += "\n  " + f;
    throw Error(Exit::BadFile, text);
}

std::string show(const Json& value) {
    const std::string text = dump(value);
    return text.size() > 80 ? text.substr(0, 77) + "..." : text;
}

// A plain name, so that an index cannot make us open files elsewhere.
bool is_plain_file_name(const std::string& name) {
    return !name.empty() && name[0] != '.' && name.size() < 256 && name.find('/') == std::string::npos &&
           name.find('\0') == std::string::npos;
}

// tensor name -> shard, checked as far as the index alone allows.
std::map<std::string, std::string> parse_index(const Json& index, const std::string& where) {
    if (!index.is_object() || !has(index, "weight_map") || !index["weight_map"].is_object())
        refuse(where, {"weight_map is missing: it must map every tensor to its file"});
    std::vector<std::string> faults;
    std::map<std::string, std::string> shard_of;
    std::set<std::string> shards;
    for (const auto& [name, shard] : index["weight_map"].items()) {
        if (!shard.is_string() || !is_plain_file_name(shard.get<std::string>())) {
            faults.push_back("tensor " + show(Json(name)) + " is in " + show(shard) +
                             ", which is not the name of a file beside the index");
            continue;
        }
        shard_of[name] = shard.get<std::string>();
        shards.insert(shard.get<std::string>());
    }
    if (shards.size() > MAX_SHARDS) faults = {format("names %zu files, over %zu", shards.size(), MAX_SHARDS)};
    if (shards.empty() && faults.empty()) faults = {"weight_map is empty"};
    if (!faults.empty()) refuse(where, faults);
    return shard_of;
}

std::string no_weights(const std::string& folder) {
    for (const char* other : {"pytorch_model.bin", "pytorch_model.bin.index.json"})
        if (file_exists(folder + "/" + other))
            return format("%s: has only %s; save it as safetensors first (pickled files can run code)",
                          folder.c_str(), other);
    return format("%s: has neither model.safetensors nor model.safetensors.index.json", folder.c_str());
}
}  // namespace

WeightFiles::WeightFiles(const std::string& path) : path_(path) {
    const std::string single = path + "/model.safetensors", index = single + ".index.json";
    if (!folder_exists(path))
        add(std::make_unique<SafetensorsFile>(path));
    else if (std::filesystem::is_symlink(single) ||
             file_exists(single))  // a dangling link is worth its own message
        add(std::make_unique<SafetensorsFile>(single));
    else if (std::filesystem::is_symlink(index) || file_exists(index))
        open_shards(index);
    else
        throw Error(Exit::BadFile, no_weights(path));
}

void WeightFiles::add(std::unique_ptr<SafetensorsFile> file) {
    for (const FileTensor& t : file->tensors()) {
        tensors_.push_back(&t);
        index_.emplace(t.name, &t);
    }
    files_.push_back(std::move(file));
}

void WeightFiles::open_shards(const std::string& index_path) {
    const Json index = read_json(index_path);
    const std::map<std::string, std::string> shard_of = parse_index(index, index_path);
    std::set<std::string> shards;
    for (const auto& [name, shard] : shard_of) shards.insert(shard);

    std::vector<std::string> faults;
    for (const std::string& shard : shards) {
        std::unique_ptr<SafetensorsFile> file;
        try {
            file = std::make_unique<SafetensorsFile>(path_ + "/" + shard);
        } catch (const Error& e) {
            faults.push_back(e.what());
            continue;
        }
        for (const FileTensor& t : file->tensors()) {
            const auto listed = shard_of.find(t.name);
            if (index_.count(t.name))
                faults.push_back("tensor '" + t.name + "' is in two files, " + shard + " and " +
                                 std::filesystem::path(index_[t.name]->file->path()).filename().string());
            else if (listed == shard_of.end())
                faults.push_back("tensor '" + t.name + "' is in " + shard + ", but not in the index");
            else if (listed->second != shard)
                faults.push_back("tensor '" + t.name + "' is in " + shard + ", the index says " +
                                 listed->second);
        }
        for (const auto& [name, where] : shard_of)
            if (where == shard && !file->find(name))
                faults.push_back("tensor '" + name + "' is not in " + shard + ", where the index says it is");
        add(std::move(file));
    }
    if (!faults.empty()) refuse(index_path, faults);

    if (!has(index, "metadata") || !has(index["metadata"], "total_size"))
        notices_.push_back(index_path + ": metadata.total_size is missing; transformers wants it");
    else if (index["metadata"]["total_size"] != bytes())
        notices_.push_back(index_path + ": total_size is " + show(index["metadata"]["total_size"]) +
                           ", the tensors have " + std::to_string(bytes()) + " bytes");
}

const FileTensor* WeightFiles::find(const std::string& name) const {
    const auto it = index_.find(name);
    return it == index_.end() ? nullptr : it->second;
}

uint64_t WeightFiles::bytes() const {
    uint64_t sum = 0;
    for (const FileTensor* t : tensors_) sum += t->bytes;
    return sum;
}

// ---- writing

static std::vector<std::vector<NewTensor>> split(const std::vector<NewTensor>& tensors, uint64_t max_bytes) {
    std::vector<std::vector<NewTensor>> shards(1);
    uint64_t bytes = 0;
    for (const NewTensor& t : tensors) {
        if (!shards.back().empty() && bytes + t.bytes() > max_bytes) {
            shards.emplace_back();
            bytes = 0;
        }
        shards.back().push_back(t);
        bytes += t.bytes();
    }
    return shards;
}

void write_weight_files(const std::string& folder, const std::vector<NewTensor>& tensors, uint64_t max_bytes,
                        const std::function<void(const NewTensor&, SafetensorsWriter&)>& write) {
    const std::vector<std::vector<NewTensor>> shards = split(tensors, max_bytes);
    Json::object_t weight_map;
    uint64_t total = 0;
    for (size_t i = 0; i < shards.size(); i++) {
        const std::string name = shards.size() == 1
                                     ? "model.safetensors"
                                     : format("model-%05zu-of-%05zu.safetensors", i + 1, shards.size());
        SafetensorsWriter writer(folder + "/" + name, shards[i]);
        for (const NewTensor& t : writer.tensors()) {
            write(t, writer);
            weight_map.emplace_back(t.name, name);
            total += t.bytes();
        }
        writer.commit();
    }
    if (shards.size() == 1) return;
    const Json index = {{"metadata", {{"total_size", total}}}, {"weight_map", Json(std::move(weight_map))}};
    write_file_atomic(folder + "/model.safetensors.index.json", index.dump(2) + "\n");
}
