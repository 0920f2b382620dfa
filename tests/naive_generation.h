// naive_generation.h -- the engine's truth: greedy generation without packing and without a batch, in double.
#pragma once
#include <algorithm>
#include <numeric>

#include "inference/engine.h"
#include "kernels/reveal_block.h"
#include "tests/naive_network.h"
#include "tests/random_model.h"

class NaiveGeneration {
  public:
    explicit NaiveGeneration(const RandomModel& m) : config_(m.config), network_(m.config, m.weights) {}
    virtual ~NaiveGeneration() = default;

    using Hidden = NaiveNetwork<double>::Rows;

    // The candidate for a position at temperature 0, given the hidden states of all positions. guidance: away from what follows
    // from `without`, those of the masked prompt.
    Sampled candidate(const Hidden& hidden, int position, const GenerateOptions& o,
                      const Hidden& without = {}) const {
        const size_t row = size_t(config_.shift ? std::max(position - 1, 0) : position);
        auto h = hidden[row];
        for (size_t i = 0; i < h.size() && o.cfg_scale > 0; i++)
            h[i] = without[row][i] + (double(o.cfg_scale) + 1) * (h[i] - without[row][i]);
        const auto& head = network_.w.at(config_.tied ? "model.embed_tokens.weight" : "lm_head.weight");
        std::vector<double> p(size_t(config_.V), 0.0);
        double largest = -1e300, sum = 0, entropy = 0;
        for (int v = 0; v < config_.V; v++) {
            for (int i = 0; i < config_.C; i++)
                p[size_t(v)] += h[size_t(i)] * head[size_t(v * config_.C + i)];
            largest = std::max(largest, p[size_t(v)]);
        }
        for (double& x : p) sum += x = std::exp(x - largest);
        int best = -1;
        double second = 0;
        for (int v = 0; v < config_.V; v++) {
            p[size_t(v)] /= sum;
            entropy -= p[size_t(v)] * std::log(p[size_t(v)]);
            if (v == config_.mask_id || v == config_.V - 1) continue;
            if (best < 0 || p[size_t(v)] > p[size_t(best)]) {
                second = best < 0 ? 0 : p[size_t(best)];
                best = v;
            } else {
                second = std::max(second, p[size_t(v)]);
            }
        }
        const double largest_p = p[size_t(best)],
                     confidence = o.remasking == Remasking::Margin ? largest_p - second : largest_p;
        return {best, float(confidence), float(std::log(largest_p)), float(entropy)};
    }

    // What a denoising step of the block [lo, hi) sees: hidden states by position, of those positions at least whose rows
    // predict the block's. Here: one dense forward pass over the sequence as it stands. `step`: of the block, 0 first.
    virtual Hidden look([[maybe_unused]] const Request& r, const std::vector<int>& ids,
                        [[maybe_unused]] int lo, [[maybe_unused]] int hi, [[maybe_unused]] int step) {
        const int B = r.options.block_length();
        return network_.forward(ids, [&](int i, int j) { return config_.full_attention || j / B <= i / B; });
    }

