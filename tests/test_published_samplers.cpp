// LLaDA's and Dream's decoding against their published pseudo-code, written out here step by step, on random tables.
#include <gtest/gtest.h>

#include <map>
#include <numeric>
#include <set>

#include "inference/options.h"
#include "kernels/reveal_block.h"
#include "kernels/sampling.h"
#include "tests/kernel_testing.h"

namespace {

using Positions = std::vector<int>;
using Table = std::vector<std::vector<double>>;  // a row per position

// ---- LLaDA: generate.py

std::vector<int> get_num_transfer_tokens(int mask_num, int steps) {
    const int base = mask_num / steps, remainder = mask_num % steps;
    std::vector<int> n(size_t(steps), base);
    for (int i = 0; i < remainder; i++) n[size_t(i)] += 1;
    return n;
}

// torch.topk of what is masked
Positions topk(const std::vector<char>& masked, const std::vector<double>& confidence, int n) {
    std::vector<std::pair<double, int>> all;
    for (size_t i = 0; i < masked.size(); i++)
        if (masked[i]) all.push_back({-confidence[i], int(i)});
    std::sort(all.begin(), all.end());
    Positions out;
    for (size_t i = 0; i < std::min(all.size(), size_t(n)); i++) out.push_back(all[i].second);
    std::sort(out.begin(), out.end());
    return out;
}

// ---- Dream: diffusion_generate

std::vector<float> linspace(float start, float end, int points) {  // of torch, in fp32
    std::vector<float> out;
    const float step = (end - start) / float(points - 1);
    for (int i = 0; i < points; i++)
        out.push_back(i < points / 2 ? std::fma(step, float(i), start)
                                     : std::fma(-step, float(points - 1 - i), end));
    return out;
}

int number_transfer_tokens(int num_mask_token, const std::vector<float>& timesteps, int i) {
    const int steps = int(timesteps.size()) - 1;
    const float t = timesteps[size_t(i)], s = timesteps[size_t(i) + 1];
    return i < steps - 1 ? int(float(num_mask_token) * (1 - s / t)) : num_mask_token;
}

// sample_tokens() but for its draw: the distribution of a row.
std::vector<double> filtered(std::vector<double> logits, double temperature, double top_p) {
    for (double& x : logits) x = temperature > 0 ? x / temperature : x;
    std::vector<size_t> order(logits.size());
    std::iota(order.begin(), order.end(), 0);
    std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return logits[a] > logits[b]; });
    std::vector<double> p(logits.size());
    double sum = 0, cumulative = 0, kept = 0;
    for (size_t i = 0; i < p.size(); i++) sum += p[i] = std::exp(logits[i]);
    for (const size_t i : order) {
        const bool removed = top_p < 1 && cumulative > top_p;  // what came before is more than top_p already
        cumulative += p[i] / sum;
        if (removed) p[i] = 0;
        kept += p[i];
    }
    for (double& x : p) x /= kept;
    return p;
}

double dream_confidence(const std::string& alg, const std::vector<double>& probs, int x0) {
    if (alg == "topk_margin") {
        std::vector<double> sorted = probs;
        std::sort(sorted.rbegin(), sorted.rend());
        return sorted[0] - sorted[1];
    }
    if (alg == "entropy") {
        double sum = 0;
        for (const double p : probs) sum += p * std::log(p + 1e-10);
        return sum;
    }
    return probs[size_t(x0)];  // maskgit_plus
}

// ---- ours

Table random_table(int rows, int V, uint32_t seed) {
    Table out;
    Rng rng(seed, Stream::Noise);
    for (int n = 0; n < rows; n++) {
        out.emplace_back();
        for (int v = 0; v < V; v++) out.back().push_back(2.0 * double(rng.normal()));
    }
    return out;
}

SampleRow row_of(const GenerateOptions& o, int position, int step) {
    return {.seed = 5,
            .sequence = 3,
            .position = uint32_t(position),
            .step = uint32_t(step),
            .temperature = o.temperature,
            .top_k = o.top_k,
            .top_p = o.top_p,
            .confidence = o.confidence,
            .margin = o.remasking == Remasking::Margin};
}

// A candidate of every row of logits, which are the LM head's weights under a hidden state of one 1.
std::vector<Sampled> draw(const Table& logits, const std::vector<SampleRow>& rows) {
    const int N = int(logits.size()), V = int(logits[0].size());
    std::vector<float> hidden(size_t(N * N)), weight(size_t(V * N));
    for (int n = 0; n < N; n++) {
        hidden[size_t(n * N + n)] = 1;
        for (int v = 0; v < V; v++) weight[size_t(v * N + n)] = float(logits[size_t(n)][size_t(v)]);
    }
    return sample_rows(*make_cpu_ops(), rows, tensor(hidden.data(), N, N), tensor(weight.data(), V, N), -1,
                       V);
}

