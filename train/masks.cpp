#include "train/masks.h"

#include <algorithm>
#include <set>

namespace {

// A text in which every position knows when it was revealed: 0 in the prompt, NEVER where it stays masked.
struct Trace {
    std::vector<int> token, step;
    int prompt_length, response_end;
};

Trace trace_of(const Record& r) {
    Trace t{.token = r.prompt_ids,
            .step = std::vector<int>(r.prompt_ids.size(), 0),
            .prompt_length = 0,
            .response_end = 0};
    const auto append = [](std::vector<int>& to, const std::vector<int>& from) {
        to.insert(to.end(), from.begin(), from.end());
    };
    append(t.token, r.response_ids);
    append(t.step, r.step_map);
    append(t.token, r.tail_ids);
    append(t.step, r.tail_steps);
    t.prompt_length = int(r.prompt_ids.size());
    t.response_end = t.prompt_length + r.length();
    return t;
}

// The positions [begin, end) that one copy covers.
struct Part {
    int begin, end;
};

// Block models: the blocks from the one the prompt ends in to the one the response ends in. Full attention: everything.
std::vector<Part> parts(int prompt_length, int response_end, int canvas_end, int block) {
    if (block == 0) return {{0, canvas_end}};
    std::vector<Part> out;
    for (int lo = prompt_length / block * block; lo < response_end; lo += block)
        out.push_back({lo, lo + block});
    return out;
}

Sequence clean_sequence(const std::vector<int>& prompt, const std::vector<int>& response) {
    Sequence s;
    s.token = prompt;
    s.token.insert(s.token.end(), response.begin(), response.end());
    s.prompt_length = int(prompt.size());
    return s;
}

// A copy of `part`: the text where shown(position), else the mask id.
template <class Shown>
Copy make_copy(const Sequence& s, const Part& part, int mask_id, const Shown& shown) {
    Copy copy;
    copy.begin = part.begin;
    for (int i = part.begin; i < part.end; i++)
        copy.token.push_back(i < int(s.token.size()) && shown(i) ? s.token[size_t(i)] : mask_id);
    return copy;
}

}  // namespace

Sequence trace_sequence(const Record& record, const MaskShape& shape, int shrink) {
    const Trace trace = trace_of(record);
    const auto step_at = [&](int i) { return i < int(trace.step.size()) ? trace.step[size_t(i)] : NEVER; };
    Sequence full = clean_sequence(record.prompt_ids, record.response_ids), out = full;
    full.token = trace.token;  // copies may show the tail
    for (const Part& part :
         parts(trace.prompt_length, trace.response_end, int(trace.token.size()), shape.block)) {
        std::set<int> distinct;
        for (int i = std::max(part.begin, trace.prompt_length); i < part.end; i++)
            if (step_at(i) != NEVER) distinct.insert(step_at(i));
        const std::vector<int> steps(distinct.begin(), distinct.end());
        for (size_t c = 0; c < steps.size(); c += size_t(shrink)) {
            const int first = steps[c], last = steps[std::min(c + size_t(shrink), steps.size()) - 1];
            Copy copy = make_copy(full, part, shape.mask_id,
                                  [&](int i) { return step_at(i) != NEVER && step_at(i) < first; });
            for (int i = std::max(part.begin, trace.prompt_length);
                 i < std::min(part.end, trace.response_end); i++)
                if (step_at(i) >= first && step_at(i) <= last) copy.target.push_back(i);
            if (!copy.target.empty()) out.copies.push_back(std::move(copy));
        }
    }
    return out;
}

namespace {

// Which of n tokens are masked: each with its level, at least one.
std::vector<char> draw_mask(int n, double low, double high, bool per_token, Rng& rng) {
    const auto level = [&] { return low + (high - low) * double(rng.uniform()); };
    const double t = level();
    std::vector<char> masked(static_cast<size_t>(n));
    bool any = false;
    for (char& m : masked) {
        m = double(rng.uniform()) < (per_token ? level() : t);
        any = any || m;
    }
    if (!any) masked[rng.below(uint32_t(n))] = 1;
    return masked;
}

}  // namespace

Sequence random_mask_sequence(const Record& record, const MaskShape& shape, const RandomMaskOptions& options,
                              Rng& rng) {
    Sequence s = clean_sequence(record.prompt_ids, record.response_ids);
    const int P = s.prompt_length, end = int(s.token.size());
    // Full attention: the canvas after the response stays masked, as it was when the response was generated.
    const int canvas_end = end + int(record.tail_ids.size());
    const std::vector<Part> all = parts(P, end, canvas_end, shape.block);
    for (int m = 0; m < options.m; m++)
        for (const Part& part : all) {
            const int lo = std::max(part.begin, P), hi = std::min(part.end, end);
            std::vector<char> masked = draw_mask(hi - lo, options.low, options.high, options.per_token, rng);
            for (int complement = 0; complement <= int(options.coupled); complement++) {
                Copy copy = make_copy(s, part, shape.mask_id,
                                      [&](int i) { return i < lo || (i < hi && !masked[size_t(i - lo)]); });
                for (int i = lo; i < hi; i++)
                    if (masked[size_t(i - lo)]) copy.target.push_back(i);
                if (!copy.target.empty()) s.copies.push_back(std::move(copy));
                for (char& x : masked) x = !x;
            }
        }
    return s;
}

// ---- supervised fine-tuning ----

