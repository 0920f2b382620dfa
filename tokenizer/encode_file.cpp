#include "tokenizer/encode_file.h"

#include "utils/error.h"
#include "utils/json.h"

void encode_jsonl(const std::string& path, const Tokenizer& tokenizer, const ChatTemplate& chat, FILE* out) {
    std::string answers;  // of all lines, or none
    read_jsonl(path, [&](const Json& line, const std::string& where) {
        if (!line.is_object() || has(line, "text") == has(line, "messages")) {
            fail(Exit::BadFile, "%s: expected an object with either text or messages", where.c_str());
        }
        std::vector<int> ids;
        if (has(line, "text")) {
            ids = tokenizer.encode(get_string(line, "text", where), true);
        } else {
            ChatOptions options{.thinking = true, .generation_prompt = true, .parse_special = true};
            if (has(line, "enable_thinking")) options.thinking = get_bool(line, "enable_thinking", where);
            ids = encode_chat(tokenizer, chat, messages_of(line, where), options);
        }
        Json answer = Json::object();
        answer["ids"] = ids;
        answers += dump(answer) + "\n";
    });
    if (fwrite(answers.data(), 1, answers.size(), out) != answers.size())
        fail(Exit::Runtime, "cannot write the ids of %s", path.c_str());
}
