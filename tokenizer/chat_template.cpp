#include "tokenizer/chat_template.h"

#include <algorithm>

#include "tokenizer/byte_tokenizer.h"
#include "tokenizer/unicode.h"
#include "utils/error.h"
#include "utils/json.h"

namespace {

// ---- text

std::string_view strip_front(std::string_view text, char c) {
    text.remove_prefix(std::min(text.find_first_not_of(c), text.size()));
    return text;
}

std::string_view strip_back(std::string_view text, char c) {
    const size_t last = text.find_last_not_of(c);
    return text.substr(0, last == std::string_view::npos ? 0 : last + 1);
}

std::string_view trim(std::string_view text) {  // white space on both sides
    size_t begin = 0, end = 0;
    bool started = false;
    for (size_t at = 0; at < text.size();) {
        const Utf8 c = utf8_at(text, at);
        const CharClass kind = class_of(c.code_point);
        // Python's str.strip() also takes the four separators before the space
        const bool space = kind == CharClass::Space || kind == CharClass::Newline ||
                           (c.code_point >= 0x1C && c.code_point <= 0x1F);
        if (!space) {
            if (!started) begin = at;
            started = true;
            end = at + c.length;
        }
        at += c.length;
    }
    return text.substr(begin, end - begin);
}

// JSON as Python's json.dumps(ensure_ascii=False) writes it: a space after every comma and colon.
std::string python_json(const Json& value) {
    std::string out;
    if (value.is_object()) {
        for (const auto& [key, member] : value.items()) {
            out += (out.empty() ? "" : ", ") + dump(Json(key)) + ": " + python_json(member);
        }
        return "{" + out + "}";
    }
    if (value.is_array()) {
        for (const Json& item : value) out += (out.empty() ? "" : ", ") + python_json(item);
        return "[" + out + "]";
    }
    return dump(value);
}

// ---- templates

class Renderer {
  public:
    explicit Renderer(const std::vector<Message>& messages) : messages_(messages) {}
    std::vector<ChatPart> parts;

    void write(std::string_view text) { add(text, false); }
    void say(std::string_view text) { add(text, true); }
    void turn(std::string_view role, std::string_view content) {
        write("<|im_start|>" + std::string(role) + "\n");
        say(content);
        write("<|im_end|>\n");
    }

    // Qwen: answers of tools, those that follow each other in one turn of the user's.
    void tool_response(size_t i) {
        if (i == 0 || messages_[i - 1].role != "tool") write("<|im_start|>user");
        write("\n<tool_response>\n");
        say(messages_[i].content);
        write("\n</tool_response>");
        if (i + 1 == messages_.size() || messages_[i + 1].role != "tool") write("<|im_end|>\n");
    }

    // `string_as_is`: arguments that are a string are JSON already.
    void tool_calls(const Message& message, bool newline_first, bool string_as_is) {
        bool first = true;
        for (const Json& entry : message.tool_calls) {
            const Json& call = has(entry, "function") ? entry["function"] : entry;
            if (newline_first || !first) write("\n");
            first = false;
            write("<tool_call>\n{\"name\": \"");
            say(call["name"].get<std::string>());
            write("\", \"arguments\": ");
            const Json& arguments = call["arguments"];
            say(string_as_is && arguments.is_string() ? arguments.get<std::string>()
                                                      : python_json(arguments));
            write("}\n</tool_call>");
        }
    }

    void qwen3(const ChatOptions& options) {
        const size_t last_query = last_query_index();
        for (size_t i = 0; i < messages_.size(); i++) {
            const Message& message = messages_[i];
            if (message.role == "user" || message.role == "system") {
                turn(message.role, message.content);
            } else if (message.role == "assistant") {
                qwen3_answer(message, i > last_query, i + 1 == messages_.size());
            } else {
                tool_response(i);
            }
        }
        if (!options.generation_prompt) return;
        write("<|im_start|>assistant\n");
        if (!options.thinking) write("<think>\n\n</think>\n\n");
    }

