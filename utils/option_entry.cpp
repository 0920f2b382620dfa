#include "utils/option_entry.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <type_traits>

#include "utils/words.h"

namespace {
// ---- from text to values and back. A fault is returned as what was expected ("an integer"); "" is none.

template <class T>
struct is_vector : std::false_type {};
template <class T>
struct is_vector<std::vector<T>> : std::true_type {};
template <class T>
struct is_optional : std::false_type {};
template <class T>
struct is_optional<std::optional<T>> : std::true_type {};

template <class T>
const char* type_text() {
    if constexpr (is_vector<T>::value || is_optional<T>::value) return type_text<typename T::value_type>();
    if constexpr (std::is_same_v<T, bool>) return "true or false";
    if constexpr (std::is_same_v<T, uint64_t>) return "an integer, 0 or more";
    if constexpr (std::is_integral_v<T>) return "an integer";
    if constexpr (std::is_floating_point_v<T>) return "a number";
    return "a string";
}

template <class T>
std::string from_text(const std::string& text, T& out) {
    if constexpr (is_optional<T>::value) {
        typename T::value_type value{};
        std::string fault = from_text(text, value);
        if (fault.empty()) out = value;
        return fault;
    } else if constexpr (std::is_same_v<T, std::string>) {
        out = text;
        return "";
    } else if constexpr (std::is_same_v<T, bool>) {
        if (text != "true" && text != "false") return type_text<T>();
        out = text == "true";
        return "";
    } else {
        const char* begin = text.c_str() + (text.starts_with('+') ? 1 : 0);
        const char* end = text.c_str() + text.size();
        T value{};
        const auto [stop, error] = std::from_chars(begin, end, value);
        if (error == std::errc::result_out_of_range) return std::string(type_text<T>()) + " that fits";
        if (error != std::errc() || stop != end) return type_text<T>();
        if constexpr (std::is_floating_point_v<T>)
            if (std::isnan(value)) return type_text<T>();
        out = value;
        return "";
    }
}

template <class T>
std::string to_text(const T& value, bool as_toml) {
    if constexpr (is_vector<T>::value) {
        std::string text;
        for (const auto& item : value)
            text += (text.empty() ? "" : as_toml ? ", " : ",") + to_text(item, as_toml);
        return as_toml ? "[" + text + "]" : text;
    } else if constexpr (is_optional<T>::value) {
        return value ? to_text(*value, as_toml) : "";
    } else if constexpr (std::is_same_v<T, std::string>) {
        return as_toml ? toml_string(value) : value;
    } else if constexpr (std::is_same_v<T, bool>) {
        return value ? "true" : "false";
    } else {
        char text[64];
        return std::string(
            text, std::to_chars(text, text + sizeof text, value).ptr);  // the shortest that reads back
    }
}

std::string choices_text(const std::vector<std::string>& names) {
    std::string text = "one of ";
    for (const std::string& name : names) text += (name == names.front() ? "" : ", ") + name;
    return text;
}

std::string limits_text(const std::pair<double, double>& limits) {
    const auto bound = [](double x) {  // 1000000, not 1e+06
        return x == std::floor(x) && std::abs(x) < 1e15 ? format("%.0f", x) : to_text(x, false);
    };
    return std::isinf(limits.second) ? bound(limits.first) + " or more"
                                     : "from " + bound(limits.first) + " to " + bound(limits.second);
}

template <class T>
std::string check_value(const T& value, const OptionEntry& option) {
    if constexpr (is_optional<T>::value) {
        return value ? check_value(*value, option) : "";
    } else if constexpr (std::is_same_v<T, std::string>) {
        const std::string& kind = option.metavar;
        // Left alone, --out=~/run and a file's "~/run" would make a folder of the name ~.
        if ((value == "~" || value.starts_with("~/")) &&
            (kind == "DIR" || kind == "FILE" || kind.starts_with("RUN")))
            return "a path without ~, which a shell expands only where a word begins with it";
        if (option.allowed.empty() ||
            std::find(option.allowed.begin(), option.allowed.end(), value) != option.allowed.end())
            return "";
        return choices_text(option.allowed);
    } else if constexpr (std::is_arithmetic_v<T> && !std::is_same_v<T, bool>) {
        using Bound = std::conditional_t<std::is_same_v<T, float>, float, double>;  // 0.1f is not above 0.1
        if (!option.limits) return "";
        if (Bound(value) >= Bound(option.limits->first) && Bound(value) <= Bound(option.limits->second))
            return "";
        return std::string(type_text<T>()) + " " + limits_text(*option.limits);
    } else {
        return "";
    }
}

// Sets *to where there is no fault and `keep`.
template <class T>
std::string read(T* to, const std::vector<std::string>& texts, const OptionEntry& option, bool keep) {
    T value{};
    if constexpr (is_vector<T>::value) {
        for (const std::string& text : texts) {
            typename T::value_type item{};
            std::string fault = from_text(text, item);
            if (fault.empty()) fault = check_value(item, option);
            if (!fault.empty()) return fault;
            value.push_back(item);
        }
    } else {
        std::string fault = from_text(texts.back(), value);
        if (fault.empty()) fault = check_value(value, option);
        if (!fault.empty()) return fault;
    }
    if (keep) *to = value;
    return "";
}

std::string read(const Options::Choice& to, const std::vector<std::string>& texts, const OptionEntry&,
                 bool keep) {
    const auto it = std::find(to.names.begin(), to.names.end(), texts.back());
    if (it == to.names.end()) return choices_text(to.names);
    if (keep) to.set(size_t(it - to.names.begin()));
    return "";
}

template <class T>
bool kind_fits(TomlValue::Kind kind) {
    if constexpr (is_vector<T>::value || is_optional<T>::value)
        return kind_fits<typename T::value_type>(kind);
    if constexpr (std::is_same_v<T, bool>) return kind == TomlValue::Bool;
    if constexpr (std::is_integral_v<T>) return kind == TomlValue::Integer;
    if constexpr (std::is_floating_point_v<T>) return kind == TomlValue::Integer || kind == TomlValue::Float;
    return kind == TomlValue::String;
}
}  // namespace