GenerateOptions preset(const std::string& name) {
    GenerateOptions o;
    apply_preset(o, name);
    return o;
}

Remasking remasking(const std::string& name) {
    for (const auto& [known, rule] : remasking_names())
        if (known == name) return rule;
    throw std::invalid_argument(name);
}

std::vector<int> counts(int masks, int steps, float eps = 1e-3f) {
    const RevealRule rule{.remasking = Remasking::Entropy,
                          .schedule = RevealSchedule::Timesteps,
                          .block = masks,
                          .steps = steps,
                          .eps = eps};
    std::vector<int> out;
    for (int i = 0; i < steps; i++) {
        out.push_back(is_last_step(rule, i) ? masks : reveal_count(rule, i, masks));
        EXPECT_EQ(surely_revealed(rule, i, masks), out.back());
        masks -= out.back();
    }
    return out;
}

}  // namespace

TEST(Llada, RevealsWhatGeneratePyReveals) {
    for (const auto& [block, steps] : {std::pair{8, 8}, {8, 3}, {32, 5}, {7, 2}, {1, 1}})
        for (const bool random : {false, true}) {
            GenerateOptions o = preset("llada");
            if (random) o.remasking = Remasking::Random;
            o.block = block, o.steps = steps;
            std::vector<char> masked(size_t(block), 1);
            const std::vector<int> n = get_num_transfer_tokens(block, steps);
            for (int i = 0; i < steps; i++) {
                Rng rng(uint32_t(100 * block + i), Stream::Noise);
                std::vector<double> x0_p, u;
                std::vector<float> confidence;
                for (int k = 0; k < block; k++) {
                    confidence.push_back(rng.uniform());
                    u.push_back(double(rng.uniform()));
                    x0_p.push_back(random ? u.back() : double(confidence.back()));
                }
                const Positions want = topk(masked, x0_p, n[size_t(i)]);
                EXPECT_EQ(ref::reveal_step(masked, confidence, confidence, i, o.reveal_rule(), u), want);
                for (const int k : want) masked[size_t(k)] = 0;
            }
            EXPECT_EQ(std::count(masked.begin(), masked.end(), 1), 0);
        }
}

// logits.exp() / (-log u) ** temperature in double, and its argmax.
TEST(Llada, GumbelNoiseIsThatOfTheTokensNumbers) {
    const int V = 301;
    const Table logits = random_table(40, V, 1);
    for (const float temperature : {0.3f, 1.0f, 2.0f}) {
        std::vector<SampleRow> rows;
        for (int n = 0; n < int(logits.size()); n++) {
            rows.push_back({.seed = 9, .position = uint32_t(n), .step = 4, .temperature = temperature});
            rows.back().draw = Draw::Gumbel;
        }
        const std::vector<Sampled> got = draw(logits, rows);
        std::set<int> different;
        for (size_t n = 0; n < rows.size(); n++) {
            int x0 = 0;
            double best = -1;
            for (int v = 0; v < V; v++) {
                const double u = gumbel_uniforms(rows[n], v / 2).u[v % 2];
                const double y = std::exp(double(float(logits[n][size_t(v)]))) /
                                 std::pow(-std::log(u), double(temperature));
                if (y > best) best = y, x0 = v;
            }
            ASSERT_EQ(got[n].token, x0) << "row " << n << " at " << temperature;
            different.insert(x0);
        }
        EXPECT_GT(different.size(), 10u);
    }
}

// Measured with torch, fp32.
TEST(Dream, CountsOfItsTimesteps) {
    EXPECT_EQ(counts(32, 8), (std::vector{3, 4, 4, 4, 4, 4, 4, 5}));
    EXPECT_EQ(counts(32, 5), (std::vector{6, 6, 6, 6, 8}));
    std::vector<int> want(16, 4);
    want.front() = 3, want.back() = 5;
    EXPECT_EQ(counts(64, 16), want);
    want.assign(64, 1);
    want.front() = 0, want.back() = 2;
    EXPECT_EQ(counts(64, 64), want);
    EXPECT_EQ(counts(5, 1), (std::vector{5}));
    for (const int steps : {1, 2, 7, 128, 512}) {
        const RevealRule rule{.steps = steps};
        const std::vector<float> t = linspace(1, 1e-3f, steps + 1);
        for (int i = 0; i <= steps; i++) ASSERT_EQ(timestep(rule, i), t[size_t(i)]) << i << " of " << steps;
        for (const float eps : {0.0f, 1e-3f, 0.5f}) {
            const std::vector<float> times = linspace(1, eps, steps + 1);
            int left = 300, i = 0;
            for (const int n : counts(left, steps, eps)) {
                ASSERT_EQ(n, number_transfer_tokens(left, times, i++)) << "eps " << eps;
                left -= n;
            }
        }
    }
}