    void qwen25(const ChatTemplate& chat, const ChatOptions& options) {
        if (messages_.empty() || messages_[0].role != "system") turn("system", chat.default_system);
        for (size_t i = 0; i < messages_.size(); i++) {
            const Message& message = messages_[i];
            if (message.role == "tool") {
                tool_response(i);
            } else if (message.tool_calls.empty()) {
                turn(message.role, message.content);
            } else {
                write("<|im_start|>assistant");
                if (!message.content.empty()) write("\n");
                say(message.content);
                tool_calls(message, true, false);
                write("<|im_end|>\n");
            }
        }
        if (options.generation_prompt) write("<|im_start|>assistant\n");
    }

    // Behind the opening of the turn.
    void answer(const Message& message, bool string_as_is) {
        if (message.reasoning) write("<think>\n" + thought(*message.reasoning) + "\n</think>\n\n");
        say(message.reasoning ? strip_front(message.content, '\n') : message.content);
        tool_calls(message, !message.content.empty(), string_as_is);
    }

    void llada(const ChatOptions& options) {
        const auto header = [&](const std::string& role) {
            write("<|start_header_id|>" + role + "<|end_header_id|>\n\n");
        };
        if (!messages_.empty()) write("<|startoftext|>");
        for (const Message& message : messages_) {
            header(message.role);
            say(trim(message.content));
            write("<|eot_id|>");
        }
        if (options.generation_prompt) header("assistant");
    }

  private:
    void add(std::string_view text, bool said) {
        if (text.empty()) return;
        if (!parts.empty() && parts.back().said == said) {
            parts.back().text += text;
        } else {
            parts.push_back({std::string(text), said});
        }
    }

    static std::string thought(std::string_view reasoning) {
        return std::string(strip_front(strip_back(reasoning, '\n'), '\n'));
    }

    // The last message that a user wrote (and not a tool in his name); answers before it lose their thoughts.
    size_t last_query_index() const {
        for (size_t i = messages_.size(); i-- > 0;) {
            const std::string& content = messages_[i].content;
            const bool tool = content.starts_with("<tool_response>") && content.ends_with("</tool_response>");
            if (messages_[i].role == "user" && !tool) return i;
        }
        return messages_.size() - 1;
    }

    void qwen3_answer(const Message& message, bool after_last_query, bool last) {
        std::string_view content = message.content, reasoning;
        const size_t close = content.rfind("</think>");
        if (message.reasoning) {
            reasoning = *message.reasoning;
        } else if (close != std::string_view::npos) {
            reasoning = strip_back(content.substr(0, content.find("</think>")), '\n');
            if (const size_t open = reasoning.rfind("<think>"); open != std::string_view::npos)
                reasoning.remove_prefix(open + 7);
            reasoning = strip_front(reasoning, '\n');
            content = strip_front(content.substr(close + 8), '\n');
        }
        write("<|im_start|>assistant\n");
        if (after_last_query && (last || !reasoning.empty())) {
            write("<think>\n");
            say(thought(reasoning));
            write("\n</think>\n\n");
            say(strip_front(content, '\n'));
        } else {
            say(content);
        }
        tool_calls(message, !content.empty(), true);
        write("<|im_end|>\n");
    }

    const std::vector<Message>& messages_;
};

struct Named {
    const char* name;
    ChatTemplate::Kind kind;
    std::vector<const char*> tokens;    // that the template is made of
    std::vector<const char*> families;  // model_type, in lower case
};

const std::vector<Named>& named_templates() {
    static const std::vector<Named> all = {
        {"qwen3",
         ChatTemplate::Qwen3,
         {"<|im_start|>", "<|im_end|>"},
         {"sdar", "sdar_moe", "qwen3", "qwen3_moe"}},
        {"qwen2.5", ChatTemplate::Qwen25, {"<|im_start|>", "<|im_end|>"}, {"dream", "qwen2"}},
        {"llada", ChatTemplate::Llada, {"<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"}, {"llada"}},
        {"raw", ChatTemplate::Raw, {}, {}},
    };
    return all;
}

bool has_tokens(const Tokenizer& tokenizer, const Named& named) {
    return std::all_of(named.tokens.begin(), named.tokens.end(),
                       [&](const char* t) { return tokenizer.id_of(t) != NO_TOKEN; });
}

ChatTemplate::Kind automatic(std::string_view family, const Tokenizer& tokenizer) {
    // The byte tokenizer, built in or from a folder it was written to.
    if (tokenizer.vocabulary_size() == BYTE_TOKENS && tokenizer.mask() == BYTE_MASK) return ChatTemplate::Raw;
    std::string lower(family);
    for (char& c : lower) c = c >= 'A' && c <= 'Z' ? char(c + 32) : c;
    for (const Named& named : named_templates()) {
        if (std::find(named.families.begin(), named.families.end(), lower) != named.families.end() &&
            has_tokens(tokenizer, named)) {
            return named.kind;
        }
    }
    // No family, or one that is not known: Qwen3 has tokens for its thoughts, Qwen2.5 has not.
    for (const Named& named : named_templates()) {
        if (!has_tokens(tokenizer, named)) continue;
        return named.kind == ChatTemplate::Qwen3 && tokenizer.id_of("<think>") == NO_TOKEN
                   ? ChatTemplate::Qwen25
                   : named.kind;
    }
    return ChatTemplate::Raw;
}

}  // namespace

