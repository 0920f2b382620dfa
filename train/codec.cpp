#include "train/codec.h"

#include "inference/pieces.h"

TextCodec make_codec(const TextModel& text, const PromptTemplate& prompt, bool thinking) {
    if (!text.tokenizer)
        fail(Exit::BadFile,
             "the model's folder holds no tokenizer, and a task is made of text; name one with --tokenizer "
             "DIR");
    if (text.eos_ids.empty())
        fail(
            Exit::BadFile,
            "the model names no end-of-text id (config.json: eos_token_id), so nothing would end a response");
    const int turn = end_of_turn(text.chat, *text.tokenizer), end = turn >= 0 ? turn : text.eos_ids[0];
    TextCodec codec;
    codec.encode_prompt = [&text, prompt, thinking](const std::string& question) {
        // The plain question is encoded as by `infer --prompt`; the reference's prompts open the answer in their own way.
        if (prompt.name == "chat") return text.encode_prompt(question, "", thinking);
        return encode_prompt(*text.tokenizer, prompt, text.chat, question);
    };
    codec.encode_response = [&text, end](const std::string& response) {
        std::vector<int> ids = encode_answer(*text.tokenizer, response);
        ids.push_back(end);
        return ids;
    };
    codec.decode = [&text](std::span<const int> ids) { return text.tokenizer->decode(ids, true); };
    codec.pieces = [&text](std::span<const int> ids) { return pieces_of(text.tokenizer.get(), ids); };
    return codec;
}
