// text_engine.h -- a random model with the byte tokenizer and an engine on it: what text-side tests talk to.
#pragma once
#include <cstdlib>

#include "inference/engine.h"
#include "inference/text_model.h"
#include "tests/random_model.h"
#include "tokenizer/byte_tokenizer.h"

inline ModelConfig byte_model_config() {
    ModelConfig c = random_model_config();
    c.V = BYTE_VOCABULARY;
    c.mask_id = BYTE_MASK;
    c.eos_ids = {BYTE_IM_END};
    return c;
}

struct TextEngine {
    RandomModel model{byte_model_config()};
    TextModel text;
    Arena arena{"engine", host_memory()};
    Engine engine;
    explicit TextEngine(const EngineLimits& limits = {.max_active = 2, .max_rows = 64, .kv_slots = 200})
        : text(load_text_model("bytes", "auto", "", model.config)),
          engine(*model.ops, model.config, model.weights, limits, text.n_ids, arena) {
        arena.allocate();
    }
};

// What is written to a FILE*.
class Captured {
  public:
    Captured() : file_(open_memstream(&text_, &size_)) {}
    ~Captured() {
        fclose(file_);
        free(text_);
    }
    FILE* file() { return file_; }
    std::string text() {
        fflush(file_);
        return std::string(text_, size_);
    }

  private:
    char* text_ = nullptr;
    size_t size_ = 0;
    FILE* file_;
};
