// attention.cpp -- see attention.h. The unit of work is a group: rows with equal spans and the query heads of one key/value
// head. Its M queries meet the same keys, so that scores, weighted sums and gradients are all small matrix products for the
// register-tile kernel. The keys of a group are one list, span after span, taken in blocks of KEYS; nothing depends on where
// in memory they lie. Where keys are met by several groups (training, long prompts), they are transposed once for all.
#include "kernels/attention.h"

#include <algorithm>
#include <cstring>

#include "kernels/parallel.h"

namespace cpu {
namespace {

constexpr int KEYS = 256;  // keys of one block
constexpr int MAX_M = 16;  // queries of one group
constexpr int MAX_HD = 256;
constexpr int ROWS = 8;  // rows of one item, about

// Rows of k or v, and where there is one, their copy in panels: slots first + 64 i ... of head g are (HD, PANEL) at
// panels[(g * n_panels + i) * HD * PANEL].
struct Keys {
    Rows<const float> rows;
    const float* panels = nullptr;
    int first = 0, n_panels = 0;
};

struct Problem {
    const Simd& simd;
    Rows<const float> q;
    Keys k, v;
    const AttentionSpans* see;
    int T, S, heads, kv_heads, HD;

    int share() const { return heads / kv_heads; }
    float scale() const { return 1 / std::sqrt(float(HD)); }
};

bool same_spans(const AttentionSpans& a, const AttentionSpans& b) { return memcmp(&a, &b, sizeof a) == 0; }

// Item i starts at the first row from i * ROWS on (but before the next item) whose spans differ from the row
// before, so that rows with equal spans, the tokens of a block, stay together.
int item_begin(const Problem& p, int64_t i) {
    const int64_t first = i * ROWS;
    if (first == 0) return 0;
    for (int64_t t = first; t < std::min<int64_t>(first + ROWS, p.T); t++)
        if (!same_spans(p.see[t], p.see[t - 1])) return int(t);
    return int(std::min<int64_t>(first, p.T));
}

// f(begin, end, head, count) for groups of rows with equal spans in [begin, end) and of the query heads of
// key/value head g, at most MAX_M queries each.
template <class F>
void for_groups(const Problem& p, int begin, int end, int g, F&& f) {
    const int heads = std::min(p.share(), MAX_M), rows = std::max(1, MAX_M / heads);
    for (int t = begin; t < end;) {
        int stop = t + 1;
        while (stop < end && stop - t < rows && same_spans(p.see[t], p.see[stop])) stop++;
        for (int h = 0; h < p.share(); h += heads)
            f(t, stop, g * p.share() + h, std::min(heads, p.share() - h));
        t = stop;
    }
}

// A run of keys that lie one after the other: `count` slots from `slot` on are columns `at`, ... of a block.
struct Run {
    int slot, at, count;
};

// The keys of a token as one list, limited to slots in [low, high), cut into blocks of KEYS.
class KeyBlocks {
  public:
    KeyBlocks(const AttentionSpans& see, int low, int high) : see_(see), low_(low), high_(high) {}
    // The next block's runs; returns the number of keys, 0 at the end.
    int next(Run* run, int* n_runs) {
        int n = 0;
        *n_runs = 0;
        while (span_ < 3 && n < KEYS) {
            const int begin = std::max(see_.begin[span_], low_) + done_,
                      end = std::min(see_.end[span_], high_);
            const int count = std::min(end - begin, KEYS - n);
            if (count > 0) {
                run[(*n_runs)++] = {begin, n, count};
                n += count;
                done_ += count;
            }
            if (begin + std::max(count, 0) >= end) span_++, done_ = 0;
        }
        return n;
    }

