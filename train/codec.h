// codec.h -- a task's texts as a model's ids.
#pragma once
#include "inference/text_model.h"
#include "train/rollout.h"
#include "train/tasks/prompt_template.h"

// `text` must outlive the codec. A response ends with the chat template's end of turn or, without a template, with the
// model's first end-of-text id. Throws Error(BadFile) where there is no tokenizer or nothing that ends a response.
TextCodec make_codec(const TextModel& text, const PromptTemplate& prompt, bool thinking);
