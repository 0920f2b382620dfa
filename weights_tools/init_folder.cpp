#include "weights_tools/init_folder.h"

#include <algorithm>
#include <map>

#include "utils/json.h"
#include "utils/signals.h"
#include "weights_tools/model_folder.h"
#include "weights_tools/presets.h"

// "256" and "true" are a number and a truth value, "[1, 2]" a list, what is no JSON is text.
static Json parse_value(const std::string& text) {
    try {
        return parse_json(text, "--set");
    } catch (const Error&) {
        return text;
    }
}

// "" or what is wrong.
static std::string set_field(Json& json, const std::string& assignment) {
    const size_t equals = assignment.find('=');
    if (equals == std::string::npos || equals == 0) return "--set " + assignment + ": write FIELD=VALUE";
    const std::string field = assignment.substr(0, equals);
    if (json.contains(field)) {
        json[field] = parse_value(assignment.substr(equals + 1));
        return "";
    }
    std::string known;
    for (const auto& [name, value] : json.items()) known += (known.empty() ? "" : ", ") + name;
    return "--set " + assignment + ": config.json of this preset has no such field, but " + known;
}

ModelConfig init_config(const std::string& preset, const Vocabulary& vocabulary,
                        const std::vector<std::string>& set) {
    ModelConfig config = model_preset(preset);
    if (vocabulary.rows) {
        config.V = vocabulary.rows;
        config.mask_id = vocabulary.mask_id;
        config.eos_ids = vocabulary.eos_ids;
    }
    CHECK(config.V > 0, "preset %s needs a tokenizer's vocabulary", preset.c_str());
    Json json = config_to_json(config);
    std::string faults;
    bool own_stops = false;
    for (const std::string& assignment : set) {
        const std::string fault = set_field(json, assignment);
        if (!fault.empty()) faults += (faults.empty() ? "" : "\n") + fault;
        own_stops = own_stops || assignment.starts_with("eos_token_id=");
    }
    ModelConfig parsed;
    try {
        parsed = parse_config(json, "config.json of preset " + preset);
    } catch (const Error& e) {
        faults += (faults.empty() ? "" : "\n") + std::string(e.what());
    }
    if (!faults.empty())
        throw Error(Exit::Usage, faults);  // a file of the user's making: faults of the options
    if (!own_stops) parsed.eos_ids = config.eos_ids;
    for (const int id : parsed.eos_ids)
        if (id >= parsed.V)
            fail(Exit::Usage, "vocab_size %d leaves no room for the stop id %d; --set eos_token_id too",
                 parsed.V, id);
    return parsed;
}

uint64_t weight_bytes(const ModelConfig& config, DType dtype) {
    return uint64_t(config.n_parameters()) * size_of(dtype);
}

void init_folder(const std::string& path, const ModelConfig& config, uint64_t seed, DType dtype,
                 const std::function<void(uint64_t)>& progress) {
    std::vector<NewTensor> tensors;
    std::map<std::string, TensorSpec> specs;
    for (const TensorSpec& spec : tensor_specs(config, Head::Policy)) {
        tensors.push_back({spec.name, dtype, spec.shape()});
        specs.emplace(spec.name, spec);
    }
    constexpr int64_t PIECE = 1 << 22;  // elements in memory at a time
    std::vector<char> buffer(size_t(PIECE) * size_of(dtype));
    uint64_t done = 0;
    write_weight_files(path, tensors, MAX_SHARD_BYTES, [&](const NewTensor& t, SafetensorsWriter& writer) {
        const TensorSpec& spec = specs.at(t.name);
        const int64_t rows_at_a_time = std::max<int64_t>(1, PIECE / spec.cols);
        for (int64_t r = 0; r < spec.rows; r += rows_at_a_time) {
            throw_if_interrupted("interrupted; nothing was written");
            const Tensor rows =
                tensor(buffer.data(), std::min(rows_at_a_time, spec.rows - r), spec.cols, dtype);
            initialize_rows(spec.canonical, rows, r, config, seed);
            writer.write(rows.data, rows.bytes());
            progress(done += rows.bytes());
        }
    });
    save_configs(path, config, "", dtype);
}
