// chat_template.h -- a conversation as the one text that a model was trained on. The Jinja programs of the
// models are written out as functions; each is tested against the text that the original renders.
#pragma once
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "tokenizer/tokenizer.h"
#include "utils/json.h"

struct Message {
    std::string role;  // system, user, assistant, tool
    std::string content;
    std::optional<std::string> reasoning = {};  // reasoning_content, where it is apart from the content
    Json tool_calls = Json::array();            // of {name, arguments} or {function: {name, arguments}}
};

struct ChatTemplate {
    enum Kind { Raw, Qwen3, Qwen25, Llada };
    Kind kind = Raw;
    std::string default_system;  // Qwen2.5: said where the conversation has no system message
};

struct ChatOptions {
    bool thinking = true;           // Qwen3: off opens the answer with an empty thought
    bool generation_prompt = true;  // ends with the opening of the assistant's turn
    bool parse_special =
        false;  // special tokens written in what people said become tokens, as Hugging Face has it
};

// `name`: auto, qwen3, qwen2.5, llada or raw. auto goes by the family (config.json's model_type, may be
// empty), else by the tokenizer; raw for the byte tokenizer. Throws Error(Usage) for another name, or where
// the tokenizer lacks the template's tokens.
ChatTemplate choose_chat_template(const std::string& name, std::string_view family,
                                  const Tokenizer& tokenizer);

// Throws Error(BadFile) naming `where` for anything but an array of messages.
std::vector<Message> parse_messages(const Json& messages, const std::string& where);
// Those of an object with a field `messages`. Beside them `tools`, which would be part of the prompt, are refused.
std::vector<Message> messages_of(const Json& object, const std::string& where);
Json to_json(const Message& message);

// What the template wrote and what people said, in order.
struct ChatPart {
    std::string text;
    bool said;
};
std::vector<ChatPart> render_chat(const ChatTemplate& chat, const std::vector<Message>& messages,
                                  const ChatOptions& options);
std::string chat_text(const ChatTemplate& chat, const std::vector<Message>& messages,
                      const ChatOptions& options);

// The ids of the whole text (merges may join what was said to what the template wrote); special tokens come
// from the template only, unless options.parse_special.
std::vector<int> encode_parts(const Tokenizer& tokenizer, const std::vector<ChatPart>& parts);
std::vector<int> encode_chat(const Tokenizer& tokenizer, const ChatTemplate& chat,
                             const std::vector<Message>& messages, const ChatOptions& options);

// What the assistant's message `answer` says behind a prompt that opens its turn, up to the end of the turn: its content and
// tool calls, with Qwen3 its reasoning before them where `thinking`. Throws Error(BadFile) naming `where` for what the template
// cannot say: nothing is left out.
std::string answer_text(const ChatTemplate& chat, const Message& answer, bool thinking,
                        const std::string& where);
// The ids of such a text. Added tokens that are not special (<think>, <tool_call>) are what a model writes itself, and become
// tokens; special ones stay text.
std::vector<int> encode_answer(const Tokenizer& tokenizer, std::string_view text);

// The token that ends a turn, a stop id; NO_TOKEN for raw.
int end_of_turn(const ChatTemplate& chat, const Tokenizer& tokenizer);