ChatTemplate choose_chat_template(const std::string& name, std::string_view family,
                                  const Tokenizer& tokenizer) {
    ChatTemplate chat;
    if (name == "auto") {
        chat.kind = automatic(family, tokenizer);
    } else {
        const auto& all = named_templates();
        const auto named =
            std::find_if(all.begin(), all.end(), [&](const Named& n) { return name == n.name; });
        if (named == all.end()) {
            fail(Exit::Usage,
                 "chat template '%s': there is no such template (auto, qwen3, qwen2.5, llada, raw)",
                 name.c_str());
        }
        for (const char* token : named->tokens) {
            if (tokenizer.id_of(token) == NO_TOKEN) {
                fail(Exit::Usage, "chat template '%s': tokenizer '%s' has no token %s", name.c_str(),
                     tokenizer.definition().name.c_str(), token);
            }
        }
        chat.kind = named->kind;
    }
    const char* qwen = "You are Qwen, created by Alibaba Cloud. You are a helpful assistant.";
    const bool is_qwen = tokenizer.definition().chat_template.find(qwen) != std::string::npos;
    if (chat.kind == ChatTemplate::Qwen25)
        chat.default_system = is_qwen ? qwen : "You are a helpful assistant.";
    return chat;
}

std::vector<Message> parse_messages(const Json& messages, const std::string& where) {
    if (!messages.is_array()) fail(Exit::BadFile, "%s: messages is not an array", where.c_str());
    std::vector<Message> out;
    for (const Json& entry : messages) {
        const std::string at = format("%s: messages[%zu]", where.c_str(), out.size());
        if (!entry.is_object()) fail(Exit::BadFile, "%s is not an object", at.c_str());
        Message message;
        message.role = get_string(entry, "role", at);
        const bool known = message.role == "system" || message.role == "user" ||
                           message.role == "assistant" || message.role == "tool";
        if (!known)
            fail(Exit::BadFile, "%s: role '%s' is none of system, user, assistant, tool", at.c_str(),
                 message.role.c_str());
        if (has(entry, "tool_calls")) message.tool_calls = entry["tool_calls"];
        // the content of a message that only calls tools may be null
        if (message.tool_calls.empty() || has(entry, "content"))
            message.content = get_string(entry, "content", at);
        if (has(entry, "reasoning_content")) message.reasoning = get_string(entry, "reasoning_content", at);
        if (!message.tool_calls.is_array() || (!message.tool_calls.empty() && message.role != "assistant")) {
            fail(Exit::BadFile, "%s: tool_calls must be an array in a message of the assistant", at.c_str());
        }
        for (const Json& call : message.tool_calls) {
            const Json& function = has(call, "function") ? call["function"] : call;
            if (!function.is_object() || !has(function, "name") || !function["name"].is_string() ||
                !function.contains("arguments")) {
                fail(Exit::BadFile, "%s: a tool call needs name and arguments", at.c_str());
            }
        }
        out.push_back(std::move(message));
    }
    return out;
}

std::vector<Message> messages_of(const Json& object, const std::string& where) {
    if (has(object, "tools") && !object["tools"].empty())
        fail(Exit::BadFile,
             "%s: 'tools' are not supported; describe them in the system message, as the model's template "
             "does, and leave the field out",
             where.c_str());
    return parse_messages(object["messages"], where);
}

Json to_json(const Message& message) {
    Json out = {{"role", message.role}, {"content", message.content}};
    if (message.reasoning) out["reasoning_content"] = *message.reasoning;
    if (!message.tool_calls.empty()) out["tool_calls"] = message.tool_calls;
    return out;
}

