// load_tokenizer.cpp -- the tokenizer files of a Hugging Face folder.
#include <algorithm>
#include <climits>

#include "tokenizer/vocabulary.h"
#include "utils/error.h"
#include "utils/files.h"
#include "utils/json.h"

namespace {

// How to name a value in a message: its type where it is an object, else itself.
std::string name_of(const Json& value) {
    if (value.is_object() && value.contains("type")) return dump(value["type"]);
    return dump(value).substr(0, 200);
}

[[noreturn]] void refuse(const std::string& where, const char* field, const Json& value, const char* known) {
    fail(Exit::BadFile, "%s: %s %s is not supported (known: %s)", where.c_str(), field,
         name_of(value).c_str(), known);
}

bool flag(const Json& object, const char* field, bool otherwise, const std::string& where) {
    return has(object, field) ? get_bool(object, field, where) : otherwise;
}

void require_object(const Json& value, const std::string& where) {
    if (!value.is_object())
        fail(Exit::BadFile, "%s: expected an object, found %s", where.c_str(), name_of(value).c_str());
}

// ---- added tokens

AddedToken added_token(const Json& entry, int64_t id, const std::string& where) {
    require_object(entry, where);
    for (const char* field : {"lstrip", "rstrip", "single_word"}) {
        if (flag(entry, field, false, where)) {
            fail(Exit::BadFile, "%s: added token with %s is not supported", where.c_str(), field);
        }
    }
    if (id < 0 || id >= MAX_VOCABULARY)
        fail(Exit::BadFile, "%s: id %lld is outside 0..%d", where.c_str(), (long long)id, MAX_VOCABULARY - 1);
    return {int(id), get_string(entry, "content", where), flag(entry, "special", false, where),
            flag(entry, "normalized", false, where)};
}

int64_t integer_of(const std::string& text, const std::string& where) {
    if (text.empty() || text.size() > 9 || text.find_first_not_of("0123456789") != std::string::npos) {
        fail(Exit::BadFile, "%s: '%s' is not a token id", where.c_str(), text.c_str());
    }
    return std::stoll(text);
}

// "content" or {"content": ...}; empty where the field is absent or null.
std::string content_of(const Json& object, const char* field, const std::string& where) {
    if (!has(object, field)) return "";
    const Json& value = object[field];
    if (value.is_string()) return value.get<std::string>();
    require_object(value, where + ": " + field);
    return get_string(value, "content", where + ": " + field);
}

// bos, eos, ... and the list of further special tokens, which the table of added tokens need not have marked.
void read_special_names(const Json& config, const std::string& where, VocabularyBuilder& v) {
    const auto role = [&](const char* field, std::string& out) {
        const std::string content = content_of(config, field, where);
        if (content.empty()) return;
        if (!v.has_added(content) && v.id_of(content) != NO_TOKEN)
            v.set_added({v.id_of(content), content, true, false}, where);
        v.mark_special(content);
        out = content;
    };
    role("bos_token", v.definition.bos);
    role("eos_token", v.definition.eos);
    role("pad_token", v.definition.pad);
    role("mask_token", v.definition.mask);
    if (has(config, "additional_special_tokens") && config["additional_special_tokens"].is_array()) {
        for (const Json& token : config["additional_special_tokens"]) {
            if (token.is_string()) v.mark_special(token.get<std::string>());
        }
    }
}

void read_added_tokens(const std::string& folder, const Json& config, VocabularyBuilder& v) {
    const std::string config_path = folder + "/tokenizer_config.json",
                      table_path = folder + "/added_tokens.json";
    if (has(config, "added_tokens_decoder")) {
        const std::string where = config_path + ": added_tokens_decoder";
        require_object(config["added_tokens_decoder"], where);
        for (const auto& [key, entry] : config["added_tokens_decoder"].items()) {
            v.set_added(added_token(entry, integer_of(key, where), where + "." + key), where);
        }
    } else if (file_exists(table_path)) {
        const Json table = read_json(table_path);
        require_object(table, table_path);
        for (const auto& [content, id] : table.items()) {
            v.set_added({int(get_int(table, content.c_str(), table_path, 0, MAX_VOCABULARY - 1)), content,
                         false, false},
                        table_path);
        }
    }
    if (file_exists(folder + "/special_tokens_map.json")) {
        read_special_names(read_json(folder + "/special_tokens_map.json"),
                           folder + "/special_tokens_map.json", v);
    }
    read_special_names(config, config_path, v);
}

// ---- tokenizer.json

// True where a normalizer is NFC, false where it does nothing.
bool is_nfc(const Json& normalizer, const std::string& where) {
    if (normalizer.is_null()) return false;
    require_object(normalizer, where + ": normalizer");
    const std::string type = get_string(normalizer, "type", where + ": normalizer");
    if (type == "NFC") return true;
    if (type == "Sequence" && has(normalizer, "normalizers") && normalizer["normalizers"].is_array()) {
        bool nfc = false;
        for (const Json& part : normalizer["normalizers"]) nfc |= is_nfc(part, where);
        return nfc;
    }
    refuse(where, "normalizer", normalizer, "NFC, none");
}

bool is_byte_level(const Json& step, bool use_regex, const std::string& where) {
    if (!step.is_object() || !has(step, "type") || step["type"] != "ByteLevel") return false;
    if (flag(step, "add_prefix_space", true, where))
        fail(Exit::BadFile, "%s: pre_tokenizer ByteLevel with add_prefix_space is not supported",
             where.c_str());
    return flag(step, "use_regex", true, where) == use_regex;
}

PreTokenizer read_pre_tokenizer(const Json& value, const std::string& where) {
    constexpr const char* KNOWN =
        "ByteLevel of GPT-2; Split by the expression of Qwen2 or LLaDA, then ByteLevel";
    if (is_byte_level(value, true, where)) return PreTokenizer::Gpt2;
    if (!value.is_object() || !has(value, "type") || value["type"] != "Sequence" ||
        !has(value, "pretokenizers") || !value["pretokenizers"].is_array() ||
        value["pretokenizers"].size() != 2) {
        refuse(where, "pre_tokenizer", value, KNOWN);
    }
    const Json &split = value["pretokenizers"][0], &bytes = value["pretokenizers"][1];
    if (!is_byte_level(bytes, false, where)) refuse(where, "pre_tokenizer", bytes, KNOWN);
    if (!split.is_object() || !has(split, "type") || split["type"] != "Split" || !has(split, "pattern") ||
        !split["pattern"].is_object()) {
        refuse(where, "pre_tokenizer", split, KNOWN);
    }
    // Every character belongs to a match, so that removing what lies between matches is the same as isolating
    // them.
    const std::string behavior = get_string(split, "behavior", where + ": pre_tokenizer");
    const bool invert = flag(split, "invert", false, where);
    if (!(behavior == "Isolated" && !invert) && !(behavior == "Removed" && invert)) {
        fail(Exit::BadFile, "%s: pre_tokenizer Split with behavior %s%s is not supported", where.c_str(),
             behavior.c_str(), invert ? ", inverted" : "");
    }
    const std::string regex = get_string(split["pattern"], "Regex", where + ": pre_tokenizer pattern");
    PreTokenizer kind;
    if (!pre_tokenizer_of(regex, &kind))
        fail(Exit::BadFile, "%s: pre_tokenizer Split by the expression %s is not supported", where.c_str(),
             regex.c_str());
    return kind;
}

void read_model(const Json& model, const std::string& where, VocabularyBuilder& v) {
    require_object(model, where);
    // Very old files leave the type out; a BPE is the one that has merges.
    if (has(model, "type") ? model["type"] != "BPE" : !has(model, "merges"))
        refuse(where, "type", has(model, "type") ? model["type"] : Json("?"), "BPE");
    for (const char* field : {"dropout", "continuing_subword_prefix", "end_of_word_suffix"}) {
        if (has(model, field) && model[field] != "" && model[field] != 0.0) {
            fail(Exit::BadFile, "%s: %s %s is not supported", where.c_str(), field,
                 dump(model[field]).c_str());
        }
    }
    for (const char* field : {"byte_fallback", "ignore_merges"}) {
        if (flag(model, field, false, where))
            fail(Exit::BadFile, "%s: %s is not supported", where.c_str(), field);
    }
    for (const char* field : {"vocab", "merges"}) {
        if (!has(model, field)) fail(Exit::BadFile, "%s: %s is missing", where.c_str(), field);
    }
    require_object(model["vocab"], where + ".vocab");
    v.expect(model["vocab"].size());
    for (const auto& [spelling, id] : model["vocab"].items()) {
        if (!id.is_number_integer())
            fail(Exit::BadFile, "%s.vocab: the id of '%s' is %s", where.c_str(), spelling.c_str(),
                 name_of(id).c_str());
        v.add_token(spelling, id.get<int64_t>(), where + ".vocab");
    }
    if (!model["merges"].is_array()) fail(Exit::BadFile, "%s.merges: expected an array", where.c_str());
    const std::string merges = where + ".merges";
    size_t rank = 0;
    for (const Json& merge : model["merges"]) {
        if (merge.is_array() && merge.size() == 2 && merge[0].is_string() && merge[1].is_string()) {
            v.add_merge(merge[0].get_ref<const std::string&>(), merge[1].get_ref<const std::string&>(),
                        merges, rank++);
            continue;
        }
        const std::string_view pair =
            merge.is_string() ? merge.get_ref<const std::string&>() : std::string_view();
        const size_t space = pair.find(' ');
        if (space == std::string::npos || pair.find(' ', space + 1) != std::string::npos) {
            fail(Exit::BadFile, "%s:%zu: %s is neither \"left right\" nor [\"left\", \"right\"]",
                 merges.c_str(), rank, name_of(merge).c_str());
        }
        v.add_merge(pair.substr(0, space), pair.substr(space + 1), merges, rank++);
    }
}

void read_tokenizer_json(const std::string& path, VocabularyBuilder& v) {
    const Json root = read_json(path);
    require_object(root, path);
    const auto field = [&](const char* name) { return root.contains(name) ? root[name] : Json(); };
    v.definition.nfc = is_nfc(field("normalizer"), path);
    v.definition.pre_tokenizer = read_pre_tokenizer(field("pre_tokenizer"), path);
    const Json decoder = field("decoder");
    if (!decoder.is_object() || !has(decoder, "type") || decoder["type"] != "ByteLevel")
        refuse(path, "decoder", decoder, "ByteLevel");
    if (!root.contains("model")) fail(Exit::BadFile, "%s: model is missing", path.c_str());
    read_model(root["model"], path + ": model", v);
    if (!has(root, "added_tokens")) return;
    if (!root["added_tokens"].is_array())
        fail(Exit::BadFile, "%s: added_tokens: expected an array", path.c_str());
    for (const Json& entry : root["added_tokens"]) {
        const std::string where = path + ": added_tokens";
        require_object(entry, where);
        v.set_added(added_token(entry, get_int(entry, "id", where, 0, MAX_VOCABULARY - 1), where), where);
    }
}

// ---- vocab.json and merges.txt

void read_merges(const std::string& path, bool with_vocabulary, VocabularyBuilder& v) {
    const MappedFile file(path);
    const std::string_view text = file.view();
    if (!with_vocabulary) v.expect(text.size() / 8);  // bytes of a line, about
    size_t line_number = 0;
    for (size_t at = 0; at < text.size();) {
        const size_t end = std::min(text.find('\n', at), text.size());
        std::string_view line = text.substr(at, end - at);
        at = end + 1;
        line_number++;
        if (!line.empty() && line.back() == '\r') line.remove_suffix(1);
        // Only the first line can be a comment: later ones that begin with # are merges.
        if (line.empty() || (line_number == 1 && line.starts_with("#version"))) continue;
        const size_t space = line.find(' ');
        if (space == std::string_view::npos || space == 0 || space + 1 == line.size() ||
            line.find(' ', space + 1) != std::string_view::npos) {
            fail(Exit::BadFile, "%s:%zu: '%.80s' is not two tokens", path.c_str(), line_number,
                 std::string(line).c_str());
        }
        if (with_vocabulary) {
            v.add_merge(line.substr(0, space), line.substr(space + 1), path, line_number);
        } else {
            v.add_merge_and_token(line.substr(0, space), line.substr(space + 1), path, line_number);
        }
    }
}

void read_vocabulary_and_merges(const std::string& folder, const Json& config, VocabularyBuilder& v) {
    const std::string path = folder + "/tokenizer_config.json";
    if (!has(config, "tokenizer_class")) {
        fail(Exit::BadFile,
             "%s: tokenizer_class is missing; without it (or tokenizer.json) nothing says how text is cut",
             path.c_str());
    }
    const std::string kind = get_string(config, "tokenizer_class", path);
    if (kind == "Qwen2Tokenizer" || kind == "Qwen2TokenizerFast" || kind == "DreamTokenizer") {
        v.definition.pre_tokenizer = PreTokenizer::Qwen2;
        v.definition.nfc = true;
    } else if (kind == "GPT2Tokenizer" || kind == "GPT2TokenizerFast") {
        v.definition.pre_tokenizer = PreTokenizer::Gpt2;
    } else {
        fail(Exit::BadFile,
             "%s: tokenizer_class %s is not supported without tokenizer.json (known: Qwen2Tokenizer, "
             "DreamTokenizer, GPT2Tokenizer)",
             path.c_str(), kind.c_str());
    }
    if (flag(config, "add_prefix_space", false, path))
        fail(Exit::BadFile, "%s: add_prefix_space is not supported", path.c_str());
    const std::string vocabulary = folder + "/vocab.json";
    if (file_exists(vocabulary)) {
        const Json table = read_json(vocabulary);
        require_object(table, vocabulary);
        for (const auto& [spelling, id] : table.items()) {
            if (!id.is_number_integer())
                fail(Exit::BadFile, "%s: the id of '%s' is %s", vocabulary.c_str(), spelling.c_str(),
                     name_of(id).c_str());
            v.add_token(spelling, id.get<int64_t>(), vocabulary);
        }
        read_merges(folder + "/merges.txt", true, v);
    } else {
        v.add_alphabet();
        read_merges(folder + "/merges.txt", false, v);
    }
}

std::string read_chat_template(const std::string& folder, const Json& config) {
    if (file_exists(folder + "/chat_template.jinja")) return read_text(folder + "/chat_template.jinja");
    if (!has(config, "chat_template")) return "";
    const Json& value = config["chat_template"];
    if (value.is_string()) return value.get<std::string>();
    if (value.is_array()) {  // several, by name
        for (const Json& entry : value) {
            if (entry.is_object() && entry.value("name", "") == "default") return entry.value("template", "");
        }
    }
    return "";
}

}  // namespace

