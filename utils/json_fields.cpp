#include "utils/json_fields.h"

#include <cmath>

#include "utils/error.h"
#include "utils/files.h"
#include "utils/json.h"

static const Json& list_of(const Json& object, const char* field, const std::string& where) {
    if (!object.is_object())
        fail(Exit::BadFile, "%s: expected a JSON object, found %s", where.c_str(), object.type_name());
    if (!has(object, field)) fail(Exit::BadFile, "%s: field '%s' is missing (a list)", where.c_str(), field);
    const Json& list = *object.find(field);
    if (!list.is_array())
        fail(Exit::BadFile, "%s: field '%s' is a %s, expected a list", where.c_str(), field,
             list.type_name());
    return list;
}

static std::string shown(const Json& value) {
    const std::string text = dump(value);
    return text.size() > 40 ? text.substr(0, 40) + "..." : text;
}

std::vector<int> get_ints(const Json& object, const char* field, const std::string& where, int64_t low,
                          int64_t high, const char* what) {
    const Json& list = list_of(object, field, where);
    std::vector<int> out;
    out.reserve(list.size());
    for (const Json& value : list) {
        const bool whole = value.is_number_integer() &&
                           !(value.is_number_unsigned() && value.get<uint64_t>() > uint64_t(INT64_MAX));
        if (!whole || value.get<int64_t>() < low || value.get<int64_t>() > high)
            fail(Exit::BadFile, "%s: field '%s'[%zu] is %s, expected %s, from %lld to %lld", where.c_str(),
                 field, out.size(), shown(value).c_str(), what, (long long)low, (long long)high);
        out.push_back(int(value.get<int64_t>()));
    }
    return out;
}

std::vector<double> get_numbers(const Json& object, const char* field, const std::string& where) {
    const Json& list = list_of(object, field, where);
    std::vector<double> out;
    out.reserve(list.size());
    for (const Json& value : list) {
        if (!value.is_number() || !std::isfinite(value.get<double>()))
            fail(Exit::BadFile, "%s: field '%s'[%zu] is %s, expected a finite number", where.c_str(), field,
                 out.size(), shown(value).c_str());
        out.push_back(value.get<double>());
    }
    return out;
}

double get_finite(const Json& object, const char* field, const std::string& where) {
    const double x = get_number(object, field, where);
    if (!std::isfinite(x)) fail(Exit::BadFile, "%s: field '%s' is not a finite number", where.c_str(), field);
    return x;
}

void read_data_file(const std::string& path,
                    const std::function<void(const Json& record, const std::string& where)>& visit) {
    const std::string text = read_text(path);
    const size_t first = text.find_first_not_of(" \t\r\n\xEF\xBB\xBF");  // a byte order mark is no part of it
    if (first == std::string::npos || text[first] != '[') return parse_jsonl(text, path, visit);
    LineFaults faults(path);
    size_t n = 0;
    for (const Json& record : parse_json(text, path))
        faults.attempt([&] { visit(record, format("%s: record %zu", path.c_str(), n++)); });
    faults.refuse();
}
