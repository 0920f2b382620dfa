#include "model/batch.h"

void TokenBatch::clear() {
    token.clear();
    position.clear();
    slot.clear();
    see.clear();
    target_row.clear();
}

int TokenBatch::add(int id, int pos, int at, const AttentionSpans& spans) {
    token.push_back(id);
    position.push_back(pos);
    slot.push_back(at);
    see.push_back(spans);
    return T() - 1;
}

int64_t visible_pairs(const TokenBatch& batch) {
    int64_t pairs = 0;
    for (const AttentionSpans& s : batch.see)
        for (int i = 0; i < 3; i++) pairs += s.end[i] - s.begin[i];
    return pairs;
}
