#include "tokenizer/byte_tokenizer.h"

#include "tokenizer/tokenizer.h"

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
