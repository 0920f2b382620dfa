#include "train/eval/likelihood.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "train/update.h"

namespace {

// What a copy shows of positions [begin, end), `masked` apart and masks past the end of the text.
Copy state(const Sequence& s, int begin, int end, const std::vector<int>& masked, int mask_id) {
    Copy copy;
    copy.begin = begin;
    for (int i = begin; i < end; i++) {
        const bool shown = i < int(s.token.size()) && !std::binary_search(masked.begin(), masked.end(), i);
        copy.token.push_back(shown ? s.token[size_t(i)] : mask_id);
    }
    copy.target = masked;
    return copy;
}

double choose(int n, int k) {
    double c = 1;
    for (int i = 1; i <= k; i++) c *= double(n - k + i) / i;
    return c;
}

// `size` of the positions [lo, hi), ascending.
std::vector<int> draw_set(int lo, int hi, int size, Rng& rng) {
    std::vector<int> all(size_t(hi - lo));
    std::iota(all.begin(), all.end(), lo);
    for (int k = 0; k < size; k++)
        std::swap(all[size_t(k)], all[size_t(k) + rng.below(uint32_t(hi - lo - k))]);
    all.resize(size_t(size));
    std::sort(all.begin(), all.end());
    return all;
}

struct WeightedSet {
    std::vector<int> masked;
    double weight;  // of each of its tokens
};

std::vector<WeightedSet> every_set(int lo, int hi) {
    const int n = hi - lo;
    std::vector<WeightedSet> out;
    for (unsigned bits = 1; bits < 1u << n; bits++) {
        WeightedSet& s = out.emplace_back();
        for (int i = 0; i < n; i++)
            if (bits >> i & 1) s.masked.push_back(lo + i);
        const int size = int(s.masked.size());
        s.weight = 1 / (size * choose(n, size));
    }
    return out;
}

std::vector<WeightedSet> drawn_sets(int lo, int hi, int sets, Rng& rng) {
    const int n = hi - lo;
    std::vector<WeightedSet> out;
    for (int k = 0; k < sets; k++) {
        const double level = (k + double(rng.uniform())) / sets;  // one of every stratum
        const int size = std::min(1 + int(level * n), n);
        out.push_back({draw_set(lo, hi, size, rng), double(n) / size / sets});
    }
    return out;
}

Sequence clean(const std::vector<int>& prompt, const std::vector<int>& answer) {
    Sequence s;
    s.token = prompt;
    s.token.insert(s.token.end(), answer.begin(), answer.end());
    s.prompt_length = int(prompt.size());
    return s;
}

}  // namespace

AnswerStates likelihood_states(const std::vector<int>& prompt, const std::vector<int>& answer,
                               const MaskShape& shape, int sets, Rng& rng) {
    AnswerStates out;
    out.sequence = clean(prompt, answer);
    out.tokens = int(answer.size());
    const int P = int(prompt.size()), end = P + int(answer.size());
    for (int lo = P; lo < end;) {
        const int begin = shape.block ? lo / shape.block * shape.block : 0,
                  stop = shape.block ? begin + shape.block : end, hi = std::min(stop, end), n = hi - lo;
        const bool all = n < 31 && (int64_t(1) << n) - 1 <= sets;
        out.drawn |= !all;
        for (const WeightedSet& s : all ? every_set(lo, hi) : drawn_sets(lo, hi, sets, rng)) {
            out.sequence.copies.push_back(state(out.sequence, begin, stop, s.masked, shape.mask_id));
            out.weight.insert(out.weight.end(), s.masked.size(), s.weight);
        }
        lo = hi;
    }
    return out;
}

AnswerStates causal_states(const std::vector<int>& prompt, const std::vector<int>& answer) {
    AnswerStates out;
    out.sequence = clean(prompt, answer);
    out.tokens = int(answer.size());
    if (answer.empty()) return out;
    Copy& copy = out.sequence.copies.emplace_back();
    copy.causal = true;
    for (int i = std::max(int(prompt.size()), 1); i < int(out.sequence.token.size()); i++)
        copy.target.push_back(i);
    out.weight.assign(copy.target.size(), 1);
    return out;
}

AnswerScorer::AnswerScorer(Ops& ops, const ModelConfig& config, const Parameters& weights, int block,
                           int max_rows, Arena& arena)
    : ops_(ops),
      config_(config),
      weights_(weights),
      block_(block),
      max_rows_(max_rows),
      network_(ops, config, weights, arena, max_rows, max_rows, &cache_) {
    cache_.plan(arena, config, max_rows, network_.dtype());
    arena.add(&target_, "target ids", 1, max_rows, DType::I32);
    arena.add(&output_, "target outputs", 1, max_rows);
    arena.add(&lse_, "target lse", 1, max_rows);
}

std::vector<float> AnswerScorer::logprobs(std::span<const Sequence> micro_batch) {
    const PackedBatch packed = pack(micro_batch, block_, config_.shift);
    const int n = packed.batch.n_targets();
    std::vector<int> id;
    for (const Target& t : packed.target)
        id.push_back(micro_batch[size_t(t.sequence)].token[size_t(t.position)]);
    std::vector<float> out(id.size());
    if (n == 0) return out;
    const Tensor hidden = network_.forward(packed.batch);
    ops_.upload(target_.col_range(0, n), id.data());
    ops_.head_logprob(output_.col_range(0, n), lse_.col_range(0, n), {}, hidden, weights_.lm_head,
                      target_.col_range(0, n));
    ops_.download(out.data(), output_.col_range(0, n));
    for (int i = 0; i < n; i++)
        if (!std::isfinite(out[size_t(i)]))
            fail_not_finite(format("log-probability of id %d", id[size_t(i)]));
    return out;
}

std::vector<double> AnswerScorer::log_likelihoods(std::span<const AnswerStates> answers) {
    // An answer with too many states for one pass is cut into pieces, which repeat its clean text.
    struct Piece {
        size_t answer;
        const double* weight;  // of its first pair
    };
    std::vector<Sequence> sequences;
    std::vector<Piece> pieces;
    for (size_t a = 0; a < answers.size(); a++) {
        const Sequence& whole = answers[a].sequence;
        Sequence part;
        const double* weight = answers[a].weight.data();
        const auto end_part = [&] {
            if (part.copies.empty()) return;
            sequences.push_back(part);
            pieces.push_back({a, weight});
            for (const Copy& c : part.copies) weight += c.target.size();
            part.copies.clear();
        };
        part.token = whole.token;
        part.prompt_length = whole.prompt_length;
        for (const Copy& copy : whole.copies) {
            part.copies.push_back(copy);
            if (packed_tokens({&part, 1}, block_) <= max_rows_) continue;
            part.copies.pop_back();
            end_part();
            part.copies.push_back(copy);
            const int64_t need = packed_tokens({&part, 1}, block_);
            if (need > max_rows_)
                fail(Exit::NoMemory,
                     "answer %zu takes passes of %lld rows, the limit is %d; raise --max-rows", a,
                     (long long)need, max_rows_);
        }
        end_part();
    }
    std::vector<double> out(answers.size(), 0.0);
    for (const std::vector<Part>& pass : cut_micro_batches(sequences, block_, {max_rows_, max_rows_})) {
        const std::vector<float> logprob = logprobs(parts_of(sequences, pass));
        size_t at = 0;
        for (const Part& part : pass) {
            const Piece& of = pieces[size_t(part.sequence)];
            for (int k = 0; k < part.n_targets; k++)
                out[of.answer] += of.weight[part.first_target + k] * double(logprob[at++]);
        }
    }
    return out;
}