  private:
    AttentionSpans see_;
    int low_, high_, span_ = 0, done_ = 0;
};

// out (M, n) = query (M, HD) rows^T, where rows are those of head g at the slots of a block.
void products(const Problem& p, float* out, const float* query, const Keys& keys, int g, int M,
              const Run* run, int n_runs) {
    alignas(64) float own[MAX_HD * PANEL];
    for (int r = 0; r < n_runs; r++)
        for (int i = 0, width; i < run[r].count; i += width) {
            const int slot = run[r].slot + i, offset = keys.panels ? (slot - keys.first) % PANEL : 0;
            const float* panel = own;
            width = std::min(PANEL - offset, run[r].count - i);
            if (keys.panels) {
                const int64_t index = int64_t(g) * keys.n_panels + (slot - keys.first) / PANEL;
                panel = keys.panels + index * p.HD * PANEL + offset;
            } else {
                p.simd.transpose(own, keys.rows[slot] + g * p.HD, keys.rows.stride, width, p.HD);
            }
            p.simd.outer(out + run[r].at + i, KEYS, query, p.HD, 1, panel, PANEL, M, width, p.HD, false);
        }
}

// out (M, HD) += weight (M, n) rows
void weighted_sum(const Problem& p, float* out, const float* weight, const Keys& keys, int g, int M,
                  const Run* run, int n_runs) {
    for (int r = 0; r < n_runs; r++)
        p.simd.outer(out, p.HD, weight + run[r].at, KEYS, 1, keys.rows[run[r].slot] + g * p.HD,
                     keys.rows.stride, M, p.HD, run[r].count, true);
}

// rows += weight (M, n)^T query (M, HD)
void scatter_sum(const Problem& p, Rows<float> rows, const float* weight, const float* query, int g, int M,
                 const Run* run, int n_runs) {
    for (int r = 0; r < n_runs; r++)
        p.simd.outer(rows[run[r].slot] + g * p.HD, rows.stride, weight + run[r].at, 1, KEYS, query, p.HD,
                     run[r].count, p.HD, M, true);
}

// The queries of a group as a dense (M, HD): row, then head.
void collect(const Problem& p, float* dense, Rows<const float> x, int begin, int end, int head, int count,
             float scale) {
    for (int t = begin; t < end; t++)
        memcpy(dense + (t - begin) * count * p.HD, x[t] + head * p.HD, size_t(count * p.HD) * sizeof(float));
    if (scale != 1) p.simd.multiply(dense, scale, (end - begin) * count * p.HD);
}

void forward_group(const Problem& p, Rows<float> out, Rows<float> lse, int g, int begin, int end, int head,
                   int count) {
    alignas(64) float query[MAX_M * MAX_HD], sum[MAX_M * MAX_HD], score[MAX_M * KEYS];
    float max[MAX_M], total[MAX_M];
    const int M = (end - begin) * count;
    collect(p, query, p.q, begin, end, head, count, p.scale());
    memset(sum, 0, size_t(M * p.HD) * sizeof(float));
    for (int m = 0; m < M; m++) max[m] = -INFINITY, total[m] = 0;
    KeyBlocks blocks(p.see[begin], 0, p.S);
    Run run[3];
    int n_runs;
    while (const int n = blocks.next(run, &n_runs)) {
        products(p, score, query, p.k, g, M, run, n_runs);
        for (int m = 0; m < M; m++) {
            float* s = score + m * KEYS;
            const float top = std::max(max[m], p.simd.max(s, n)), shrink = std::exp(max[m] - top);
            total[m] = total[m] * shrink + p.simd.exp(s, s, top, 1, n);
            if (shrink != 1) p.simd.multiply(sum + m * p.HD, shrink, p.HD);
            max[m] = top;
        }
        weighted_sum(p, sum, score, p.v, g, M, run, n_runs);
    }
    for (int m = 0; m < M; m++) {
        const int t = begin + m / count, h = head + m % count;
        p.simd.multiply(sum + m * p.HD, total[m] > 0 ? 1 / total[m] : 0, p.HD);
        memcpy(out[t] + h * p.HD, sum + m * p.HD, size_t(p.HD) * sizeof(float));
        lse[t][h] = max[m] + std::log(total[m]);
    }
}

struct Gradients {
    Rows<float> dq, dk, dv, D;
    Rows<const float> dout, out, lse;
};

// Adds to dk and dv at slots in [low, high) where KEYS_TOO, writes D and dq (of those slots alone) where
// QUERIES_TOO.
template <bool QUERIES_TOO, bool KEYS_TOO>
void backward_group(const Problem& p, const Gradients& grad, int g, int low, int high, int begin, int end,
                    int head, int count) {
    alignas(64) float query[MAX_M * MAX_HD], dout[MAX_M * MAX_HD], dq[MAX_M * MAX_HD], score[MAX_M * KEYS],
        dp[MAX_M * KEYS];
    const int M = (end - begin) * count;
    collect(p, query, p.q, begin, end, head, count, p.scale());
    collect(p, dout, grad.dout, begin, end, head, count, 1);
    if (QUERIES_TOO) {
        memset(dq, 0, size_t(M * p.HD) * sizeof(float));
        for (int m = 0; m < M; m++) {
            const int t = begin + m / count, h = head + m % count;
            grad.D[t][h] = p.simd.dot(dout + m * p.HD, grad.out[t] + h * p.HD, p.HD);
        }
    }
    KeyBlocks blocks(p.see[begin], low, high);
    Run run[3];
    int n_runs;
    while (const int n = blocks.next(run, &n_runs)) {
        products(p, score, query, p.k, g, M, run, n_runs);
        products(p, dp, dout, p.v, g, M, run, n_runs);
        for (int m = 0; m < M; m++) {
            const int t = begin + m / count, h = head + m % count;
            p.simd.softmax_backward(score + m * KEYS, dp + m * KEYS, grad.lse[t][h], grad.D[t][h], n);
        }
        if (QUERIES_TOO) weighted_sum(p, dq, dp, p.k, g, M, run, n_runs);
        if (KEYS_TOO) {
            scatter_sum(p, grad.dk, dp, query, g, M, run, n_runs);
            scatter_sum(p, grad.dv, score, dout, g, M, run, n_runs);
        }
    }
    if (!QUERIES_TOO) return;
    p.simd.multiply(dq, p.scale(), M * p.HD);
    for (int t = begin; t < end; t++)
        memcpy(grad.dq[t] + head * p.HD, dq + (t - begin) * count * p.HD,
               size_t(count * p.HD) * sizeof(float));
}

// ---- shared keys

// Which keys the groups of a call meet: slots [first, last), and the number of meetings of all groups of a head together.
struct Meetings {
    int first = 0, last = 0;
    int64_t keys = 0;
};
Meetings count_meetings(const Problem& p) {
    Meetings all{.first = p.S};
    for (int t = 0; t < p.T; t++) {
        if (t > 0 && same_spans(p.see[t], p.see[t - 1])) continue;
        for (int r = 0; r < 3; r++) {
            if (p.see[t].begin[r] >= p.see[t].end[r]) continue;
            all.keys += p.see[t].end[r] - p.see[t].begin[r];
            all.first = std::min(all.first, p.see[t].begin[r]);
            all.last = std::max(all.last, p.see[t].end[r]);
        }
    }
    return all;
}

// Fills in the panels of `n` Keys where a key is met twice or more on average.
void share_panels(Context& context, const Problem& p, Keys* const* keys, int n) {
    const Meetings all = count_meetings(p);
    if (all.keys < 2 * int64_t(all.last - all.first) || all.keys == 0) return;
    const int n_panels = (all.last - all.first + PANEL - 1) / PANEL;
    const int64_t size = int64_t(p.kv_heads) * n_panels * p.HD * PANEL;
    float* panels = context.floats(size_t(size * n));
    parallel_for(int64_t(n) * p.kv_heads * n_panels, p.HD * PANEL / 4, [&](int64_t item) {
        const int64_t g = item / n_panels % p.kv_heads;
        const int slot = all.first + int(item % n_panels) * PANEL;
        const Rows<const float>& rows = keys[item / n_panels / p.kv_heads]->rows;
        p.simd.transpose(panels + item * p.HD * PANEL, rows[slot] + g * p.HD, rows.stride,
                         std::min(PANEL, all.last - slot), p.HD);
    });
    for (int i = 0; i < n; i++) {
        keys[i]->panels = panels + i * size;
        keys[i]->first = all.first;
        keys[i]->n_panels = n_panels;
    }
}

Problem problem_of(const Context& context, Tensor q, Tensor k, Tensor v, Tensor see, int heads,
                   int kv_heads) {
    const int64_t T = q.rows, S = k.rows, HD = q.cols / heads;
    CHECK(HD * heads == q.cols && HD * kv_heads == k.cols && v.cols == k.cols && v.rows == S &&
              heads % kv_heads == 0 && HD <= MAX_HD,
          "q (%lld, %lld), k (%lld, %lld), v (%lld, %lld), %d heads on %d", (long long)T, (long long)q.cols,
          (long long)S, (long long)k.cols, (long long)v.rows, (long long)v.cols, heads, kv_heads);
    CHECK(see.rows == T && see.cols == SPAN_INTS && see.contiguous(), "spans are (%lld, %lld), not (%lld, 6)",
          (long long)see.rows, (long long)see.cols, (long long)T);
    const AttentionSpans* spans = reinterpret_cast<const AttentionSpans*>(see.as<int>());
    for (int64_t t = 0; t < T; t++)
        for (int r = 0; r < 3; r++)
            CHECK(spans[t].begin[r] >= spans[t].end[r] || (spans[t].begin[r] >= 0 && spans[t].end[r] <= S),
                  "row %lld sees slots [%d, %d) of %lld", (long long)t, spans[t].begin[r], spans[t].end[r],
                  (long long)S);
    return {context.simd,
            rows_of<const float>(q),
            {rows_of<const float>(k)},
            {rows_of<const float>(v)},
            spans,
            int(T),
            int(S),
            heads,
            kv_heads,
            int(HD)};
}

// f(first row, last row, key/value head), in parallel.
template <class F>
void for_items(const Problem& p, F&& f) {
    const int64_t items = (p.T + ROWS - 1) / ROWS;
    parallel_for_uneven(items * p.kv_heads, int64_t(ROWS) * p.share() * p.HD * 8, [&](int64_t item) {
        const int64_t i = item / p.kv_heads;
        f(item_begin(p, i), item_begin(p, i + 1), int(item % p.kv_heads));
    });
}

}  // namespace

void attention_forward(Context& context, Tensor out, Tensor lse, Tensor q, Tensor k, Tensor v, Tensor see,
                       int heads, int kv_heads) {
    Problem p = problem_of(context, q, k, v, see, heads, kv_heads);
    Keys* const shared[] = {&p.k};
    share_panels(context, p, shared, 1);
    const Rows<float> o = rows_of<float>(out), l = rows_of<float>(lse);
    for_items(p, [&](int begin, int end, int g) {
        for_groups(p, begin, end, g, [&](int t0, int t1, int head, int count) {
            forward_group(p, o, l, g, t0, t1, head, count);
        });
    });
}

void attention_backward(Context& context, Tensor dq, Tensor dk, Tensor dv, Tensor scratch, Tensor dout,
                        Tensor out, Tensor lse, Tensor q, Tensor k, Tensor v, Tensor see, int heads,
                        int kv_heads) {
    Problem p = problem_of(context, q, k, v, see, heads, kv_heads);
    Keys* const shared[] = {&p.k, &p.v};
    share_panels(context, p, shared, 2);
    const Gradients grad = {rows_of<float>(dq),       rows_of<float>(dk),         rows_of<float>(dv),
                            rows_of<float>(scratch),  rows_of<const float>(dout), rows_of<const float>(out),
                            rows_of<const float>(lse)};
    parallel_for(p.S, k.cols / 4, [&](int64_t s) {
        memset(grad.dk[s], 0, size_t(k.cols) * sizeof(float));
        memset(grad.dv[s], 0, size_t(k.cols) * sizeof(float));
    });
    const int threads = max_threads();
    if (kv_heads % threads == 0) {  // every thread has heads of its own: everything in one pass
        parallel_for(kv_heads, int64_t(p.T) * p.share() * p.HD * 8, [&](int64_t g) {
            for_groups(p, 0, p.T, int(g), [&](int t0, int t1, int head, int count) {
                backward_group<true, true>(p, grad, int(g), 0, p.S, t0, t1, head, count);
            });
        });
        return;
    }
    for_items(p, [&](int begin, int end, int g) {
        for_groups(p, begin, end, g, [&](int t0, int t1, int head, int count) {
            backward_group<true, false>(p, grad, g, 0, p.S, t0, t1, head, count);
        });
    });
    const int chunks = std::min((p.S + 63) / 64, (4 * threads + kv_heads - 1) / kv_heads);
    parallel_for_uneven(int64_t(chunks) * kv_heads, int64_t(p.T) * p.share() * p.HD, [&](int64_t item) {
        const int g = int(item % kv_heads), low = int(p.S * (item / kv_heads) / chunks),
                  high = int(p.S * (item / kv_heads + 1) / chunks);
        for_groups(p, 0, p.T, g, [&](int t0, int t1, int head, int count) {
            backward_group<false, true>(p, grad, g, low, high, t0, t1, head, count);
        });
    });
}

}  // namespace cpu