TEST(Dream, RevealsWhatDiffusionGenerateReveals) {
    const int masks = 24, V = 37;
    for (const std::string alg : {"maskgit_plus", "topk_margin", "entropy"})
        for (const float temperature : {0.0f, 0.7f})
            for (const int steps : {5, 24}) {
                GenerateOptions o = preset("dream");
                o.gen_length = masks, o.steps = steps;
                o.temperature = temperature;
                o.top_p = temperature > 0 ? 0.8f : 1;
                o.remasking = remasking(alg);
                const std::vector<float> timesteps = linspace(1, 1e-3f, steps + 1);
                std::vector<char> masked(masks, 1);
                for (int i = 0; i < steps; i++) {
                    const Table logits = random_table(masks, V, uint32_t(i));
                    std::vector<SampleRow> rows;
                    for (int k = 0; k < masks; k++) rows.push_back(row_of(o, k, i + 1));
                    const std::vector<Sampled> drawn = draw(logits, rows);
                    std::vector<double> published;
                    std::vector<float> confidence, entropy;
                    for (int k = 0; k < masks; k++) {
                        const Sampled& d = drawn[size_t(k)];
                        const auto probs = filtered(logits[size_t(k)], double(temperature), double(o.top_p));
                        published.push_back(dream_confidence(alg, probs, d.token));
                        confidence.push_back(d.confidence), entropy.push_back(d.entropy);
                        EXPECT_NEAR(alg == "entropy" ? -d.entropy : d.confidence, published.back(), 1e-5);
                    }
                    const int m = int(std::count(masked.begin(), masked.end(), 1));
                    const Positions want = topk(masked, published, number_transfer_tokens(m, timesteps, i));
                    EXPECT_EQ(ref::reveal_step(masked, confidence, entropy, i, o.reveal_rule()), want)
                        << alg << " step " << i;
                    for (const int k : want) masked[size_t(k)] = 0;
                }
                EXPECT_EQ(std::count(masked.begin(), masked.end(), 1), 0);
            }
}

TEST(Dream, OriginRevealsEveryPositionForItself) {
    const int masks = 64, steps = 6;
    GenerateOptions o = preset("dream");
    o.remasking = Remasking::Origin;
    o.gen_length = masks, o.steps = steps;
    const std::vector<float> t = linspace(1, 1e-3f, steps + 1), none(masks, 0.0f);
    std::vector<double> revealed(steps, 0), reached(steps, 0);
    for (uint32_t sequence = 0; sequence < 200; sequence++) {
        std::vector<char> masked(masks, 1);
        for (int i = 0; i < steps; i++) {
            std::vector<double> u;
            Positions want;
            const double p_transfer = i < steps - 1 ? double(1 - t[size_t(i) + 1] / t[size_t(i)]) : 1;
            for (int k = 0; k < masks; k++) {
                u.push_back(order_uniform(
                    {.seed = 1, .sequence = sequence, .position = uint32_t(k), .step = uint32_t(i + 1)}));
                if (masked[size_t(k)] && u.back() < p_transfer) want.push_back(k);
            }
            EXPECT_EQ(ref::reveal_step(masked, none, none, i, o.reveal_rule(), u), want);
            reached[size_t(i)] += double(std::count(masked.begin(), masked.end(), 1));
            revealed[size_t(i)] += double(want.size());
            for (const int k : want) masked[size_t(k)] = 0;
        }
        EXPECT_EQ(std::count(masked.begin(), masked.end(), 1), 0);
    }
    for (int i = 0; i < steps; i++) {  // four standard deviations of a binomial share
        const double p = i < steps - 1 ? double(1 - t[size_t(i) + 1] / t[size_t(i)]) : 1;
        EXPECT_NEAR(revealed[size_t(i)] / reached[size_t(i)], p,
                    4 * std::sqrt(p * (1 - p) / reached[size_t(i)]) + 1e-12);
    }
}

