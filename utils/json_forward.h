// json_forward.h -- the name of a JSON value, for headers that only pass one on: json.h takes a second to compile.
#pragma once
#include <nlohmann/json_fwd.hpp>

using Json = nlohmann::ordered_json;  // keeps the order of keys, so that what is written back reads as it was
