#include "utils/json.h"

#include <charconv>
#include <cmath>
#include <unordered_set>
#include <utility>
#include <vector>

#include "utils/error.h"
#include "utils/files.h"

namespace {
constexpr size_t MAX_DEPTH = 64;

// Walks over the text and says how far the parser has come, which its events do not.
struct Cursor {
    using iterator_category = std::input_iterator_tag;
    using value_type = char;
    using difference_type = std::ptrdiff_t;
    using pointer = const char*;
    using reference = const char&;
    const char* at;
    const char** reached;
    reference operator*() const { return *at; }
    Cursor& operator++() {
        *reached = ++at;
        return *this;
    }
    bool operator==(const Cursor& other) const { return at == other.at; }
    bool operator!=(const Cursor& other) const { return at != other.at; }
};

// nlohmann's parser calls this for everything it reads; false stops it. Objects are built as vectors and
// handed over whole: looking every key up in an ordered_map would take quadratic time (a vocabulary has
// 150,000 keys).
class Builder : public nlohmann::json_sax<Json> {
  public:
    Json root;
    std::string fault;

    bool null() override { return add(nullptr); }
    bool boolean(bool value) override { return add(value); }
    bool number_integer(number_integer_t value) override { return add(value); }
    bool number_unsigned(number_unsigned_t value) override { return add(value); }
    bool number_float(number_float_t value, const string_t&) override { return add(value); }
    bool string(string_t& value) override { return add(std::move(value)); }
    bool binary(binary_t&) override { return refuse("binary value"); }
    bool start_object(size_t) override { return open(true); }
    bool start_array(size_t) override { return open(false); }
    bool key(string_t& name) override {
        Level& level = levels_.back();
        if (!level.keys.insert(name).second) return refuse("key '" + name.substr(0, 80) + "' occurs twice");
        level.members.emplace_back(std::move(name), nullptr);
        return true;
    }
    bool end_object() override {
        Json object = Json::object();
        auto& members = object.get_ref<Json::object_t&>();
        members.reserve(levels_.back().members.size());
        for (auto& [name, value] : levels_.back().members)
            members.emplace_back(std::move(name), std::move(value));
        levels_.pop_back();
        return add(std::move(object));
    }
    bool end_array() override {
        Json array = std::move(levels_.back().elements);
        levels_.pop_back();
        return add(std::move(array));
    }
    bool parse_error(size_t, const std::string&, const nlohmann::detail::exception& error) override {
        // "[json.exception.parse_error.101] parse error at line 1, column 2: syntax error while ...": the end
        // is enough.
        fault = error.what();
        for (const char* start : {"] ", "column "})
            if (const size_t at = fault.find(start); at != std::string::npos)
                fault.erase(0, at + std::string(start).size());
        if (!fault.empty() && isdigit(static_cast<unsigned char>(fault[0])))
            fault.erase(0, fault.find(": ") + 2);
        if (fault.size() > 200) fault = fault.substr(0, 200) + "...";
        return false;
    }

  private:
    struct Level {
        bool is_object;
        std::vector<std::pair<std::string, Json>> members;
        std::unordered_set<std::string> keys;
        Json::array_t elements;
    };
    std::vector<Level> levels_;

    bool refuse(std::string message) {
        fault = std::move(message);
        return false;
    }
    bool open(bool is_object) {
        if (levels_.size() == MAX_DEPTH) return refuse(format("nested deeper than %zu levels", MAX_DEPTH));
        levels_.push_back({is_object, {}, {}, {}});
        return true;
    }
    bool add(Json value) {
        if (levels_.empty())
            root = std::move(value);
        else if (levels_.back().is_object)
            levels_.back().members.back().second = std::move(value);
        else
            levels_.back().elements.push_back(std::move(value));
        return true;
    }
};

Json parse(std::string_view text, const std::string& where, size_t first_line) {
    const char* const begin = text.data();
    const char* reached = begin;
    Builder builder;
    if (text.find_first_not_of(" \t\r\n") == text.npos)
        fail(Exit::BadFile, "%s: is empty, expected JSON", where.c_str());
    if (const size_t zero = text.find('\0'); zero != text.npos) {  // which nlohmann takes for the end
        reached = begin + zero + 1;
        builder.fault = "zero byte";
    } else if (Json::sax_parse(Cursor{begin, &reached}, Cursor{begin + text.size(), &reached}, &builder)) {
        return std::move(builder.root);
    }
    size_t line = first_line, column = 0;
    for (const char* c = begin; c < reached; c++) {
        column++;
        if (*c == '\n' && c + 1 < reached) line++, column = 0;
    }
    fail(Exit::BadFile, "%s:%zu:%zu: %s", where.c_str(), line, column, builder.fault.c_str());
}

// The field, or an error that says what is there instead.
const Json& field_of(const Json& object, const char* field, const std::string& where, const char* wanted) {
    if (!object.is_object())
        fail(Exit::BadFile, "%s: expected an object with field '%s', found %s", where.c_str(), field,
             object.type_name());
    const auto it = object.find(field);
    if (it == object.end())
        fail(Exit::BadFile, "%s: field '%s' is missing (%s)", where.c_str(), field, wanted);
    return *it;
}

[[noreturn]] void wrong(const Json& value, const char* field, const std::string& where,
                        const std::string& wanted) {
    std::string shown = dump(value);
    if (shown.size() > 60) shown = shown.substr(0, 60) + "...";
    fail(Exit::BadFile, "%s: field '%s' is %s, expected %s", where.c_str(), field, shown.c_str(),
         wanted.c_str());
}
}  // namespace

