#include "model/layout.h"

#include <algorithm>
#include <map>

namespace {

// Where a sequence's clean text stands: `shared` tokens (the whole blocks of its prompt) at rows [prefix,
// prefix + shared), which other sequences may use too, and the rest from row `own` on.
struct CleanText {
    int shared = 0, length = 0;
    int prefix = 0, own = 0;
};

// Clean tokens a block model needs: everything before the last block that has a copy. Nobody looks at that
// block itself.
int clean_length(const Sequence& s) {
    int length = 0;
    for (const Copy& c : s.copies)
        if (!c.causal) length = std::max(length, c.begin);
    return length;
}

std::vector<int> shared_prompt(const Sequence& s, int block, int clean) {
    const int shared = std::min(s.prompt_length / block * block, clean);
    return {s.token.begin(), s.token.begin() + shared};
}

// What a token of block b (its first position is `begin`) sees: all clean blocks before it, and `self`.
AttentionSpans see_context(const CleanText& at, int begin, int self_begin, int self_end) {
    AttentionSpans see;
    see.begin[0] = at.prefix;
    see.end[0] = at.prefix + std::min(begin, at.shared);
    see.begin[1] = at.own;
    see.end[1] = at.own + std::max(begin - at.shared, 0);
    see.begin[2] = self_begin;
    see.end[2] = self_end;
    return see;
}

class Packer {
  public:
    Packer(int block, bool shift) : block_(block), shift_(shift) {}

    void add(int index, const Sequence& s) {
        const CleanText clean = block_ ? add_clean(s) : CleanText{};
        for (int c = 0; c < int(s.copies.size()); c++) {
            const Copy& copy = s.copies[size_t(c)];
            const int first = copy.causal ? add_causal(s) : add_copy(copy, clean);
            const int back = copy.causal || shift_ ? 1 : 0;
            for (const int position : copy.target) {
                CHECK(position >= back * copy.causal + copy.begin && position < int(s.token.size()),
                      "target %d of copy %d of sequence %d", position, c, index);
                // Dream's own code lets the first row predict the first position, too.
                const int row = std::max(position - back, copy.begin);
                out_.batch.target_row.push_back(first + row - copy.begin);
                out_.target.push_back({index, c, position});
            }
        }
    }
    PackedBatch take() { return std::move(out_); }

  private:
    int add_token(int id, int position, const AttentionSpans& see) {
        return out_.batch.add(id, position, out_.batch.T(), see);  // in training a token's slot is its row
    }

    CleanText add_clean(const Sequence& s) {
        CleanText at;
        at.length = clean_length(s);
        const std::vector<int> prompt = shared_prompt(s, block_, at.length);
        at.shared = int(prompt.size());
        const auto [found, is_new] = prompts_.try_emplace(prompt, out_.batch.T());
        at.prefix = found->second;
        at.own = is_new ? at.prefix + at.shared : out_.batch.T();
        for (int i = is_new ? 0 : at.shared; i < at.length; i++) {
            const int end = (i / block_ + 1) * block_;  // it sees its whole block
            add_token(s.token[size_t(i)], i, see_context(at, end, 0, 0));
        }
        return at;
    }

    int add_copy(const Copy& copy, const CleanText& clean) {
        const int first = out_.batch.T(), n = int(copy.token.size());
        CHECK(!block_ || (copy.begin % block_ == 0 && n == block_),
              "a copy of %d tokens at %d is not a block of %d", n, copy.begin, block_);
        CHECK(block_ || copy.begin == 0, "a full-attention copy starts at %d, not at 0", copy.begin);
        const AttentionSpans see = see_context(clean, block_ ? copy.begin : 0, first, first + n);
        for (int i = 0; i < n; i++) add_token(copy.token[size_t(i)], copy.begin + i, see);
        return first;
    }

    int add_causal(const Sequence& s) {
        const int first = out_.batch.T();
        for (int i = 0; i < int(s.token.size()); i++) {
            AttentionSpans see;
            see.begin[2] = first;
            see.end[2] = first + i + 1;
            add_token(s.token[size_t(i)], i, see);
        }
        return first;
    }

    int block_;
    bool shift_;
    PackedBatch out_;
    std::map<std::vector<int>, int> prompts_;  // whole prompt blocks -> their first row
};

}  // namespace

PackedBatch pack(std::span<const Sequence> sequences, int block, bool shift) {
    Packer packer(block, shift);
    for (int i = 0; i < int(sequences.size()); i++) packer.add(i, sequences[size_t(i)]);
    return packer.take();
}

int64_t packed_tokens(std::span<const Sequence> sequences, int block) {
    int64_t n = 0;
    std::map<std::vector<int>, bool> prompts;
    for (const Sequence& s : sequences) {
        if (block) {
            const int clean = clean_length(s);
            const std::vector<int> prompt = shared_prompt(s, block, clean);
            n += clean - int(prompt.size());
            if (prompts.try_emplace(prompt, true).second) n += int64_t(prompt.size());
        }
        for (const Copy& c : s.copies) n += int64_t(c.causal ? s.token.size() : c.token.size());
    }
    return n;
}