Sequence sft_sequence(const SftExample& example, const MaskShape& shape) {
    Sequence s = clean_sequence(example.prompt_ids, example.response_ids),
             full = s;  // copies may show the tail
    full.token.insert(full.token.end(), example.tail_ids.begin(), example.tail_ids.end());
    const int P = s.prompt_length,
              end = std::max(int(s.token.size()) + example.canvas, int(full.token.size()));
    for (const SftCopy& from : example.copies) {
        Copy copy;
        if (from.causal) {
            copy.causal = true;
        } else {
            const int block = shape.block, lo = block ? (P + from.target[0]) / block * block : 0;
            const Part part = {lo, block ? lo + block : end};
            copy = make_copy(full, part, shape.mask_id, [&](int i) {
                return !std::binary_search(from.masked.begin(), from.masked.end(), i - P);
            });
        }
        for (const int k : from.target) copy.target.push_back(P + k);
        s.copies.push_back(std::move(copy));
    }
    return s;
}

std::vector<double> sft_weights(const SftExample& example) {
    std::vector<double> out;
    for (const SftCopy& copy : example.copies) out.insert(out.end(), copy.target.size(), copy.weight);
    return out;
}

namespace {

// One noise level per stratum of [low, high], in random order.
std::vector<double> stratified_levels(int n, double low, double high, Rng& rng) {
    std::vector<double> levels;
    for (int k = 0; k < n; k++) levels.push_back(low + (high - low) * (k + double(rng.uniform())) / n);
    for (int k = n - 1; k > 0; k--) std::swap(levels[size_t(k)], levels[rng.below(uint32_t(k) + 1)]);
    return levels;
}

// A copy that masks each of the response indices [lo, hi) with probability t, and its complement where asked for. Indices
// [hi, after_end) are masked too, but not trained.
void add_noisy(std::vector<SftCopy>& out, int lo, int hi, double t, int after_end,
               const SftMaskOptions& options, Rng& rng) {
    std::vector<char> masked = draw_mask(hi - lo, t, t, false, rng);
    for (int complement = 0; complement <= int(options.complementary); complement++) {
        SftCopy copy;
        for (int k = lo; k < hi; k++)
            if (masked[size_t(k - lo)]) copy.target.push_back(k);
        copy.masked = copy.target;
        for (int k = hi; k < after_end; k++) copy.masked.push_back(k);
        if (options.weight_by_level) copy.weight = 1 / (complement ? 1 - t : t);
        if (!copy.target.empty()) out.push_back(std::move(copy));
        for (char& m : masked) m = !m;
    }
}

// The blocks of a response as ranges of its indices.
std::vector<Part> response_blocks(const SftExample& e, const MaskShape& shape, int sft_block) {
    const int P = int(e.prompt_ids.size()), n = int(e.response_ids.size());
    std::vector<Part> out;
    if (shape.block == 0) {
        for (int lo = 0; lo < n; lo += sft_block) out.push_back({lo, std::min(lo + sft_block, n)});
    } else {
        for (const Part& p : parts(P, P + n, 0, shape.block))
            out.push_back({std::max(p.begin - P, 0), std::min(p.end - P, n)});
    }
    return out;
}

std::vector<SftCopy> trace_sft_copies(const SftExample& e, const MaskShape& shape, int shrink) {
    Record record;
    record.prompt_ids = e.prompt_ids;
    record.response_ids = e.response_ids;
    record.step_map = e.step_map;
    record.tail_ids = e.tail_ids;
    record.tail_steps = e.tail_steps;
    const int P = int(e.prompt_ids.size()), end = int(e.response_ids.size() + e.tail_ids.size());
    std::vector<SftCopy> out;
    for (const Copy& from : trace_sequence(record, shape, shrink).copies) {
        SftCopy& copy = out.emplace_back();
        for (const int i : from.target) copy.target.push_back(i - P);
        const int hi = std::min(from.begin + int(from.token.size()) - P, end);
        for (int k = std::max(from.begin - P, 0); k < hi; k++)
            if (from.token[size_t(P + k - from.begin)] == shape.mask_id) copy.masked.push_back(k);
    }
    return out;
}

}  // namespace

std::vector<SftCopy> sft_copies(const SftExample& e, const MaskShape& shape, const SftMaskOptions& options,
                                Rng& rng) {
    const int n = int(e.response_ids.size());
    std::vector<SftCopy> out;
    switch (options.method) {
        case SftMethod::Ar: {
            SftCopy& copy = out.emplace_back();
            copy.causal = true;
            for (int k = e.prompt_ids.empty() ? 1 : 0; k < n; k++) copy.target.push_back(k);
            break;
        }
        case SftMethod::Trace: out = trace_sft_copies(e, shape, options.shrink); break;
        case SftMethod::SemiAr: {
            const std::vector<Part> blocks = response_blocks(e, shape, options.block);
            const std::vector<double> levels =
                stratified_levels(int(blocks.size()), options.low, options.high, rng);
            for (size_t b = 0; b < blocks.size(); b++)
                add_noisy(out, blocks[b].begin, blocks[b].end, levels[b], shape.block ? blocks[b].end : n,
                          options, rng);
            break;
        }
        case SftMethod::RandomMask: {
            // Block models see one block at a time: one level for the sequence is one level for all its blocks.
            const double t = options.low + (options.high - options.low) * double(rng.uniform());
            const std::vector<Part> blocks =
                shape.block ? response_blocks(e, shape, 0) : std::vector<Part>{{0, n}};
            for (const Part& b : blocks) add_noisy(out, b.begin, b.end, t, b.end, options, rng);
            break;
        }
    }
    return out;
}
