// chat.h -- a conversation on a terminal: messages, commands, and the settings they change.
#pragma once
#include <cstdio>
#include <functional>

#include "inference/decoding_flags.h"
#include "inference/engine.h"
#include "inference/text_model.h"

class Chat {
  public:
    // Answers go to `out`, everything else to the log. With an engine that keeps its last keys only what is
    // new of a conversation is forwarded. Throws Error(Usage) where the options do not fit the model.
    Chat(Engine& engine, const TextModel& text, const ModelConfig& config, const DecodingFlags& decoding,
         uint64_t seed, std::string system, bool thinking, FILE* out);

    // One thing that was typed: a message, or a command. False: it is over.
    bool take(const std::string& line);
    std::function<bool()> should_stop;  // ends the answer that is being given

    const std::vector<Message>& messages() const { return messages_; }
    const GenerateOptions& options() const { return options_; }

  private:
    std::string help() const;
    void command(const std::string& name, const std::string& rest);
    void set(const std::string& name, const std::string& value);
    void show() const;
    void say(const std::string& text);
    void answer();
    void retry();
    void undo();
    void load(const std::string& path);
    void save(const std::string& path) const;
    std::vector<int> prompt_ids() const;

    Engine& engine_;
    const TextModel& text_;
    const ModelConfig& config_;
    DecodingFlags decoding_;
    GenerateOptions options_;  // what decoding_ means for the model
    std::string system_;
    bool thinking_;
    Options settings_;  // of /set: decoding_, its seed, thinking_
    FILE* out_;
    std::vector<Message> messages_;  // without the system message
    uint32_t answers_ = 0;           // so far: the next one's random stream
    bool over_ = false;
};

// Reads what is typed from `in` until the end of it or /bye; """ opens and closes a message of several lines.
// `prompt`: what is shown when it is the user's turn ("" where nobody looks).
void chat_loop(Chat& chat, FILE* in, const std::string& prompt);
