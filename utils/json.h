// json.h -- JSON through nlohmann, with errors that name file, line and field.
#pragma once
#include <cstdint>
#include <functional>
#include <nlohmann/json.hpp>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "utils/error.h"
#include "utils/json_forward.h"

// Strict: UTF-8, depth at most 64, no duplicate keys. Throws Error(BadFile) with `where`, line and column.
Json parse_json(std::string_view text, const std::string& where);
Json read_json(const std::string& path);

// What is wrong with the lines or records of a file, told together: with the first ten, and with how many more.
class LineFaults {
  public:
    explicit LineFaults(std::string path) : path_(std::move(path)) {}
    void attempt(const std::function<void()>& part);  // of one of them; keeps the Error that it throws
    void refuse() const;                              // throws what there is, with the code of the first

  private:
    const std::string path_;
    std::vector<Error> first_;
    size_t n_ = 0;
};

// Every non-empty line of a JSONL file, with where = "path:line". A line that is no JSON, or for which visit() throws an
// Error, keeps no other from being visited; what is wrong is thrown behind the last one.
void read_jsonl(const std::string& path,
                const std::function<void(const Json& line, const std::string& where)>& visit);
// The same of a text that was read from `path`.
void parse_jsonl(std::string_view text, const std::string& path,
                 const std::function<void(const Json& line, const std::string& where)>& visit);

// A field of the right type; throws Error(BadFile) naming where, field and value. Integers must be whole and
// fit.
int64_t get_int(const Json& object, const char* field, const std::string& where, int64_t low, int64_t high);
double get_number(const Json& object, const char* field, const std::string& where);
// The same within [low, high]; `expected` says so: "a number, 0 or more".
double get_number(const Json& object, const char* field, const std::string& where, double low, double high,
                  const char* expected);
bool get_bool(const Json& object, const char* field, const std::string& where);
std::string get_string(const Json& object, const char* field, const std::string& where);
bool has(const Json& object, const char* field);  // present and not null

// An array of the shortest decimals that read back as these floats: half as long as when they are written as doubles.
Json json_floats(std::span<const float> values);

// One line for stdout; invalid UTF-8 is replaced, never thrown over.
std::string dump(const Json& json);