// torch.multinomial(softmax(confidence / alg_temp), 2), without replacement: every pair as often as it should be.
TEST(Dream, AnOrderWithATemperatureIsDrawnWithoutReplacement) {
    const std::vector<char> masked = {1, 1, 0, 1, 1};
    const std::vector<float> confidence = {0.9f, 0.5f, 1.0f, 0.1f, 0.6f},
                             entropy = {0.1f, 0.6f, 0, 2.0f, 0.5f};
    const int DRAWS = 20000;
    for (const std::string alg : {"maskgit_plus", "entropy"}) {
        const RevealRule rule{.remasking = remasking(alg), .block = 4, .steps = 2, .order_temperature = 0.4f};
        std::vector<double> p(masked.size(), 0.0);
        double sum = 0;
        for (size_t i = 0; i < p.size(); i++)
            if (masked[i])
                sum += p[i] = std::exp(double(alg == "entropy" ? -entropy[i] : confidence[i]) / 0.4);
        for (double& x : p) x /= sum;
        std::map<Positions, double> want, got;
        for (int a = 0; a < 5; a++)
            for (int b = 0; b < 5; b++)
                if (a != b && masked[size_t(a)] && masked[size_t(b)])
                    want[{std::min(a, b), std::max(a, b)}] +=
                        p[size_t(a)] * p[size_t(b)] / (1 - p[size_t(a)]);
        for (uint32_t n = 0; n < DRAWS; n++) {
            std::vector<double> u;
            for (uint32_t k = 0; k < masked.size(); k++)
                u.push_back(order_uniform({.seed = 2, .sequence = n, .position = k, .step = 1}));
            got[ref::reveal_step(masked, confidence, entropy, 0, rule, u)]++;
        }
        EXPECT_EQ(got.size(), want.size());
        for (const auto& [pair, share] : want)
            EXPECT_NEAR(got[pair] / DRAWS, share, 4 * std::sqrt(share * (1 - share) / DRAWS)) << alg;
    }
}

TEST(GenerateOptions, PublishedNamesAndPresets) {
    EXPECT_EQ(remasking("low_confidence"), Remasking::LowConfidenceStatic);
    EXPECT_EQ(remasking("maskgit_plus"), Remasking::LowConfidenceStatic);
    EXPECT_STREQ(name_of(Remasking::LowConfidenceStatic), "low_confidence_static");
    EXPECT_STREQ(name_of(Remasking::Margin), "topk_margin");
    const GenerateOptions llada = preset("llada"), dream = preset("dream");
    EXPECT_EQ(llada.block, GenerateOptions().block);
    EXPECT_EQ(llada.confidence, Confidence::Plain);
    EXPECT_EQ(dream.block, WHOLE_CANVAS);
    EXPECT_EQ(dream.reveal_rule().block, dream.gen_length);
    EXPECT_EQ(dream.reveal_rule().steps, dream.gen_length);
    GenerateOptions origin;
    origin.remasking = Remasking::Origin;
    EXPECT_EQ(origin.reveal_rule().schedule, RevealSchedule::Timesteps);
}

// 1 / 1e-39 is infinite in fp32.
TEST(GenerateOptions, ATemperatureIsZeroOrOneThatLogitsCanBeDividedBy) {
    ModelConfig config;
    config.V = 100;
    GenerateOptions o;
    for (const float t : {0.0f, MIN_TEMPERATURE, 0.7f, 1e6f}) {
        o.temperature = t;
        EXPECT_TRUE(faults(o, config).empty()) << t;
    }
    for (const float t : {1e-39f, 9e-7f, -1.0f, INFINITY, NAN}) {
        o.temperature = t;
        EXPECT_EQ(faults(o, config).size(), 1u) << t;
    }
    o.temperature = 1e-39f;
    EXPECT_EQ(faults(o, config)[0], "--temperature 1e-39: 0 (greedy), or 1e-06 and more");
}

TEST(GenerateOptions, ACanvasOnlyWhereThereIsOne) {
    ModelConfig blocks, canvas;
    blocks.V = canvas.V = 100;
    canvas.full_attention = true;
    const auto refused = [](const GenerateOptions& o, const ModelConfig& config) {
        const std::vector<std::string> all = faults(o, config);
        return all.empty() ? "" : all[0];
    };
    GenerateOptions o;
    o.remasking = Remasking::Origin;
    EXPECT_EQ(refused(o, canvas), "");
    EXPECT_NE(refused(o, blocks).find("use random"), std::string::npos);
    o.remasking = Remasking::Random;
    EXPECT_EQ(refused(o, blocks), "");
    EXPECT_EQ(refused(preset("dream"), canvas), "");
    EXPECT_NE(refused(preset("dream"), blocks).find("--preset dream"), std::string::npos);
    o.block = WHOLE_CANVAS;
    EXPECT_NE(refused(o, blocks).find("--block 65536"), std::string::npos);
    o.order_temperature = -1;
    o.eps = 1;
    EXPECT_EQ(faults(o, canvas).size(), 2u);
}