Json parse_json(std::string_view text, const std::string& where) { return parse(text, where, 1); }

Json read_json(const std::string& path) { return parse(read_text(path), path, 1); }

void read_jsonl(const std::string& path, const std::function<void(const Json&, const std::string&)>& visit) {
    parse_jsonl(read_text(path), path, visit);
}

void parse_jsonl(std::string_view text, const std::string& path,
                 const std::function<void(const Json&, const std::string&)>& visit) {
    LineFaults faults(path);
    size_t line_number = 0;
    for (size_t at = 0; at < text.size();) {
        const size_t end = std::min(text.find('\n', at), text.size());
        const std::string_view line = text.substr(at, end - at);
        at = end + 1;
        line_number++;
        if (line.find_first_not_of(" \t\r") == std::string_view::npos) continue;
        faults.attempt(
            [&] { visit(parse(line, path, line_number), format("%s:%zu", path.c_str(), line_number)); });
    }
    faults.refuse();
}

void LineFaults::attempt(const std::function<void()>& part) {
    constexpr size_t TOLD = 10;
    try {
        part();
    } catch (const Error& e) {
        if (++n_ <= TOLD) first_.push_back(e);
    }
}

void LineFaults::refuse() const {
    if (first_.empty()) return;
    std::string all;
    for (const Error& e : first_) all += (all.empty() ? "" : "\n") + std::string(e.what());
    if (const size_t more = n_ - first_.size())
        all += format("\n%s: %zu more %s at fault", path_.c_str(), more, more == 1 ? "is" : "are");
    throw Error(first_[0].code, all);
}

int64_t get_int(const Json& object, const char* field, const std::string& where, int64_t low, int64_t high) {
    const Json& value = field_of(object, field, where, "an integer");
    const std::string wanted = format("an integer from %ld to %ld", long(low), long(high));
    int64_t number = 0;
    if (value.is_number_unsigned()) {
        const uint64_t large = value.get<uint64_t>();
        if (large > uint64_t(INT64_MAX)) wrong(value, field, where, wanted);
        number = int64_t(large);
    } else if (value.is_number_integer()) {
        number = value.get<int64_t>();
    } else if (value.is_number_float()) {  // 4096.0 is whole; beyond 2^53 a double no longer says which
                                           // integer is meant
        const double real = value.get<double>();
        if (std::trunc(real) != real || std::fabs(real) > 0x1p53) wrong(value, field, where, wanted);
        number = int64_t(real);
    } else {
        wrong(value, field, where, wanted);
    }
    if (number < low || number > high) wrong(value, field, where, wanted);
    return number;
}

double get_number(const Json& object, const char* field, const std::string& where) {
    const Json& value = field_of(object, field, where, "a number");
    if (!value.is_number()) wrong(value, field, where, "a number");
    return value.get<double>();
}

double get_number(const Json& object, const char* field, const std::string& where, double low, double high,
                  const char* expected) {
    const Json& value = field_of(object, field, where, expected);
    if (!value.is_number() || !(value.get<double>() >= low && value.get<double>() <= high))
        wrong(value, field, where, expected);
    return value.get<double>();
}

bool get_bool(const Json& object, const char* field, const std::string& where) {
    const Json& value = field_of(object, field, where, "true or false");
    if (!value.is_boolean()) wrong(value, field, where, "true or false");
    return value.get<bool>();
}

std::string get_string(const Json& object, const char* field, const std::string& where) {
    const Json& value = field_of(object, field, where, "a string");
    if (!value.is_string()) wrong(value, field, where, "a string");
    return value.get<std::string>();
}

bool has(const Json& object, const char* field) {
    if (!object.is_object()) return false;
    const auto it = object.find(field);
    return it != object.end() && !it->is_null();
}

Json json_floats(std::span<const float> values) {
    Json out = Json::array();
    for (const float value : values) {
        char text[32];
        double number = double(value);
        if (std::isfinite(value))
            std::from_chars(text, std::to_chars(text, text + sizeof text, value).ptr, number);
        out.push_back(number);
    }
    return out;
}

std::string dump(const Json& json) { return json.dump(-1, ' ', false, Json::error_handler_t::replace); }
