#include "inference/text_flags.h"

void TextFlags::declare(Options& flags) {
    flags.add("--tokenizer DIR", &tokenizer,
              "a folder with a tokenizer, or `bytes` (default: the model's own)");
    flags.add("--chat-template NAME", &chat_template, "how a prompt is put to the model")
        .choices({"auto", "qwen3", "qwen2.5", "llada", "raw"});
    flags.add_choice("--thinking SWITCH", &thinking, {{"on", true}, {"off", false}},
                     "let a Qwen3 model think first; off: its prompt ends with an empty thought");
}
