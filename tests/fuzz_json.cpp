// Any text as JSON: either Error(BadFile), or a value that is the same when it has been written and read again.
#include <cstdlib>

#include "utils/error.h"
#include "utils/json.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    try {
        const Json json = parse_json({reinterpret_cast<const char*>(data), size}, "in");
        if (parse_json(dump(json), "written") != json) abort();
    } catch (const Error& e) {
        if (e.code != Exit::BadFile || std::string(e.what()).starts_with("written")) abort();
    }
    return 0;
}
