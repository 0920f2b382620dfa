#include "inference/infer_inputs.h"

#include <sys/stat.h>
#include <unistd.h>

#include "utils/files.h"
#include "utils/json.h"
#include "utils/log.h"

namespace {

void need_tokenizer(const TextModel& text, const std::string& where) {
    if (!text.tokenizer)
        fail(Exit::Usage, "%s: the model has no tokenizer; give token ids (--prompt-ids), or --tokenizer DIR",
             where.c_str());
}

Prompt from_text(const InferOptions& o, const TextModel& text, const std::string& words,
                 const std::string& where) {
    need_tokenizer(text, where);
    // A text with gaps is a text, not a question.
    if (o.decoding.options.infill) return {Json(), text.tokenizer->encode(words, true), words};
    return {Json(), text.encode_prompt(words, o.system, o.text.thinking), words};
}

std::vector<int> ids_of(const Json& value, const std::string& where) {
    if (!value.is_array())
        fail(Exit::BadFile, "%s: 'prompt_ids' is not an array of token ids", where.c_str());
    std::vector<int> ids;
    for (const Json& id : value) {
        if (!id.is_number_integer() || id < 0 || id > INT32_MAX)
            fail(Exit::BadFile, "%s: 'prompt_ids' holds %s, which is no token id", where.c_str(),
                 dump(id).c_str());
        ids.push_back(id.get<int>());
    }
    return ids;
}

Prompt from_line(const InferOptions& o, const TextModel& text, const Json& line, const std::string& where) {
    if (!line.is_object()) fail(Exit::BadFile, "%s: not a JSON object", where.c_str());
    if (has(line, "prompt") + has(line, "messages") + has(line, "prompt_ids") != 1)
        fail(Exit::BadFile, "%s: give one of 'prompt', 'messages' and 'prompt_ids'", where.c_str());
    Prompt out;
    if (has(line, "prompt_ids")) {
        out.ids = ids_of(line["prompt_ids"], where);
    } else if (has(line, "prompt")) {
        out = from_text(o, text, get_string(line, "prompt", where), where);
    } else {
        need_tokenizer(text, where);
        const std::vector<Message> messages = parse_messages(line["messages"], where);
        out.ids = text.encode_messages(messages, o.text.thinking);
        if (!messages.empty()) out.shown = messages.back().content;
    }
    if (line.contains("id")) out.id = line["id"];
    return out;
}

std::vector<Prompt> from_jsonl(const InferOptions& o, const TextModel& text) {
    std::vector<Prompt> out;
    const std::string path = o.input == "-" ? "/dev/stdin" : o.input;
    read_jsonl(path, [&](const Json& line, const std::string& where) {
        out.push_back(from_line(o, text, line, where));
    });
    if (out.empty()) fail(Exit::BadFile, "%s: holds no lines", o.input.c_str());
    return out;
}

// Text from an editor or a pipe ends with a newline that nobody meant.
std::string without_last_newline(std::string text) {
    if (!text.empty() && text.back() == '\n') text.pop_back();
    if (!text.empty() && text.back() == '\r') text.pop_back();
    return text;
}

}  // namespace

std::vector<Prompt> read_prompts(const InferOptions& o, const TextModel& text, const std::string& folder) {
    if (!o.input.empty()) return from_jsonl(o, text);
    if (o.prompt_ids_given) return {{Json(), o.prompt_ids, ""}};
    if (o.prompt_given) return {from_text(o, text, o.prompt, "--prompt")};
    if (!o.file.empty()) return {from_text(o, text, without_last_newline(read_text(o.file)), "--file")};
    struct stat in;
    if (!isatty(STDIN_FILENO) && fstat(STDIN_FILENO, &in) == 0) {
        const std::string words = without_last_newline(read_text("/dev/stdin"));
        if (!words.empty()) return {from_text(o, text, words, "standard input")};
    }
    if (!o.model.empty())
        fail(Exit::Usage, "say what to answer: --prompt TEXT, --file, --input, --prompt-ids or --chat");
    const std::string words = sample_prompt(folder);
    log_info("model: %s, a small one that comes along and can do sums", folder.c_str());
    log_info("prompt: %s   (another with --prompt TEXT)", words.c_str());
    return {from_text(o, text, words, "sample prompt")};
}
