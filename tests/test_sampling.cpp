#include "kernels/lm_head.h"
#include "kernels/sampling.h"
#include "tests/kernel_testing.h"

namespace {

constexpr int NO_MASK = -1;

std::vector<float> some_logits(int V, uint32_t seed = 1, double scale = 2) {
    const auto x = normals(size_t(V), seed, scale);
    return {x.begin(), x.end()};
}

// Runs head_sample on logits as they are: hidden is 1 (C = 1), the weight is the logits.
Sampled sample_one(Ops& ops, std::vector<float> logits, const SampleRow& row, int mask_id, int n_ids) {
    float one = 1;
    return sample_rows(ops, {row}, tensor(&one, 1, 1), tensor(logits.data(), int64_t(logits.size()), 1),
                       mask_id, n_ids)[0];
}

std::vector<int> support(const std::vector<double>& p) {
    std::vector<int> out;
    for (size_t i = 0; i < p.size(); i++)
        if (p[i] > 0) out.push_back(int(i));
    return out;
}

TEST(Sampling, TopKKeepsExactlyKAndTheLowestIdOfTies) {
    const std::vector<float> logits = {1, 3, 2, 3, 2, 2, 0};
    EXPECT_EQ(support(ref::filtered_distribution(logits, {.temperature = 1, .top_k = 3}, NO_MASK, 7)),
              (std::vector{1, 2, 3}));
    EXPECT_EQ(support(ref::filtered_distribution(logits, {.temperature = 1, .top_k = 4}, NO_MASK, 7)),
              (std::vector{1, 2, 3, 4}));
    EXPECT_EQ(support(ref::filtered_distribution(logits, {.temperature = 1, .top_k = 1}, NO_MASK, 7)),
              (std::vector{1}));
    EXPECT_EQ(support(ref::filtered_distribution(logits, {.temperature = 1, .top_k = 99}, NO_MASK, 7)).size(),
              7u);
}

TEST(Sampling, TopPKeepsTheIdThatCrosses) {
    const std::vector<float> logits = {std::log(0.1f), std::log(0.4f), std::log(0.2f), std::log(0.3f)};
    const auto kept = [&](float p) {
        return support(ref::filtered_distribution(logits, {.temperature = 1, .top_p = p}, NO_MASK, 4));
    };
    EXPECT_EQ(kept(0.05f), (std::vector{1}));  // the first is always kept
    EXPECT_EQ(kept(0.39f), (std::vector{1}));
    EXPECT_EQ(kept(0.5f), (std::vector{1, 3}));
    EXPECT_EQ(kept(0.75f), (std::vector{1, 2, 3}));
    EXPECT_EQ(kept(0.95f), (std::vector{0, 1, 2, 3}));
    EXPECT_EQ(kept(1), (std::vector{0, 1, 2, 3}));
}

TEST(Sampling, BansComeBeforeTopK) {
    const std::vector<float> logits = {1, 9, 2, 3, 8};
    EXPECT_EQ(
        support(ref::filtered_distribution(logits, {.temperature = 1, .top_k = 2}, /*mask*/ 1, /*n_ids*/ 4)),
        (std::vector{2, 3}));
}

TEST(Sampling, ArgmaxAtTemperatureZero) {
    for (const auto& ops : cpu_variants()) {
        SCOPED_TRACE(ops->device_name());
        std::vector<float> logits = {1, 5, 2, 5, 9, 5};
        for (Confidence confidence : {Confidence::Tempered, Confidence::Plain, Confidence::Filtered}) {
            const SampleRow row{.top_k = 1, .top_p = 0.1f, .confidence = confidence};
            const Sampled s = sample_one(*ops, logits, row, 4, 6);
            EXPECT_EQ(s.token, 1);  // 4 is the mask id; of the tied 1, 3, 5 the lowest
            const auto plain = ref::softmax(logits, 1);
            EXPECT_NEAR(s.confidence, plain[1], 1e-6);  // the banned id stays in the softmax
            EXPECT_NEAR(s.logprob, std::log(plain[1]), 1e-5);
            EXPECT_NEAR(s.entropy, ref::entropy(plain), 1e-5);
        }
        EXPECT_EQ(sample_one(*ops, logits, {}, 1, 4).token, 3);
        EXPECT_EQ(sample_one(*ops, logits, {}, NO_MASK, 6).token, 4);
        for (int V : {17, 40, 300})  // ties across vector lanes and chunks
            for (int first : {0, 1, V / 2, V - 2}) {
                std::vector<float> tied(static_cast<size_t>(V), -1.0f);
                tied[size_t(first)] = tied[size_t(V - 1)] = 3;
                EXPECT_EQ(sample_one(*ops, tied, {}, NO_MASK, V).token, first);
            }
    }
}

struct Case {
    const char* name;
    SampleRow row;
    int V, mask_id, n_ids;
};
void PrintTo(const Case& c, std::ostream* out) { *out << c.name; }
class SamplingCases : public testing::TestWithParam<Case> {};

// Pearson's chi-square of the draws against the exact filtered distribution; every number of the record
// against the reference.
TEST_P(SamplingCases, DrawsFollowTheFilteredDistribution) {
    const Case c = GetParam();
    const int DRAWS = 6000;
    std::vector<float> logits = some_logits(c.V);
    const auto expected = ref::filtered_distribution(logits, c.row, c.mask_id, c.n_ids);
    for (const auto& ops : cpu_variants()) {
        SCOPED_TRACE(ops->device_name());
        std::vector<SampleRow> rows_in(static_cast<size_t>(DRAWS), c.row);
        for (int i = 0; i < DRAWS; i++)
            rows_in[size_t(i)].seed = 42, rows_in[size_t(i)].sequence = uint32_t(i / 100),
            rows_in[size_t(i)].position = uint32_t(i % 100);
        std::vector<float> ones(DRAWS, 1.0f);
        const std::vector<Sampled> out = sample_rows(*ops, rows_in, tensor(ones.data(), DRAWS, 1),
                                                     tensor(logits.data(), c.V, 1), c.mask_id, c.n_ids);
        std::vector<int> count(static_cast<size_t>(c.V), 0);
        for (const Sampled& s : out) count[size_t(s.token)]++;
        double chi = 0, pooled_expected = 0, pooled_count = 0;
        int degrees = -1;
        for (int i = 0; i < c.V; i++) {
            const double e = expected[size_t(i)] * DRAWS;
            if (e == 0) {
                ASSERT_EQ(count[size_t(i)], 0) << "id " << i << " is filtered out";
            }
            if (e < 5) {  // rare ids share a cell
                pooled_expected += e, pooled_count += count[size_t(i)];
                continue;
            }
            chi += (count[size_t(i)] - e) * (count[size_t(i)] - e) / e;
            degrees++;
        }
        if (pooled_expected > 1)
            chi += (pooled_count - pooled_expected) * (pooled_count - pooled_expected) / pooled_expected,
                degrees++;
        // Wilson-Hilferty: the cube root of chi^2 / degrees is nearly normal; 4 standard deviations
        if (degrees > 0) {
            const double s = 2.0 / (9 * degrees);
            EXPECT_LT((std::cbrt(chi / degrees) - (1 - s)) / std::sqrt(s), 4.0)
                << "chi-square " << chi << " of " << degrees;
        }
        for (int i = 0; i < 50; i++) {
            const Sampled r = ref::sample(logits, rows_in[size_t(i)], c.mask_id, c.n_ids),
                          &s = out[size_t(i)];
            ASSERT_EQ(s.token, r.token);
            EXPECT_NEAR(s.confidence, r.confidence, 2e-6);
            EXPECT_NEAR(s.logprob, r.logprob, 1e-5);
            EXPECT_NEAR(s.entropy, r.entropy, 1e-5);
        }
    }
}
INSTANTIATE_TEST_SUITE_P(
    Filters, SamplingCases,
    testing::Values(
        Case{"plain draw", {.temperature = 1}, 13, NO_MASK, 13},
        Case{"gumbel", {.temperature = 1.3f, .draw = Draw::Gumbel}, 67, 3, 60},
        Case{"gumbel of chunks", {.temperature = 0.7f, .draw = Draw::Gumbel}, 1031, 5, 1030},
        Case{"gumbel filtered",
             {.temperature = 0.8f,
              .top_k = 20,
              .top_p = 0.9f,
              .confidence = Confidence::Filtered,
              .draw = Draw::Gumbel},
             300,
             5,
             290},
        Case{"margin", {.temperature = 0.7f, .top_k = 1, .margin = 1}, 67, 3, 60},
        Case{"margin filtered",
             {.temperature = 0.7f, .top_p = 0.8f, .confidence = Confidence::Filtered, .margin = 1},
             300,
             5,
             290},
        Case{"margin of one", {.temperature = 1, .confidence = Confidence::Plain, .margin = 1}, 5, 0, 2},
        Case{"hot", {.temperature = 2.5f, .confidence = Confidence::Plain}, 67, 3, 60},
        Case{"cold", {.temperature = 0.3f, .confidence = Confidence::Filtered}, 67, 3, 60},
        Case{"top-k", {.temperature = 1, .top_k = 7, .confidence = Confidence::Filtered}, 300, 5, 290},
        Case{"top-p", {.temperature = 1.3f, .top_p = 0.8f, .confidence = Confidence::Filtered}, 300, 5, 290},
        Case{"top-k and top-p", {.temperature = 0.8f, .top_k = 20, .top_p = 0.9f}, 300, 5, 290},
        Case{"top-p off the end",
             {.temperature = 1, .top_k = 3, .top_p = 0.9999f, .confidence = Confidence::Plain},
             31,
             NO_MASK,
             31},
        Case{"coldest", {.temperature = 1e-6f}, 67, 3, 60},
        Case{"coldest gumbel",
             {.temperature = 1e-6f, .confidence = Confidence::Filtered, .draw = Draw::Gumbel},
             300,
             5,
             290},
        Case{"coldest top-p",
             {.temperature = 1e-6f, .top_p = 0.9f, .confidence = Confidence::Filtered},
             67,
             3,
             60},
        Case{"coldest top-k", {.temperature = 1e-6f, .top_k = 20, .margin = 1}, 67, 3, 60},
        Case{"one id left", {.temperature = 1, .confidence = Confidence::Filtered}, 5, 0, 2}),
    [](const auto& info) {
        std::string name = info.param.name;
        for (char& ch : name)
            if (!isalnum(ch)) ch = '_';
        return name;
    });

TEST(Sampling, MarginOfTwoThatAreTied) {
    for (const auto& ops : cpu_variants()) {
        EXPECT_EQ(sample_one(*ops, {1, 5, 2, 5, 9}, {.margin = 1}, 4, 5).confidence, 0);
        const auto plain = ref::softmax(std::vector<float>{1, 5, 2, 9}, 1);
        EXPECT_NEAR(sample_one(*ops, {1, 5, 2, 9}, {.margin = 1}, 3, 4).confidence, plain[1] - plain[2],
                    1e-6);
    }
}

TEST(Sampling, TopKWithTiesDrawsOnlyTheKept) {
    std::vector<float> logits(100, 0.5f);
    logits[50] = 1;
    for (const auto& ops : cpu_variants())
        for (uint32_t position = 0; position < 300; position++) {
            const Sampled s =
                sample_one(*ops, logits, {.position = position, .temperature = 1, .top_k = 4}, 1, 100);
            EXPECT_TRUE(s.token == 50 || s.token == 0 || s.token == 2 || s.token == 3) << s.token;
        }
}

// Bit for bit the same whoever shares the batch, with real hidden states, every filter, and both weight
// types.
TEST(Sampling, DoesNotDependOnTheBatch) {
    const int N = 19, C = 24, V = 2053;
    for (const auto& ops : cpu_variants()) {
        SCOPED_TRACE(ops->device_name());
        Matrix x = Matrix::random(N, C, 1), w = Matrix::random(V, C, 2, 0, 0.5);
        std::vector<Bf16> half = w.round_to_bf16();
        std::vector<SampleRow> rows_in(N);
        for (int n = 0; n < N; n++)
            rows_in[size_t(n)] = {.seed = 7,
                                  .sequence = uint32_t(n),
                                  .temperature = n % 3 ? 0.9f : 0,
                                  .top_k = n % 4 ? 0 : 30,
                                  .top_p = n % 5 ? 1 : 0.7f,
                                  .confidence = Confidence(n % 3)};
        const std::vector<Sampled> all = sample_rows(*ops, rows_in, x, w, 3, V - 5);
        const std::vector<Sampled> bf16 =
            sample_rows(*ops, rows_in, x, tensor(half.data(), V, C, DType::BF16), 3, V - 5);
        for (int n = 0; n < N; n++) {
            const Sampled one =
                sample_rows(*ops, {rows_in[size_t(n)]}, x.tensor().row_range(n, n + 1), w, 3, V - 5)[0];
            for (const Sampled& s : {all[size_t(n)], bf16[size_t(n)]}) {
                EXPECT_EQ(one.token, s.token);
                EXPECT_EQ(one.confidence, s.confidence);
                EXPECT_EQ(one.logprob, s.logprob);
                EXPECT_EQ(one.entropy, s.entropy);
            }
        }
    }
}

// What the sampler records is what the trainer computes.
TEST(Sampling, LogprobIsThatOfTheHead) {
    const int N = 9, C = 32, V = 301;
    for (const auto& ops : cpu_variants()) {
        Matrix x = Matrix::random(N, C, 1), w = Matrix::random(V, C, 2, 0, 0.5), p(1, N), lse(1, N);
        std::vector<SampleRow> rows_in(N);
        for (int n = 0; n < N; n++)
            rows_in[size_t(n)] = {.position = uint32_t(n), .temperature = 0.7f, .top_k = 10};
        const std::vector<Sampled> out = sample_rows(*ops, rows_in, x, w, 0, V);
        std::vector<int> target;
        for (const Sampled& s : out) target.push_back(s.token);
        ops->head_logprob(p, lse, {}, x, w, ints(target));
        for (int n = 0; n < N; n++) EXPECT_NEAR(out[size_t(n)].logprob, p.at(0, n), 1e-5);
    }
}

TEST(Sampling, RefusesWhereNothingMayBeDrawn) {
    EXPECT_THROW(sample_one(*make_cpu_ops(), {1, 2}, {}, 0, 1), Error);
    EXPECT_THROW(sample_one(*make_cpu_ops(), {1, 2}, {}, NO_MASK, 0), Error);
}

}  // namespace