Option& OptionEntry::range(double low, double high) {
    limits = {low, high};
    return *this;
}

Option& OptionEntry::choices(std::vector<std::string> values) {
    allowed = std::move(values);
    return *this;
}

Option& OptionEntry::required() {
    is_required = true;
    return *this;
}

Option& OptionEntry::not_in_config() {
    in_config = false;
    return *this;
}

bool OptionEntry::has_name(const std::string& key) const {
    return name == key || std::find(dashed.begin(), dashed.end(), "--" + key) != dashed.end();
}

std::string OptionEntry::misspelt(const std::string& key) const {
    const auto bare = [](const std::string& text) {
        std::string out;
        for (const char c : text)
            if (c != '-' && c != '_') out += char(tolower(static_cast<unsigned char>(c)));
        return out;
    };
    for (const std::string& spelling : dashed) {
        if (!spelling.starts_with("--")) continue;
        const std::string known = spelling.substr(2);
        if (edit_distance(bare(key), bare(known)) <= (known.size() - 1) / 6) return known;
    }
    return "";
}

std::string OptionEntry::choices_help() const {
    const auto* choice = std::get_if<Options::Choice>(&target);
    const std::vector<std::string>& names = choice ? choice->names : allowed;
    std::string text;
    bool all_named = true;
    for (const std::string& name : names) {
        text += (text.empty() ? ": " : ", ") + name;
        all_named = all_named && help.find(name) != std::string::npos;
    }
    return all_named ? "" : text;
}

std::string OptionEntry::fault(const std::vector<std::string>& words) const {
    return std::visit([&](const auto& to) { return read(to, words, *this, false); }, target);
}

std::string OptionEntry::assign(const std::vector<std::string>& words) {
    return std::visit([&](const auto& to) { return read(to, words, *this, true); }, target);
}

std::string OptionEntry::from_toml(const TomlValue& value, std::vector<std::string>& out) const {
    return std::visit(
        [&](const auto& to) -> std::string {
            using Held = std::decay_t<decltype(to)>;
            if constexpr (std::is_pointer_v<Held>) {
                using T = std::remove_pointer_t<Held>;
                const bool is_list = is_vector<T>::value;
                if (!is_list && value.kind == TomlValue::Array) return type_text<T>();
                const std::vector<TomlValue> one = {value};
                for (const TomlValue& item : value.kind == TomlValue::Array ? value.items : one) {
                    if (!kind_fits<T>(item.kind))
                        return std::string(is_list ? "a list, each " : "") + type_text<T>();
                    out.push_back(item.text);
                }
            } else {
                if (value.kind != TomlValue::String) return choices_text(to.names);
                out.push_back(value.text);
            }
            return "";
        },
        target);
}

std::vector<std::string> OptionEntry::words(const std::vector<std::string>& typed) const {
    const bool numbers = std::holds_alternative<std::vector<int>*>(target) ||
                         std::holds_alternative<std::vector<double>*>(target);
    if (!numbers) return typed;
    std::vector<std::string> all;
    for (const std::string& argument : typed)
        if (!argument.empty())
            for (const std::string& part : split(argument, ',')) {  // "1, 2"
                const size_t first = std::min(part.find_first_not_of(' '), part.size());
                all.push_back(part.substr(first, part.find_last_not_of(' ') + 1 - first));
            }
    return all;
}

std::string OptionEntry::value_text(bool as_toml) const {
    return std::visit(
        [&](const auto& to) -> std::string {
            if constexpr (std::is_pointer_v<std::decay_t<decltype(to)>>) {
                return to_text(*to, as_toml);
            } else {
                const size_t i = to.get();
                if (i >= to.names.size()) return "";
                return as_toml ? toml_string(to.names[i]) : to.names[i];
            }
        },
        target);
}

std::string shorten(const TomlValue& value) {
    if (value.kind == TomlValue::String) return toml_string(value.text.substr(0, 60));
    if (value.kind != TomlValue::Array) return value.text;
    std::string text = "[";
    for (size_t i = 0; i < value.items.size() && i < 8; i++)
        text += (i ? ", " : "") + shorten(value.items[i]);
    return text + (value.items.size() > 8 ? ", ...]" : "]");
}
