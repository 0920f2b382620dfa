#include "model/layout_generate.h"

int add_prompt(TokenBatch& batch, std::span<const int> prompt, int begin, int end, int block, int prefix) {
    CHECK(begin % block == 0 && end % block == 0 && end <= int(prompt.size()),
          "prompt positions [%d, %d), blocks of %d", begin, end, block);
    const int first = batch.T();
    for (int i = begin; i < end; i++) {
        AttentionSpans see;
        see.begin[0] = prefix;
        see.end[0] = prefix + (i / block + 1) * block;
        batch.add(prompt[size_t(i)], i, prefix + i, see);
    }
    return first;
}

int add_block(TokenBatch& batch, std::span<const int> ids, int position, const SequenceSlots& at,
              int behind) {
    CHECK(position >= at.shared, "a block at %d inside the %d shared positions", position, at.shared);
    const int first = batch.T(), slot = at.own + position - at.shared;
    AttentionSpans see;
    see.begin[0] = at.prefix;
    see.end[0] = at.prefix + at.shared;
    see.begin[1] = at.own;
    see.end[1] = slot;
    see.begin[2] = slot;
    see.end[2] = slot + int(ids.size()) + behind;
    for (int i = 0; i < int(ids.size()); i++) batch.add(ids[size_t(i)], position + i, slot + i, see);
    return first;
}
