// rewrite_folder.h -- `convert cast`, `export` and `value-init`: a model folder made from another, streamed.
#pragma once
#include <functional>
#include <optional>
#include <string>

#include "weights_tools/model_folder.h"

struct Rewrite {
    std::optional<DType> dtype;  // F32 or BF16; none: every tensor keeps its own
    bool to_value = false;       // leave the LM head out, add a zero value head
    std::string
        companions;  // folder whose other files (tokenizer, *.py, ...) are copied; "": the model's own
};

// Fills `path` (an AtomicFolder's). `progress` is told the bytes done so far.
void rewrite_folder(const std::string& path, const ModelFolder& from, const Rewrite& how,
                    const std::function<void(uint64_t)>& progress);
// Bytes of weights it will write.
uint64_t rewritten_bytes(const ModelFolder& from, const Rewrite& how);
