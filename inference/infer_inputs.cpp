#include "inference/infer_inputs.h"

#include <sys/stat.h>
#include <unistd.h>

#include "inference/engine.h"
#include "utils/files.h"
#include "utils/json.h"
#include "utils/json_fields.h"
#include "utils/log.h"

namespace {

void need_tokenizer(const TextModel& text, const std::string& where) {
    if (!text.tokenizer)
        fail(Exit::Usage, "%s: the model has no tokenizer; give token ids (--prompt-ids), or --tokenizer DIR",
             where.c_str());
}

Prompt from_text(const Asking& asking, const std::string& words, const std::string& where,
                 Decoding decoding) {
    need_tokenizer(asking.text, where);
    // A text with gaps is a text, not a question.
    std::vector<int> ids = decoding.options.infill
                               ? asking.text.tokenizer->encode(words, true)
                               : asking.text.encode_prompt(words, asking.o.system, asking.o.text.thinking);
    return {Json(), std::move(ids), words, where, std::move(decoding)};
}

Prompt from_line(const Asking& asking, LineOptions& options, const Json& line, const std::string& where) {
    if (!line.is_object()) fail(Exit::BadFile, "%s: not a JSON object; write one a line", where.c_str());
    if (has(line, "prompt") + has(line, "messages") + has(line, "prompt_ids") != 1)
        fail(Exit::BadFile, "%s: give one of 'prompt', 'messages' and 'prompt_ids'", where.c_str());
    const Decoding decoding = options.read(line, where);
    Prompt out;
    out.where = where;
    out.decoding = decoding;
    if (has(line, "prompt_ids")) {
        out.ids = get_ints(line, "prompt_ids", where, 0, asking.config.V - 1, "a token id");
    } else if (has(line, "prompt")) {
        out = from_text(asking, get_string(line, "prompt", where), where, decoding);
    } else {
        need_tokenizer(asking.text, where);
        const std::vector<Message> messages = messages_of(line, where);
        out.ids = asking.text.encode_messages(messages, asking.o.text.thinking);
        if (!messages.empty()) out.shown = messages.back().content;
    }
    if (line.contains("id")) out.id = line["id"];
    return out;
}

std::vector<Prompt> from_jsonl(const Asking& asking) {
    std::vector<Prompt> out;
    LineOptions options(asking.o, asking.options.seed, asking.flags, asking.config, asking.text.eos_ids);
    bool any_text = false;
    read_jsonl(asking.o.input, [&](const Json& line, const std::string& where) {
        any_text |= has(line, "prompt");
        out.push_back(from_line(asking, options, line, where));
        const Prompt& prompt = out.back();
        check_prompt(prompt, true, [&] {
            try {
                check_request({prompt.ids, 0, prompt.decoding.options}, asking.config);
            } catch (const Error& e) {
                throw Error(e.code, options.in_keys(e.what()));
            }
        });
    });
    if (out.empty()) fail(Exit::BadFile, "%s: holds no lines", asking.o.input.c_str());
    for (const std::string& idle : options.idle(asking.o.input)) log_warning("%s", idle.c_str());
    if (!any_text && asking.flags.typed("--system"))
        log_warning("--system: stands in front of a 'prompt', and no line of %s has one",
                    asking.o.input.c_str());
    return out;
}

// Text from an editor or a pipe ends with a newline that nobody meant, and may begin with a byte order mark.
std::string as_meant(std::string text) {
    if (text.starts_with("\xEF\xBB\xBF")) text.erase(0, 3);
    if (!text.empty() && text.back() == '\n') text.pop_back();
    if (!text.empty() && text.back() == '\r') text.pop_back();
    return text;
}

}  // namespace

void check_prompt(const Prompt& prompt, bool in_file, const std::function<void()>& check) {
    try {
        check();
    } catch (const Error& e) {
        const Exit code = in_file && e.code == Exit::Usage ? Exit::BadFile : e.code;
        fail(code, "%s: %s", prompt.where.c_str(), e.what());
    }
}

std::vector<Prompt> read_prompts(const Asking& asking) {
    const InferOptions& o = asking.o;
    const Decoding decoding{asking.options, o.num_samples};
    const auto text = [&](const std::string& words, const char* where) {
        return std::vector{from_text(asking, words, where, decoding)};
    };
    if (!o.input.empty()) return from_jsonl(asking);
    if (o.prompt_ids_given) return {{Json(), o.prompt_ids, "", "--prompt-ids", decoding}};
    if (o.prompt_given) return text(o.prompt, "--prompt");
    if (!o.file.empty()) return text(as_meant(read_text(o.file)), "--file");
    struct stat in;
    if (!isatty(STDIN_FILENO) && fstat(STDIN_FILENO, &in) == 0) {
        const std::string words = as_meant(read_text("/dev/stdin"));
        if (!words.empty()) return text(words, "standard input");
    }
    if (!o.model.empty())
        fail(Exit::Usage, "say what to answer: --prompt TEXT, --file, --input, --prompt-ids or --chat");
    return text(sample_prompt(asking.folder), SAMPLE_PROMPT);
}
