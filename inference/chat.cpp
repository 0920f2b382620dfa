#include "inference/chat.h"

#include <algorithm>
#include <charconv>
#include <cstring>

#include "inference/infer_output.h"
#include "utils/files.h"
#include "utils/log.h"
#include "utils/timer.h"

static const char* HELP =
    R"(  /set NAME VALUE   temperature, top_k, top_p, gen_length, block, steps, remasking, threshold,
                    eb_threshold, factor, order_temperature, reveal_schedule, eps, confidence, draw,
                    cfg_scale, cache, further_horizon, seed, thinking (on, off)
  /show             these settings
  /system TEXT      the system message; without TEXT there is none
  /clear            begin a new conversation
  /undo             take the last message and its answer back
  /retry            answer the last message again
  /save FILE        write the conversation as JSON      /load FILE   go on with one
  /bye              end (also Ctrl-D); Ctrl-C ends an answer
  """               begins and ends a message of several lines)";

Chat::Chat(Engine& engine, const TextModel& text, const ModelConfig& config, const GenerateOptions& options,
           std::string system, bool thinking, FILE* out)
    : engine_(engine),
      text_(text),
      config_(config),
      options_(options),
      system_(std::move(system)),
      thinking_(thinking),
      out_(out) {}

bool Chat::take(const std::string& line) {
    try {
        if (line.starts_with("/")) {
            const size_t space = line.find(' ');
            const size_t rest = line.find_first_not_of(' ', space);
            command(line.substr(1, space - 1), rest == std::string::npos ? "" : line.substr(rest));
        } else if (!line.empty()) {
            say(line);
        }
    } catch (const Error& e) {
        log_error("%s", e.what());
    }
    return !over_;
}

void Chat::command(const std::string& name, const std::string& rest) {
    if (name == "bye" || name == "exit" || name == "quit") {
        over_ = true;
    } else if (name == "?" || name == "help") {
        log_info("%s", HELP);
    } else if (name == "set") {
        const size_t space = rest.find(' ');
        if (space == std::string::npos) fail(Exit::Usage, "/set NAME VALUE; /show lists them");
        set(rest.substr(0, space), rest.substr(rest.find_first_not_of(' ', space)));
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

template <class T>
static T number(const std::string& name, const std::string& text) {
    T value{};
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (error != std::errc() || end != text.data() + text.size())
        fail(Exit::Usage, "/set %s: '%s' is not a number of its kind", name.c_str(), text.c_str());
    return value;
}

void Chat::set(const std::string& name, const std::string& value) {
    GenerateOptions o = options_;
    if (name == "temperature" || name == "temp")
        o.temperature = number<float>(name, value);
    else if (name == "top_k")
        o.top_k = number<int>(name, value);
    else if (name == "top_p")
        o.top_p = number<float>(name, value);
    else if (name == "gen_length")
        o.gen_length = number<int>(name, value);
    else if (name == "block")
        o.block = number<int>(name, value);
    else if (name == "steps")
        o.steps = number<int>(name, value);
    else if (name == "threshold")
        o.threshold = number<double>(name, value);
    else if (name == "eb_threshold")
        o.eb_threshold = number<double>(name, value);
    else if (name == "factor")
        o.factor = number<double>(name, value);
    else if (name == "remasking")
        o.remasking = parse_remasking(value);
    else if (name == "order_temperature")
        o.order_temperature = number<float>(name, value);
    else if (name == "reveal_schedule")
        o.schedule = parse_schedule(value);
    else if (name == "eps")
        o.eps = number<float>(name, value);
    else if (name == "confidence")
        o.confidence = parse_confidence(value);
    else if (name == "cache")
        o.cache = parse_cache(value);
    else if (name == "further_horizon")
        o.further_horizon = number<int>(name, value);
    else if (name == "draw")
        o.draw = parse_draw(value);
    else if (name == "cfg_scale")
        o.cfg_scale = number<float>(name, value);
    else if (name == "seed")
        o.seed = number<uint64_t>(name, value);
    else if (name == "thinking" && (value == "on" || value == "off"))
        thinking_ = value == "on";
    else
        fail(Exit::Usage, "/set %s %s: there is no such setting; /show lists them", name.c_str(),
             value.c_str());
    const std::vector<std::string> found = faults(o, config_);
    if (!found.empty()) fail(Exit::Usage, "%s", found[0].c_str());
    options_ = o;
}

void Chat::show() const {
    const GenerateOptions& o = options_;
    log_info("temperature %g, top_k %d, top_p %g, seed %llu", double(o.temperature), o.top_k, double(o.top_p),
             (unsigned long long)o.seed);
    log_info(
        "gen_length %d, block %d, steps %d, remasking %s, threshold %g, eb_threshold %g, factor %g, "
        "confidence %s",
        o.gen_length, o.block_length(), o.steps_per_block(), name_of(o.remasking), o.threshold,
        o.eb_threshold, o.factor, name_of(o.confidence));
    log_info("reveal_schedule %s, eps %g, order_temperature %g, draw %s, cfg_scale %g", name_of(o.schedule),
             double(o.eps), double(o.order_temperature), name_of(o.draw), double(o.cfg_scale));
    log_info("cache %s, further_horizon %d", name_of(o.cache), o.further_horizon);
    log_info("thinking %s, system: %s", thinking_ ? "on" : "off", system_.empty() ? "none" : system_.c_str());
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
    if (!system_.empty()) all.push_back({{"role", "system"}, {"content", system_}});
    for (const Message& m : messages_) all.push_back({{"role", m.role}, {"content", m.content}});
    write_file_atomic(path, dump({{"messages", all}}) + "\n");
    log_info("%zu messages in %s", all.size(), path.c_str());
}

void Chat::load(const std::string& path) {
    const Json json = read_json(path);
    if (!json.is_object() || !has(json, "messages"))
        fail(Exit::BadFile, "%s: holds no 'messages'", path.c_str());
    std::vector<Message> all = parse_messages(json["messages"], path);
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
