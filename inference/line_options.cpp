#include "inference/line_options.h"

#include <algorithm>
#include <cmath>

#include "utils/json.h"
#include "utils/option_entry.h"
#include "utils/words.h"

namespace {

// Options of the command line that someone might expect to find honoured.
constexpr const char* SAME_FOR_ALL[] = {"max-active", "max-rows", "kv-slots", "threads",      "device",
                                        "dtype",      "system",   "thinking", "chat-template"};

bool may_differ(const OptionEntry& option) {
    return option.section == DecodingFlags::SECTION || option.name == "infill" || option.name == "seed";
}

// A value as a configuration file has it; of a number that is written 4096.0 nobody knows whether it is whole.
TomlValue toml_value(const Json& value) {
    if (value.is_string()) return {TomlValue::String, value.get<std::string>(), {}};
    if (value.is_boolean()) return {TomlValue::Bool, dump(value), {}};
    if (value.is_number_integer()) return {TomlValue::Integer, dump(value), {}};
    if (value.is_number()) {
        const double x = value.get<double>();
        if (std::trunc(x) == x && std::fabs(x) <= 0x1p53) return {TomlValue::Integer, format("%.0f", x), {}};
        return {TomlValue::Float, dump(value), {}};
    }
    if (!value.is_array()) return {TomlValue::String, dump(value), {}};
    TomlValue list{TomlValue::Array, "", {}};
    for (const Json& item : value) list.items.push_back(toml_value(item));
    return list;
}

// A text named `thinking` is a data set's reasoning.
bool is_same_for_all(const OptionEntry& option, const Json& value) {
    if (option.name == "thinking" && value.is_string()) return false;
    return std::find(std::begin(SAME_FOR_ALL), std::end(SAME_FOR_ALL), option.name) != std::end(SAME_FOR_ALL);
}

}  // namespace

LineOptions::LineOptions(const InferOptions& base, uint64_t seed, const Options& flags,
                         const ModelConfig& config, const std::vector<int>& eos_ids)
    : base_(base), seed_(seed), config_(config), eos_ids_(eos_ids), table_("line", "Options of a line.") {
    line_.declare(table_, common_);
    table_.add_common(common_);
    for (const OptionEntry* option : flags.entries())
        if (option->on_command_line && may_differ(*option)) idle_.push_back({table_.find(option->name), ""});
}

Decoding LineOptions::read(const Json& line, const std::string& where) {
    given_.clear();
    for (const auto& [name, value] : line.items()) {
        if (value.is_null()) continue;
        const OptionEntry* option = table_.find(name);
        if (option && may_differ(*option)) {
            const auto [other, is_new] = given_.emplace(option, name);
            if (!is_new)
                fail(Exit::BadFile, "%s: '%s' and '%s' are the same option", where.c_str(),
                     other->second.c_str(), name.c_str());
        } else if (option && is_same_for_all(*option, value)) {
            fail(Exit::BadFile, "%s: '%s' is the same for all lines; give it on the command line (%s)",
                 where.c_str(), name.c_str(), option->shown().c_str());
        } else {
            for (const OptionEntry* meant : table_.entries())
                if (may_differ(*meant) || (is_same_for_all(*meant, value) && !value.is_string()))
                    if (const std::string known = meant->misspelt(name); !known.empty())
                        fail(Exit::BadFile, "%s: unknown key '%s'; did you mean '%s'?", where.c_str(),
                             name.c_str(), underscores(known).c_str());
        }
    }
    line_.decoding = base_.decoding;
    line_.num_samples = base_.num_samples;
    common_.seed = seed_;
    for (OptionEntry* option : table_.entries()) {
        const auto found = given_.find(option);
        option->set = option->on_command_line = found != given_.end();
        if (found == given_.end()) continue;
        const TomlValue value = toml_value(line[found->second]);
        std::vector<std::string> words;
        std::string expected = option->from_toml(value, words);
        if (expected.empty()) expected = option->assign(words);
        if (!expected.empty())
            fail(Exit::BadFile, "%s: field '%s' is %s, expected %s", where.c_str(), found->second.c_str(),
                 shorten(value).c_str(), expected.c_str());
    }
    const auto ignore = given_.find(table_.find("ignore-eos")), stop = given_.find(table_.find("stop-ids"));
    if (stop != given_.end()) {
        if (ignore == given_.end()) line_.decoding.ignore_eos = false;
        if (line_.decoding.ignore_eos)
            fail(Exit::BadFile, "%s: '%s' and '%s' exclude each other", where.c_str(), ignore->second.c_str(),
                 stop->second.c_str());
    }
    Faults faults;  // of what line and command line say together
    Decoding out = {{}, line_.num_samples, given_.contains(table_.find("seed"))};
    line_.refuse_idle(table_, faults);
    faults.attempt([&] { out.options = line_.decoding.resolve(config_, eos_ids_, common_.seed); });
    std::string all;
    for (const std::string& fault : faults.all())
        all += (all.empty() ? "" : "\n") + where + ": " + in_keys(fault);
    if (!all.empty()) throw Error(Exit::BadFile, all);
    note_idle();
    return out;
}

void LineOptions::note_idle() {
    std::erase_if(idle_, [&](auto& option) {
        if (given_.contains(option.first)) return false;
        for (OptionEntry* other : table_.entries())  // as if the line held this one alone
            other->set = other->on_command_line = other == option.first;
        Faults faults;
        line_.refuse_idle(table_, faults);
        if (faults.all().empty()) return true;
        option.second = faults.all()[0];
        return false;
    });
}

std::vector<std::string> LineOptions::idle(const std::string& file) const {
    std::vector<std::string> out;
    for (const auto& [option, why] : idle_)
        out.push_back(why.empty()
                          ? format("%s: every line of %s has its own", option->shown().c_str(), file.c_str())
                          : format("%s (so it is for all lines of %s)", why.c_str(), file.c_str()));
    return out;
}
