// toml.h -- the part of TOML that a configuration needs: sections, strings, numbers, booleans, arrays.
//
// Sections are for the reader's order only: `[rollout] temperature = 1` and `temperature = 1` are the same
// key, and dotted keys count by their last part. Dates, inline tables and arrays of tables are refused.
#pragma once
#include <map>
#include <string>
#include <string_view>
#include <vector>

struct TomlValue {
    enum Kind { String, Integer, Float, Bool, Array };
    Kind kind = String;
    std::string text;  // what a string says; else the value as written, without underscores
    std::vector<TomlValue> items;
};

struct TomlItem {
    std::string key;
    int line;
    TomlValue value;
};

// All items in order. What is wrong is appended to `faults` as "where:line: ..." and skipped, so that all of
// it is found.
std::vector<TomlItem> parse_toml(std::string_view text, const std::string& where,
                                 std::vector<std::string>& faults);

// Every key, with hyphens, and its value as text, an array's items with commas between. What is wrong is skipped.
std::map<std::string, std::string> toml_texts(std::string_view text);

std::string toml_string(std::string_view text);  // quoted and escaped
