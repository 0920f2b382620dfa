#include "inference/text_model.h"

#include <unistd.h>

#include <algorithm>

#include "tokenizer/byte_tokenizer.h"
#include "utils/error.h"
#include "utils/files.h"
#include "utils/json.h"

Message message(const std::string& role, const std::string& content) {
    Message m;
    m.role = role;
    m.content = content;
    return m;
}

std::vector<int> TextModel::encode_prompt(const std::string& text, const std::string& system,
                                          bool thinking) const {
    CHECK(tokenizer, "text without a tokenizer");
    if (chat.kind == ChatTemplate::Raw) return tokenizer->encode(system + text, true);
    std::vector<Message> messages;
    if (!system.empty()) messages.push_back(message("system", system));
    messages.push_back(message("user", text));
    return encode_messages(messages, thinking);
}

std::vector<int> TextModel::encode_messages(const std::vector<Message>& messages, bool thinking) const {
    CHECK(tokenizer, "text without a tokenizer");
    return encode_chat(*tokenizer, chat, messages, {.thinking = thinking});
}

static std::string tokenizer_source(const std::string& tokenizer, const std::string& folder,
                                    const ModelConfig& config) {
    if (!tokenizer.empty()) return tokenizer;
    if (has_tokenizer(folder)) return folder;
    return config.V == BYTE_VOCABULARY && config.mask_id == BYTE_MASK ? "bytes" : "";
}

TextModel load_text_model(const std::string& tokenizer, const std::string& chat_template,
                          const std::string& folder, const ModelConfig& config) {
    TextModel out;
    out.eos_ids = config.eos_ids;
    out.n_ids = config.V;
    const std::string source = tokenizer_source(tokenizer, folder, config);
    if (source.empty()) return out;
    out.tokenizer = load_tokenizer(source);
    if (out.tokenizer->vocabulary_size() > config.V)
        fail(Exit::BadFile,
             "tokenizer %s has %d ids, the model's vocabulary_size is %d: it is not this model's tokenizer",
             source.c_str(), out.tokenizer->vocabulary_size(), config.V);
    out.n_ids = out.tokenizer->vocabulary_size();
    const std::string family = config.raw ? config.raw->value("model_type", "") : "";
    out.chat = choose_chat_template(chat_template, family, *out.tokenizer);
    const int end = end_of_turn(out.chat, *out.tokenizer);
    if (end >= 0 && std::find(out.eos_ids.begin(), out.eos_ids.end(), end) == out.eos_ids.end())
        out.eos_ids.push_back(end);
    return out;
}

std::string default_model_folder() {
    const std::string name = "inference/default_model";
    char self[4096];
    const ssize_t n = readlink("/proc/self/exe", self, sizeof self);
    const std::string program = n > 0 ? std::string(self, size_t(n)) : "";
    const std::string beside = program.substr(0, program.rfind('/') + 1) + name;
    for (const std::string& folder : {beside, name})
        if (file_exists(folder + "/config.json")) return folder;
    fail(Exit::BadFile, "%s: the model that comes along is missing; name another with --model DIR",
         beside.c_str());
}

std::string sample_prompt(const std::string& folder) {
    const std::string path = folder + "/sample_prompt.txt";
    std::string text = file_exists(path) ? read_text(path) : "347+586=";  // as the default run's sums are put
    while (!text.empty() && text.back() == '\n') text.pop_back();
    if (text.empty())
        fail(Exit::BadFile, "%s: is empty, it holds the prompt that shows the model", path.c_str());
    return text;
}
