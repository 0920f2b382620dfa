#include "train/codec.h"

TextCodec make_codec(const TextModel& text, bool thinking) {
    if (!text.tokenizer) fail(Exit::BadFile, "the model's folder holds no tokenizer, and a task is made of text; name one with --tokenizer DIR");
    if (text.eos_ids.empty()) fail(Exit::BadFile, "the model names no end-of-text id (config.json: eos_token_id), so nothing would end a response");
    const int turn = end_of_turn(text.chat, *text.tokenizer), end = turn >= 0 ? turn : text.eos_ids[0];
    TextCodec codec;
    codec.encode_prompt = [&text, thinking](const std::string& prompt) { return text.encode_prompt(prompt, "", thinking); };
    codec.encode_response = [&text, end](const std::string& response) {
        std::vector<int> ids = text.tokenizer->encode(response);
        ids.push_back(end);
        return ids;
    };
    codec.decode = [&text](std::span<const int> ids) { return text.tokenizer->decode(ids, true); };
    return codec;
}