std::vector<ChatPart> render_chat(const ChatTemplate& chat, const std::vector<Message>& messages,
                                  const ChatOptions& options) {
    Renderer out(messages);
    switch (chat.kind) {
        case ChatTemplate::Raw:
            for (const Message& message : messages) out.say(message.content);
            break;
        case ChatTemplate::Qwen3: out.qwen3(options); break;
        case ChatTemplate::Qwen25: out.qwen25(chat, options); break;
        case ChatTemplate::Llada:
            for (const Message& message : messages) {
                if (message.role == "tool" || !message.tool_calls.empty())
                    fail(Exit::Usage, "chat template 'llada' knows no tools");
            }
            out.llada(options);
            break;
    }
    return out.parts;
}

std::string chat_text(const ChatTemplate& chat, const std::vector<Message>& messages,
                      const ChatOptions& options) {
    std::string out;
    for (const ChatPart& part : render_chat(chat, messages, options)) out += part.text;
    return out;
}

std::string answer_text(const ChatTemplate& chat, const Message& answer, bool thinking,
                        const std::string& where) {
    const bool qwen3 = chat.kind == ChatTemplate::Qwen3, qwen = qwen3 || chat.kind == ChatTemplate::Qwen25;
    if (answer.reasoning && !qwen3)
        fail(Exit::BadFile,
             "%s: reasoning_content: only the template qwen3 has a place for it; put it into content, or "
             "leave "
             "it out",
             where.c_str());
    if (answer.reasoning && !thinking)
        fail(Exit::BadFile, "%s: reasoning_content: --thinking off leaves no place for it; use --thinking on",
             where.c_str());
    if (!answer.tool_calls.empty() && !qwen)
        fail(Exit::BadFile, "%s: tool_calls: only the templates qwen3 and qwen2.5 have a place for them",
             where.c_str());
    const std::vector<Message> messages = {answer};
    Renderer out(messages);
    out.answer(answer, qwen3);
    std::string text;
    for (const ChatPart& part : out.parts) text += part.text;
    return text;
}

namespace {

// Ids of a text that comes in parts: merges may join one to the next.
class Encoder {
  public:
    explicit Encoder(const Tokenizer& tokenizer) : tokenizer_(tokenizer) {}
    void text(std::string_view text) { run_ += text; }
    // A text whose added tokens are tokens; without `special` those that are special stay text.
    void marked(std::string_view text, bool special) {
        for (const Tokenizer::Segment& segment : tokenizer_.segments(text)) {
            if (segment.id == NO_TOKEN || (!special && tokenizer_.is_special(segment.id))) {
                run_ += segment.text;
            } else {
                end_run();
                ids_.push_back(segment.id);
            }
        }
    }
    std::vector<int> ids() {
        end_run();
        return std::move(ids_);
    }

  private:
    void end_run() {
        tokenizer_.encode(run_, false, ids_);
        run_.clear();
    }
    const Tokenizer& tokenizer_;
    std::string run_;  // text since the last token
    std::vector<int> ids_;
};

}  // namespace

std::vector<int> encode_answer(const Tokenizer& tokenizer, std::string_view text) {
    Encoder out(tokenizer);
    out.marked(text, false);
    return out.ids();
}

std::vector<int> encode_parts(const Tokenizer& tokenizer, const std::vector<ChatPart>& parts) {
    Encoder out(tokenizer);
    for (const ChatPart& part : parts) part.said ? out.text(part.text) : out.marked(part.text, true);
    return out.ids();
}

std::vector<int> encode_chat(const Tokenizer& tokenizer, const ChatTemplate& chat,
                             const std::vector<Message>& messages, const ChatOptions& options) {
    if (options.parse_special) return tokenizer.encode(chat_text(chat, messages, options), true);
    return encode_parts(tokenizer, render_chat(chat, messages, options));
}

int end_of_turn(const ChatTemplate& chat, const Tokenizer& tokenizer) {
    switch (chat.kind) {
        case ChatTemplate::Qwen3:
        case ChatTemplate::Qwen25: return tokenizer.id_of("<|im_end|>");
        case ChatTemplate::Llada: return tokenizer.id_of("<|eot_id|>");
        case ChatTemplate::Raw: break;
    }
    return NO_TOKEN;
}
