#include "inference/line_options.h"

#include <algorithm>
#include <cfloat>
#include <map>

#include "utils/json.h"
#include "utils/json_fields.h"
#include "utils/words.h"

namespace {

// One key of a line, by the name that the line has for it.
struct Field {
    const Json& line;
    const char* name;
    const std::string& where;
    const ModelConfig& config;
    const std::vector<int>& eos_ids;

    int integer(int low, int high = INT32_MAX) const { return int(get_int(line, name, where, low, high)); }
    double number(double low, double high, const char* expected) const {
        return get_number(line, name, where, low, high, expected);
    }
    bool flag() const { return get_bool(line, name, where); }
    template <class Value>  // parse: throws Error(Usage) that lists what is known
    Value word(Value parse(const std::string& name)) const {
        const std::string text = get_string(line, name, where);
        try {
            return parse(text);
        } catch (const Error& e) {
            fail(Exit::BadFile, "%s: %s", where.c_str(), e.what());
        }
    }
};

struct Key {
    const char* name;
    void (*read)(Decoding& d, const Field& field);
};

std::string preset_name(const std::string& name) {
    GenerateOptions unused;
    apply_preset(unused, name);
    return name;
}

void read_ignore_eos(Decoding& d, const Field& f) {
    if (f.flag())
        d.options.stop_ids.clear();
    else if (d.options.stop_ids.empty())
        d.options.stop_ids = f.eos_ids;
}

// In the order in which they are read: a preset before what it sets, a block before its steps.
constexpr Key KEYS[] = {
    {"preset", [](Decoding& d, const Field& f) { apply_preset(d.options, f.word(preset_name)); }},
    {"gen_length", [](Decoding& d, const Field& f) { d.options.gen_length = f.integer(1); }},
    {"block",
     [](Decoding& d, const Field& f) {
         const int block = f.integer(0, WHOLE_CANVAS);
         d.options.block = block ? block : f.config.B;
     }},
    {"steps", [](Decoding& d, const Field& f) { d.options.steps = f.integer(0, d.options.block); }},
    {"remasking", [](Decoding& d, const Field& f) { d.options.remasking = f.word(parse_remasking); }},
    {"threshold",
     [](Decoding& d, const Field& f) { d.options.threshold = f.number(0, 1, "a number from 0 to 1"); }},
    {"eb_threshold",
     [](Decoding& d, const Field& f) {
         d.options.eb_threshold = f.number(0, MOST_NATS, "a number, 0 to 1e9");
     }},
    {"factor",
     [](Decoding& d, const Field& f) { d.options.factor = f.number(0, MOST_FACTOR, "a number, 0 to 1e9"); }},
    {"order_temperature",
     [](Decoding& d, const Field& f) {
         d.options.order_temperature =
             float(f.number(0, MOST_TEMPERATURE, "a number, 0 (the best positions) to 1e6"));
     }},
    {"reveal_schedule", [](Decoding& d, const Field& f) { d.options.schedule = f.word(parse_schedule); }},
    {"eps",
     [](Decoding& d, const Field& f) {
         d.options.eps = float(f.number(0, 0.999999, "a number from 0 to below 1"));
     }},
    {"confidence", [](Decoding& d, const Field& f) { d.options.confidence = f.word(parse_confidence); }},
    {"draw", [](Decoding& d, const Field& f) { d.options.draw = f.word(parse_draw); }},
    {"cfg_scale",
     [](Decoding& d, const Field& f) {
         d.options.cfg_scale = float(f.number(0, MOST_GUIDANCE, "a number, 0 (no guidance) to 1000"));
     }},
    {"temperature",
     [](Decoding& d, const Field& f) {
         d.options.temperature = float(f.number(0, MOST_TEMPERATURE, "a number, 0 (greedy) to 1e6"));
     }},
    {"top_k", [](Decoding& d, const Field& f) { d.options.top_k = f.integer(0); }},
    {"top_p",
     [](Decoding& d, const Field& f) {
         d.options.top_p = float(f.number(FLT_MIN, 1, "a number above 0, up to 1 (off)"));
     }},
    {"cache", [](Decoding& d, const Field& f) { d.options.cache = f.word(parse_cache); }},
    {"further_horizon",
     [](Decoding& d, const Field& f) { d.options.further_horizon = f.integer(-1, 1 << 24); }},
    {"stop_ids",
     [](Decoding& d, const Field& f) {
         d.options.stop_ids = get_ints(f.line, f.name, f.where, 0, f.config.V - 1, "a token id");
         if (d.options.stop_ids.empty()) d.options.stop_ids = f.eos_ids;
     }},
    {"ignore_eos", read_ignore_eos},
    {"infill", [](Decoding& d, const Field& f) { d.options.infill = f.flag(); }},
    {"seed",
     [](Decoding& d, const Field& f) {
         d.options.seed = uint64_t(get_int(f.line, f.name, f.where, 0, INT64_MAX));
         d.own_seed = true;
     }},
    {"num_samples", [](Decoding& d, const Field& f) { d.num_samples = f.integer(1, 1 << 20); }},
};

// Options of the command line that someone might expect to find honoured.
constexpr const char* SAME_FOR_ALL[] = {"max_active", "max_rows", "kv_slots", "threads",
                                        "device",     "dtype",    "system"};

const Key* find_key(const std::string& name) {
    for (const Key& key : KEYS)
        if (name == key.name) return &key;
    return nullptr;
}

// "Top-K" is top_k misspelt, and so is "temprature"; a short word that differs in a letter is another word.
const Key* misspelt(const std::string& name) {
    const auto bare = [](const std::string& text) {
        std::string out;
        for (const char c : text)
            if (c != '-' && c != '_') out += char(tolower(static_cast<unsigned char>(c)));
        return out;
    };
    for (const Key& key : KEYS)
        if (edit_distance(bare(name), bare(key.name)) <= (std::string(key.name).size() - 1) / 6) return &key;
    return nullptr;
}

}  // namespace