bool has_tokenizer(const std::string& folder) {
    return file_exists(folder + "/tokenizer.json") || file_exists(folder + "/merges.txt");
}

std::unique_ptr<Tokenizer> load_tokenizer(const std::string& where) {
    if (where == "bytes") return std::make_unique<Tokenizer>(byte_tokenizer_definition());
    if (!folder_exists(where))
        fail(Exit::BadFile, "tokenizer '%s': there is no such folder (or say 'bytes')", where.c_str());
    if (!has_tokenizer(where))
        fail(Exit::BadFile,
             "%s: holds neither tokenizer.json nor merges.txt; --tokenizer says where they are",
             where.c_str());
    VocabularyBuilder v;
    v.definition.name = where;
    Json config = Json::object();
    if (file_exists(where + "/tokenizer_config.json")) {
        config = read_json(where + "/tokenizer_config.json");
        require_object(config, where + "/tokenizer_config.json");
    }
    if (file_exists(where + "/tokenizer.json")) {
        read_tokenizer_json(where + "/tokenizer.json", v);
    } else {
        read_vocabulary_and_merges(where, config, v);
    }
    read_added_tokens(where, config, v);
    v.definition.chat_template = read_chat_template(where, config);
    return std::make_unique<Tokenizer>(v.finish());
}
