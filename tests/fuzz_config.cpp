// Any text as a config.json: either Error(BadFile), or a config that survives being written and read again.
#include <cstdlib>

#include "model/config.h"
#include "utils/error.h"
#include "utils/json.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    try {
        const Json json = parse_json({reinterpret_cast<const char*>(data), size}, "config.json");
        const ModelConfig config = parse_config(json, "config.json");
        const ModelConfig again = parse_config(config_to_json(config), "written");
        if (again.n_parameters() != config.n_parameters() || again.n_parameters() <= 0) abort();
        if (again.mask_id != config.mask_id || again.B != config.B || again.HD != config.HD) abort();
    } catch (const Error& e) {
        if (e.code != Exit::BadFile || std::string(e.what()).starts_with("written")) abort();
    }
    return 0;
}
