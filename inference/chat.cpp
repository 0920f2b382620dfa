#include "inference/chat.h"

#include "inference/infer_output.h"
#include "utils/files.h"
#include "utils/log.h"
#include "utils/option_entry.h"
#include "utils/timer.h"
#include "utils/words.h"

static const char* COMMANDS =
    R"(  /show             these settings
  /system TEXT      the system message; without TEXT there is none
  /clear            begin a new conversation
  /undo             take the last message and its answer back
  /retry            answer the last message again
  /save FILE        write the conversation as JSON      /load FILE   go on with one
  /bye              end (also Ctrl-D); Ctrl-C ends an answer
  """               begins and ends a message of several lines)";

Chat::Chat(Engine& engine, const TextModel& text, const ModelConfig& config, const DecodingFlags& decoding,
           uint64_t seed, std::string system, bool thinking, FILE* out)
    : engine_(engine),
      text_(text),
      config_(config),
      decoding_(decoding),
      options_(decoding.resolve(config, text.eos_ids, seed)),
      system_(std::move(system)),
      thinking_(thinking),
      settings_("chat", "Settings."),
      out_(out) {
    decoding_.options.seed = seed;
    decoding_.declare(settings_);
    settings_.add("--seed N", &decoding_.options.seed, "of every random number");
    settings_.add_choice("--thinking SWITCH", &thinking_, {{"on", true}, {"off", false}}, "think first");
}

static const char* BLANKS = " \t";

// "set  top_k 5 " is "set" and "top_k 5".
static std::pair<std::string, std::string> first_word(const std::string& text) {
    const size_t end = text.find_first_of(BLANKS), rest = text.find_first_not_of(BLANKS, end);
    if (rest == std::string::npos) return {text.substr(0, end), ""};
    return {text.substr(0, end), text.substr(rest, text.find_last_not_of(BLANKS) + 1 - rest)};
}

std::string Chat::help() const {
    std::string names;
    for (const OptionEntry* setting : settings_.entries())
        names += (names.empty() ? "" : ", ") + underscores(setting->name);
    return "  /set NAME VALUE   " + wrap(names, 20, 100) + "\n" + COMMANDS;
}

bool Chat::take(const std::string& line) {
    try {
        if (line.starts_with("/")) {
            const auto [name, rest] = first_word(line.substr(1));
            command(name, rest);
        } else if (!line.empty()) {
            say(line);
        }
    } catch (const Error& e) {
        for (const std::string& fault : split(e.what(), '\n')) log_error("%s", fault.c_str());
    }
    return !over_;
}

void Chat::command(const std::string& name, const std::string& rest) {
    if (name == "bye" || name == "exit" || name == "quit") {
        over_ = true;
    } else if (name == "?" || name == "help") {
        log_info("%s", help().c_str());
    } else if (name == "set") {
        const auto [setting, value] = first_word(rest);
        set(setting, value);
    } else if (name == "show" || name == "params") {
        show();
    } else if (name == "system") {
        system_ = rest;
    } else if (name == "clear") {
        messages_.clear();
    } else if (name == "undo") {
        undo();
    } else if (name == "retry") {
        retry();
    } else if (name == "save" || name == "load") {
        if (rest.empty()) fail(Exit::Usage, "/%s FILE", name.c_str());
        name == "save" ? save(rest) : load(rest);
    } else {
        fail(Exit::Usage, "/%s: there is no such command; /help lists them", name.c_str());
    }
}

void Chat::set(const std::string& name, const std::string& value) {
    OptionEntry* setting = settings_.find(name);
    if (!setting && !name.empty()) {
        std::string advice = "/show lists them";
        for (const OptionEntry* meant : settings_.entries())
            if (const std::string known = meant->misspelt(name); !known.empty())
                advice = "did you mean " + underscores(known) + "?";
        fail(Exit::Usage, "/set %s: there is no such setting; %s", name.substr(0, 60).c_str(),
             advice.c_str());
    }
    if (value.empty()) fail(Exit::Usage, "/set NAME VALUE; /show lists them");
    const std::string typed = "/set " + name + " " + value.substr(0, 60) + ": ";
    const DecodingFlags before = decoding_;
    const std::string expected = setting->assign(setting->words({value}));
    if (!expected.empty()) fail(Exit::Usage, "%sexpected %s", typed.c_str(), expected.c_str());
    if (setting->name == "stop-ids") decoding_.ignore_eos = false;
    if (setting->name == "block") decoding_.keep_block();
    try {
        options_ = decoding_.resolve(config_, text_.eos_ids, decoding_.options.seed);
    } catch (const Error& e) {
        decoding_ = before;
        std::string all;
        for (std::string fault : split(e.what(), '\n')) {
            // Of this setting, or of one that does not go with it.
            if (fault.starts_with(setting->shown() + " ")) fault.erase(0, fault.find(": ") + 2);
            all += (all.empty() ? "" : "\n") + typed + in_settings(fault, settings_);
        }
        throw Error(e.code, all);
    }
    // It may be given its effect by the next setting.
    for (OptionEntry* other : settings_.entries()) other->on_command_line = other == setting;
    Faults idle;
    decoding_.refuse_idle(settings_, false, idle);
    for (const std::string& why : idle.all())
        log_info("%s", in_settings(why, settings_, {{setting, name}}).c_str());
}

void Chat::show() const {
    std::string all;
    for (const OptionEntry* setting : settings_.entries()) {
        // Of a block that is the model's own people want to know the length.
        const std::string value =
            setting->name == "block" ? std::to_string(options_.block) : setting->value_text(false);
        if (!value.empty()) all += (all.empty() ? "" : " ") + underscores(setting->name) + "=" + value;
    }
    log_info("%s", wrap(all, 0, 100).c_str());
    log_info("system: %s", system_.empty() ? "none" : system_.c_str());
}

// A raw model knows no turns: every message stands for itself.
std::vector<int> Chat::prompt_ids() const {
    if (text_.chat.kind == ChatTemplate::Raw)
        return text_.encode_prompt(messages_.back().content, system_, thinking_);
    std::vector<Message> all;
    if (!system_.empty()) all.push_back(message("system", system_));
    all.insert(all.end(), messages_.begin(), messages_.end());
    return text_.encode_messages(all, thinking_);
}

void Chat::say(const std::string& text) {
    messages_.push_back(message("user", text));
    try {
        answer();
    } catch (...) {
        messages_.pop_back();
        throw;
    }
}

void Chat::answer() {
    const Request request = {prompt_ids(), answers_, options_};
    const Footprint need = footprint(int(request.prompt_ids.size()), options_, config_);
    if (need.shared_slots + need.own_slots > engine_.limits().kv_slots)
        fail(Exit::NoMemory,
             "the conversation has %zu tokens and the answer up to %d, the cache holds %d: /clear, /undo, a "
             "smaller "
             "/set gen_length, or start again with --kv-slots",
             request.prompt_ids.size(), options_.gen_length, engine_.limits().kv_slots);
    try {
        engine_.check(request);
    } catch (const Error& e) {
        throw Error(e.code, in_settings(e.what(), settings_));
    }
    const Prompt prompt{Json(), {}, ""};
    const Asked asked[] = {{&prompt, 0}};
    AnswerPrinter printer(out_, asked, text_, false, 0);
    Callbacks callbacks;
    callbacks.on_reveal = [&](int, const PartialResponse& so_far) { printer.reveal(so_far, options_); };
    callbacks.on_finish = [&](int request, const Trajectory& t) { printer.finish(request, t); };
    callbacks.should_stop = should_stop;
    const int64_t passes = engine_.forward_passes();
    Timer timer;
    const std::vector<Trajectory> done = engine_.generate({&request, 1}, callbacks);
    answers_++;
    messages_.push_back(message("assistant", text_.tokenizer->decode(done[0].output_ids, true)));
    log_info("[%s]", summary(done, engine_.forward_passes() - passes, timer.seconds()).c_str());
}

void Chat::undo() {
    if (messages_.empty()) fail(Exit::Usage, "/undo: nothing was said yet");
    while (!messages_.empty() && messages_.back().role == "assistant") messages_.pop_back();
    if (!messages_.empty()) messages_.pop_back();
}

void Chat::retry() {
    if (messages_.empty()) fail(Exit::Usage, "/retry: nothing was said yet");
    std::vector<Message> before = messages_;
    while (!messages_.empty() && messages_.back().role == "assistant") messages_.pop_back();
    try {
        if (messages_.empty()) fail(Exit::Usage, "/retry: there is no message to answer");
        answer();
    } catch (...) {
        messages_ = before;
        throw;
    }
}

void Chat::save(const std::string& path) const {
    Json all = Json::array();
    if (!system_.empty()) all.push_back(to_json(message("system", system_)));
    for (const Message& m : messages_) all.push_back(to_json(m));
    write_file_atomic(path, dump({{"messages", all}}) + "\n");
    log_info("%zu messages in %s", all.size(), path.c_str());
}

void Chat::load(const std::string& path) {
    const Json json = read_json(path);
    if (!json.is_object() || !has(json, "messages"))
        fail(Exit::BadFile, "%s: holds no 'messages'", path.c_str());
    std::vector<Message> all = messages_of(json, path);
    system_.clear();
    if (!all.empty() && all[0].role == "system") {
        system_ = all[0].content;
        all.erase(all.begin());
    }
    messages_ = std::move(all);
    log_info("%zu messages from %s", messages_.size(), path.c_str());
}

// ---- what is typed
// ------------------------------------------------------------------------------------------------------

static bool read_line(FILE* in, std::string& line) {
    line.clear();
    for (int c; (c = getc(in)) != EOF; line += char(c))
        if (c == '\n') return true;
    return !line.empty();
}

void chat_loop(Chat& chat, FILE* in, const std::string& prompt) {
    const auto ask = [&](const char* text) {
        if (!prompt.empty()) fputs(text, stderr);
    };
    std::string line;
    for (;;) {
        ask(prompt.c_str());
        if (!read_line(in, line)) break;
        if (!line.empty() && line.back() == '\r') line.pop_back();
        if (line.starts_with("\"\"\"")) {
            std::string text = line.substr(3), more;
            while (!text.ends_with("\"\"\"")) {
                ask("... ");
                if (!read_line(in, more)) return;
                text += "\n" + more;
            }
            line = text.substr(0, text.size() - 3);
            if (line.starts_with("\n")) line.erase(0, 1);
            if (line.ends_with("\n")) line.pop_back();
        }
        if (!chat.take(line)) return;
    }
    ask("\n");
}