    Trajectory generate(const Request& r) {
        const int P = int(r.prompt_ids.size()), B = r.options.block_length(),
                  limit = P + r.options.gen_length;
        const bool blocks = !config_.full_attention && !config_.shift;
        const int n = blocks ? (limit + B - 1) / B * B : limit;
        std::vector<int> token = r.prompt_ids, step(size_t(P), 0);
        token.resize(size_t(n), NEVER);
        step.resize(size_t(n), NEVER);
        std::vector<float> logprob(size_t(n), 0.0f);
        std::vector<double> nats(size_t(n), 0.0);
        Trajectory t;
        int now = 0, end = limit, hi = 0;
        for (int lo = blocks ? P / B * B : P; t.finish_reason.empty(); lo = hi) {
            hi = std::min(lo + B, n);
            for (int s = 0; t.finish_reason.empty(); s++) {
                std::vector<int> masked,
                    ids(token.begin(), token.begin() + (config_.full_attention ? n : hi));
                std::vector<float> confidence, entropy;
                std::vector<double> u;
                std::vector<Sampled> drawn;
                for (int i = lo; i < hi; i++)
                    if (step[size_t(i)] == NEVER) masked.push_back(i);
                if (masked.empty()) break;
                if (config_.mask_id < 0) ids.pop_back();  // autoregressive: nothing stands there yet
                for (size_t i = 0; i < ids.size(); i++)
                    if (step[i] == NEVER) ids[i] = config_.mask_id;
                const Hidden hidden = look(r, ids, lo, hi, s);
                Hidden without;
                if (r.options.cfg_scale > 0) {
                    std::fill(ids.begin(), ids.begin() + P, config_.mask_id);
                    without = look(r, ids, lo, hi, s);
                }
                for (const int i : masked) {
                    drawn.push_back(candidate(hidden, i, r.options, without));
                    u.push_back(order_uniform({.seed = r.options.seed,
                                               .sequence = r.sequence,
                                               .position = uint32_t(i),
                                               .step = uint32_t(now + 1)}));
                    confidence.push_back(drawn.back().confidence);
                    entropy.push_back(drawn.back().entropy);
                }
                now++;
                for (const int i : ref::reveal_step(std::vector<char>(masked.size(), 1), confidence, entropy,
                                                    s, r.options.reveal_rule(), u)) {
                    const size_t at = size_t(masked[size_t(i)]);
                    token[at] = drawn[size_t(i)].token;
                    logprob[at] = drawn[size_t(i)].logprob;
                    nats[at] = double(drawn[size_t(i)].entropy);
                    step[at] = now;
                }
                for (int i = P; i < limit && step[size_t(i)] != NEVER; i++) {
                    const std::vector<int>& stops = r.options.stop_ids;
                    if (std::find(stops.begin(), stops.end(), token[size_t(i)]) != stops.end()) {
                        t.finish_reason = "stop";
                        end = i + 1;
                        break;
                    }
                    if (i == limit - 1) t.finish_reason = "length";
                }
            }
        }
        const int tail_end = config_.full_attention ? n : hi;
        t.output_ids.assign(token.begin() + P, token.begin() + end);
        t.step_map.assign(step.begin() + P, step.begin() + end);
        t.logprobs.assign(logprob.begin() + P, logprob.begin() + end);
        t.tail_ids.assign(token.begin() + end, token.begin() + tail_end);
        t.tail_steps.assign(step.begin() + end, step.begin() + tail_end);
        t.denoise_steps = now;
        t.entropy = std::accumulate(nats.begin() + P, nats.begin() + end, 0.0) / (end - P);
        return t;
    }

  protected:
    const ModelConfig& config_;
    NaiveNetwork<double> network_;
};

// The approximate caches as Fast-dLLM and dLLM-RL publish them: the pass that opens a block is dense and its keys and values
// are kept; the others have rows of their own, and whatever else they see is what was kept.
class NaiveCachedCanvas : public NaiveGeneration {
  public:
    using NaiveGeneration::NaiveGeneration;

    NaiveNetwork<double>::Rows look(const Request& r, const std::vector<int>& ids, int lo, int hi,
                                    int step) override {
        const int n = int(ids.size());
        int begin = 0, end = n, sees = n;
        if (step > 0 && r.options.cache == Cache::Prefix) {
            const int horizon = r.options.further_horizon;
            begin = lo, end = sees = horizon < 0 ? n : std::min(hi + horizon, n);
        }
        if (step > 0 && r.options.cache == Cache::Dual) begin = lo, end = hi;
        if (step > 0 && config_.shift && begin > 0) begin--;
        std::vector<int> rows;
        for (int i = begin; i < end; i++) rows.push_back(i);
        n_rows += int64_t(rows.size());
        const auto some = network_.forward(ids, rows, kept_, [&](int, int j) { return j < sees; });
        NaiveNetwork<double>::Rows hidden(ids.size());
        for (int i = begin; i < end; i++) hidden[size_t(i)] = some[size_t(i - begin)];
        return hidden;
    }
    int64_t n_rows = 0;  // forwarded so far

  private:
    NaiveNetwork<double>::Kept kept_;
};
