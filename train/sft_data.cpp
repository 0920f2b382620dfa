#include "train/sft_data.h"

#include "utils/error.h"
#include "utils/json.h"
#include "utils/json_fields.h"

namespace {

// Turns one line into an example.
class LineReader {
  public:
    LineReader(const TextModel& text, const SftDataOptions& options, const RecordLimits& limits)
        : text_(text), options_(options), limits_(limits) {}

    SftExample read(const Json& json, const std::string& where) const {
        if (!json.is_object())
            fail(Exit::BadFile, "%s: expected a JSON object, found %s", where.c_str(), json.type_name());
        SftExample e = has(json, "prompt_ids") ? from_ids(json, where)
                       : has(json, "messages") ? from_messages(json, where)
                                               : from_text(json, where);
        if (e.response_ids.empty())
            fail(Exit::BadFile, "%s: the response is empty: there is nothing to train on", where.c_str());
        if (options_.needs_step_map && e.step_map.empty())
            fail(Exit::BadFile, "%s: field 'step_map' is missing, which --method trace trains",
                 where.c_str());
        e.response_ids.insert(e.response_ids.end(), size_t(options_.pad_tokens),
                              options_.pad_tokens ? end_id(where) : 0);
        if (!e.step_map.empty())  // padding is revealed last
            for (int k = 0; k < options_.pad_tokens; k++)
                e.step_map.push_back(*std::max_element(e.step_map.begin(), e.step_map.end()) + 1);
        e.canvas = limits_.block ? 0 : std::max(0, options_.canvas - int(e.response_ids.size()));
        return e;
    }

  private:
    int end_id(const std::string& where) const {
        const int turn = text_.tokenizer ? end_of_turn(text_.chat, *text_.tokenizer) : NO_TOKEN;
        if (turn != NO_TOKEN) return turn;
        if (text_.eos_ids.empty())
            fail(Exit::BadFile,
                 "%s: the model names no end-of-text id (config.json: eos_token_id) to end a response with",
                 where.c_str());
        return text_.eos_ids[0];
    }

    void need_tokenizer(const std::string& where) const {
        if (!text_.tokenizer)
            fail(Exit::BadFile,
                 "%s: text needs a tokenizer, which the model's folder lacks: name one with --tokenizer DIR",
                 where.c_str());
    }

    void set_response(SftExample& e, const std::string& response, const std::string& where) const {
        e.response_ids = encode_answer(*text_.tokenizer, response);
        e.response_ids.push_back(end_id(where));
    }

    SftExample from_ids(const Json& json, const std::string& where) const {
        SftExample e;
        const char* response = has(json, "output_ids") ? "output_ids" : "response_ids";
        e.prompt_ids = get_ints(json, "prompt_ids", where, 0, limits_.V - 1, "a token id");
        e.response_ids = get_ints(json, response, where, 0, limits_.V - 1, "a token id");
        if (has(json, "step_map")) {
            e.step_map = get_ints(json, "step_map", where, 1, INT32_MAX, "a step (1, 2, ...)");
            if (e.step_map.size() != e.response_ids.size())
                fail(Exit::BadFile,
                     "%s: field 'step_map' has %zu entries, expected %zu, one per entry of '%s'",
                     where.c_str(), e.step_map.size(), e.response_ids.size(), response);
        }
        if (options_.needs_step_map && options_.pad_tokens == 0) {
            Record trace;
            read_tail(trace, json, limits_, where);
            e.tail_ids = trace.tail_ids;
            e.tail_steps = trace.tail_steps;
        }
        return e;
    }

    SftExample from_text(const Json& json, const std::string& where) const {
        need_tokenizer(where);
        SftExample e;
        e.prompt_ids = text_.encode_prompt(get_string(json, options_.prompt_field.c_str(), where), "",
                                           options_.thinking);
        set_response(e, get_string(json, options_.response_field.c_str(), where), where);
        return e;
    }

    SftExample from_messages(const Json& json, const std::string& where) const {
        need_tokenizer(where);
        std::vector<Message> messages = messages_of(json, where);
        if (messages.empty() || messages.back().role != "assistant")
            fail(Exit::BadFile,
                 "%s: field 'messages' does not end with an assistant's message, which is what is trained",
                 where.c_str());
        const std::string response =
            answer_text(text_.chat, messages.back(), options_.thinking,
                        format("%s: messages[%zu]", where.c_str(), messages.size() - 1));
        messages.pop_back();
        SftExample e;
        e.prompt_ids = text_.encode_messages(messages, options_.thinking);
        set_response(e, response, where);
        return e;
    }

    const TextModel& text_;
    const SftDataOptions& options_;
    const RecordLimits& limits_;
};

}  // namespace

SftData read_sft_data(const std::string& path, const TextModel& text, const SftDataOptions& options,
                      const RecordLimits& limits) {
    const LineReader reader(text, options, limits);
    const int room = limits.block ? limits.block - 1 : 0;  // the rest of the last block
    const int longest =
        std::min(options.max_length ? options.max_length : limits.max_positions, limits.max_positions - room);
    SftData data;
    read_jsonl(path, [&](const Json& json, const std::string& where) {
        SftExample e = reader.read(json, where);
        const int64_t length = int64_t(e.prompt_ids.size() + e.response_ids.size());
        const int64_t after = limits.block ? 0 : std::max(e.canvas, int(e.tail_ids.size()));
        if (length > longest || length + after > limits.max_positions)
            data.too_long++;
        else
            data.examples.push_back(std::move(e));
    });
    if (data.examples.empty() && data.too_long)
        fail(Exit::BadFile,
             "%s: all %d examples are longer than %d tokens (--max-length, or the model's positions)",
             path.c_str(), data.too_long, longest);
    if (data.examples.empty())
        fail(Exit::BadFile, "%s: the file is empty, expected one JSON object per line", path.c_str());
    return data;
}