Decoding read_line_options(const Json& line, const std::string& where, const Decoding& base,
                           const ModelConfig& config, const std::vector<int>& eos_ids, const Options& flags) {
    std::map<const Key*, std::string> given;  // in the order of KEYS
    for (const auto& [name, value] : line.items()) {
        if (value.is_null()) continue;
        const std::string canonical = underscores(flags.canonical(name));
        if (const Key* key = find_key(canonical)) {
            const auto [other, is_new] = given.emplace(key, name);
            if (!is_new)
                fail(Exit::BadFile, "%s: '%s' and '%s' are the same option", where.c_str(),
                     other->second.c_str(), name.c_str());
        } else if (std::find(std::begin(SAME_FOR_ALL), std::end(SAME_FOR_ALL), canonical) !=
                   std::end(SAME_FOR_ALL)) {
            fail(Exit::BadFile, "%s: '%s' is the same for all lines; give it on the command line (--%s)",
                 where.c_str(), name.c_str(), hyphens(canonical).c_str());
        } else if (const Key* meant = misspelt(name)) {
            fail(Exit::BadFile, "%s: unknown key '%s'; did you mean '%s'?", where.c_str(), name.c_str(),
                 meant->name);
        }
    }
    const auto ignore = given.find(find_key("ignore_eos")), stop = given.find(find_key("stop_ids"));
    if (ignore != given.end() && stop != given.end() && get_bool(line, ignore->second.c_str(), where))
        fail(Exit::BadFile, "%s: '%s' and '%s' exclude each other", where.c_str(), ignore->second.c_str(),
             stop->second.c_str());
    Decoding out = base;
    for (const auto& [key, name] : given) key->read(out, {line, name.c_str(), where, config, eos_ids});
    const std::vector<std::string> found =
        faults(out.options, config);  // of what line and command line say together
    if (!found.empty()) fail(Exit::BadFile, "%s: %s", where.c_str(), found[0].c_str());
    return out;
}
