// json_fields.h -- lists in data files, with errors that name line, field and index.
#pragma once
#include <functional>
#include <string>
#include <vector>

#include "utils/json_forward.h"

// A list of whole numbers in [low, high]; Error(BadFile) otherwise. `what` says what the limits are: "an id
// below the vocabulary size".
std::vector<int> get_ints(const Json& object, const char* field, const std::string& where, int64_t low,
                          int64_t high, const char* what);
// A list of finite numbers.
std::vector<double> get_numbers(const Json& object, const char* field, const std::string& where);
double get_finite(const Json& object, const char* field, const std::string& where);

// Every record of a data file, which is a JSON array or JSON lines, with where = "path: record 3" or "path:3"; faults as
// read_jsonl() has them.
void read_data_file(const std::string& path,
                    const std::function<void(const Json& record, const std::string& where)>& visit);
