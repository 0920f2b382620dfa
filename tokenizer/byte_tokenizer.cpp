#include "tokenizer/byte_tokenizer.h"

#include "tokenizer/vocabulary.h"
#include "utils/files.h"
#include "utils/json.h"

TokenizerDefinition byte_tokenizer_definition() {
    TokenizerDefinition d;
    d.name = "bytes";
    d.pre_tokenizer = PreTokenizer::WholeText;
    d.bytes.resize(BYTE_TOKENS);
    for (int byte = 0; byte < 256; byte++) {
        d.bytes[size_t(byte)] = std::string(1, char(byte));
        d.byte_ids[size_t(byte)] = byte;
    }
    d.added = {{BYTE_END_OF_TEXT, "<|endoftext|>", true, false},
               {BYTE_IM_START, "<|im_start|>", true, false},
               {BYTE_IM_END, "<|im_end|>", true, false},
               {BYTE_MASK, "<|MASK|>", true, false}};
    for (const AddedToken& token : d.added) d.bytes[size_t(token.id)] = token.content;
    d.eos = d.pad = "<|endoftext|>";
    d.mask = "<|MASK|>";
    return d;
}

void save_byte_tokenizer(const std::string& folder) {
    const TokenizerDefinition d = byte_tokenizer_definition();
    const Json byte_level = {
        {"type", "ByteLevel"}, {"add_prefix_space", false}, {"trim_offsets", true}, {"use_regex", true}};
    Json vocabulary, added = Json::array(), decoder;
    for (int byte = 0; byte < 256; byte++) vocabulary[spelling_of(uint8_t(byte))] = byte;
    for (const AddedToken& token : d.added) {
        const Json entry = {
            {"content", token.content}, {"single_word", false},           {"lstrip", false},
            {"rstrip", false},          {"normalized", token.normalized}, {"special", token.special}};
        decoder[std::to_string(token.id)] = entry;
        added.push_back({{"id", token.id}});
        added.back().update(entry);
    }
    const Json tokenizer = {{"version", "1.0"},
                            {"truncation", nullptr},
                            {"padding", nullptr},
                            {"added_tokens", added},
                            {"normalizer", nullptr},
                            {"pre_tokenizer", byte_level},
                            {"post_processor", nullptr},
                            {"decoder", byte_level},
                            {"model",
                             {{"type", "BPE"},
                              {"dropout", nullptr},
                              {"unk_token", nullptr},
                              {"continuing_subword_prefix", nullptr},
                              {"end_of_word_suffix", nullptr},
                              {"fuse_unk", false},
                              {"byte_fallback", false},
                              {"vocab", vocabulary},
                              {"merges", Json::array()}}}};
    const Json config = {{"tokenizer_class", "PreTrainedTokenizerFast"},
                         {"added_tokens_decoder", decoder},
                         {"eos_token", d.eos},
                         {"pad_token", d.pad},
                         {"mask_token", d.mask},
                         {"clean_up_tokenization_spaces", false}};
    write_file_atomic(folder + "/tokenizer.json", tokenizer.dump(1) + "\n");
    write_file_atomic(folder + "/tokenizer_config.json", config.dump(1) + "\n");
}
