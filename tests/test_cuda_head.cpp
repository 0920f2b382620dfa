// The LM head and the sampler on CUDA against the references, with a workspace that cuts rows and vocabulary
// into many tiles.
#include <numeric>

#include "tests/cuda_testing.h"
// after the references' scalar
#include "kernels/lm_head.h"
#include "kernels/sampling.h"

namespace {

struct Shape {
    DType dtype;
    int N, C, V;
    size_t workspace;
};
void PrintTo(const Shape& s, std::ostream* out) {
    *out << name_of(s.dtype) << " " << s.N << "x" << s.C << "x" << s.V;
}

class CudaHead : public testing::TestWithParam<Shape> {};

constexpr int NO_MASK = -1;

// head_sample on logits as they are: hidden is 1 (C = 1), the weight is the logits.
std::vector<Sampled> sample_logits(Ops& ops, const std::vector<float>& logits,
                                   const std::vector<SampleRow>& rows, int mask_id, int n_ids) {
    const DeviceMatrix hidden(ops, int64_t(rows.size()), 1, DType::F32,
                              std::vector<float>(rows.size(), 1.0f));
    const DeviceMatrix weight(ops, int64_t(logits.size()), 1, DType::F32, logits);
    return sample_rows(ops, rows, hidden, weight, mask_id, n_ids);
}

}  // namespace

TEST_P(CudaHead, LogprobAndGradient) {
    const auto [dtype, N, C, V, workspace] = GetParam();
    const std::unique_ptr<Ops> ops = cuda_ops_for_tests(workspace);
    const DeviceMatrix x(*ops, N, C, dtype, random_floats(size_t(N * C), 1)),
        w(*ops, V, C, dtype, random_floats(size_t(V * C), 2));
    const DeviceMatrix d(*ops, 1, N, DType::F32, random_floats(size_t(N), 3));
    const std::vector<int> target = random_ints(size_t(N), V, 4);
    const DeviceInts device_target(*ops, target);
    DeviceMatrix logprob(*ops, 1, N, DType::F32), lse(*ops, 1, N, DType::F32),
        entropy(*ops, 1, N, DType::F32);
    DeviceMatrix dx(*ops, N, C, dtype), dx_alone(*ops, N, C, dtype),
        dw(*ops, V, C, DType::F32, random_floats(size_t(V * C), 5));
    const Expected want(dtype, [&, N = N, C = C, V = V]<class X>(X) {
        std::vector<X> p(static_cast<size_t>(N)), l(p), e(p), gx(size_t(N * C)), gw = dw.values<X>();
        const auto xs = x.values<X>(), ws = w.values<X>(), ds = d.values<X>();
        ref::head_logprob<X>(p.data(), l.data(), e.data(), rows(xs, C), rows(ws, C), target.data(), N, C, V);
        ref::head_backward<X>(rows(gx, C), rows(gw, C), ds.data(), l.data(), rows(xs, C), rows(ws, C),
                              target.data(), N, C, V);
        return Vectors<X>{p, l, e, gx, gw};
    });
    ops->head_logprob(logprob, lse, entropy, x, w, device_target);
    ops->head_backward(dx, dw, d, lse, x, w, device_target);
    ops->head_backward(dx_alone, {}, d, lse, x, w, device_target);
    want.check(logprob, 0, "logprob", false);
    want.check(lse, 1, "lse", false);
    want.check(entropy, 2, "entropy", false);
    want.check(dx, 3, "dhidden");
    want.check(dw, 4, "dweight", false);
    EXPECT_EQ(dx.read(), dx_alone.read());
    // logits are fp32 sums of exact products, whatever the type: what is logged as a mismatch must not come
    // from here
    for (int i = 0; i < N; i++) EXPECT_NEAR(logprob.read()[size_t(i)], want.exact(0)[size_t(i)], 2e-5);
}
INSTANTIATE_TEST_SUITE_P(
    Ragged, CudaHead,
    testing::Values(
        Shape{DType::F32, 1, 3, 2, 64 << 10}, Shape{DType::F32, 7, 20, 33, 64 << 10},
        Shape{DType::F32, 37, 12, 301, 16 << 10}, Shape{DType::BF16, 1, 8, 5, 64 << 10},
        Shape{DType::BF16, 9, 32, 97, 64 << 10}, Shape{DType::BF16, 41, 24, 200, 20 << 10},
        // several chunks of a row, the last of them ragged: in one tile, and in tiles of whole chunks
        Shape{DType::F32, 3, 4, 2503, 64 << 10}, Shape{DType::BF16, 3, 4, 4098, 40 << 10}));

// Of tiles that begin and end everywhere, and of logits whose exponentials are no fp32 numbers.
TEST(CudaHead, EveryIdIsATarget) {
    const int V = 301;
    const std::unique_ptr<Ops> ops = cuda_ops_for_tests(16 << 10);
    const std::vector<float> logits = random_floats(V, 1, 3, -300);
    std::vector<int> target(V);
    std::iota(target.begin(), target.end(), 0);
    const DeviceMatrix hidden(*ops, V, 1, DType::F32, std::vector<float>(V, 1)),
        weight(*ops, V, 1, DType::F32, logits);
    DeviceMatrix logprob(*ops, 1, V, DType::F32), lse(*ops, 1, V, DType::F32);
    ops->head_logprob(logprob, lse, {}, hidden, weight, DeviceInts(*ops, target));
    double sum = 0;
    for (const float x : logits) sum += std::exp(double(x) + 300);
    const std::vector<double> p = logprob.read(), l = lse.read();
    for (size_t i = 0; i < size_t(V); i++) {
        ASSERT_NEAR(l[i], std::log(sum) - 300, 300 * 0x1p-23);
        ASSERT_NEAR(p[i], double(logits[i]) + 300 - std::log(sum), 2e-5) << "id " << i;
    }
}

// More chunks than a warp has lanes.
TEST(CudaHead, AVocabularyOfManyChunks) {
    const int V = 34 * 1024 + 5;
    const std::unique_ptr<Ops> ops = cuda_ops_for_tests(size_t(1) << 20);
    const std::vector<float> logits = random_floats(size_t(V), 1, 3);
    const std::vector<int> target = {0, V - 1};
    const DeviceMatrix hidden(*ops, 2, 1, DType::F32, {1, 1}), weight(*ops, V, 1, DType::F32, logits);
    DeviceMatrix logprob(*ops, 1, 2, DType::F32), lse(*ops, 1, 2, DType::F32),
        entropy(*ops, 1, 2, DType::F32);
    ops->head_logprob(logprob, lse, entropy, hidden, weight, DeviceInts(*ops, target));
    double sum = 0, weighted = 0;
    for (const float x : logits) sum += std::exp(double(x)), weighted += std::exp(double(x)) * double(x);
    for (size_t i = 0; i < 2; i++) {
        EXPECT_NEAR(lse.read()[i], std::log(sum), 2e-5);
        EXPECT_NEAR(logprob.read()[i], double(logits[size_t(target[i])]) - std::log(sum), 2e-5);
        EXPECT_NEAR(entropy.read()[i], std::log(sum) - weighted / sum, 2e-5);
    }
}

struct Case {
    const char* name;
    SampleRow row;
    int V, mask_id, n_ids;
};
void PrintTo(const Case& c, std::ostream* out) { *out << c.name; }
class CudaSampling : public testing::TestWithParam<Case> {};

TEST_P(CudaSampling, DrawsWhatTheReferenceDraws) {
    const Case c = GetParam();
    const std::unique_ptr<Ops> ops = cuda_ops_for_tests(16 << 10);
    std::vector<float> logits = random_floats(size_t(c.V), 1, 2);
    for (int i = 4; i < c.V; i += 5) logits[size_t(i)] = logits[size_t(i - 3)];  // ties
    std::vector<SampleRow> rows(20, c.row);
    for (size_t i = 0; i < rows.size(); i++)
        rows[i].seed = 42, rows[i].sequence = uint32_t(i), rows[i].position = uint32_t(i * 7);
    const std::vector<Sampled> got = sample_logits(*ops, logits, rows, c.mask_id, c.n_ids);
    for (size_t i = 0; i < rows.size(); i++) {
        const Sampled want = ref::sample(logits, rows[i], c.mask_id, c.n_ids);
        ASSERT_EQ(got[i].token, want.token) << "row " << i;
        EXPECT_NEAR(got[i].confidence, want.confidence, 2e-6);
        EXPECT_NEAR(got[i].logprob, want.logprob, 1e-5);
        EXPECT_NEAR(got[i].entropy, want.entropy, 1e-5);
    }
}
INSTANTIATE_TEST_SUITE_P(
    Filters, CudaSampling,
    testing::Values(
        Case{"greedy", {}, 67, 3, 60}, Case{"greedy_one_id", {.confidence = Confidence::Filtered}, 3, 0, 2},
        Case{"plain_draw", {.temperature = 1}, 13, NO_MASK, 13},
        Case{"gumbel", {.temperature = 1.3f, .draw = Draw::Gumbel}, 67, 3, 60},
        Case{"gumbel_in_a_crowd", {.temperature = 1, .draw = Draw::Gumbel}, 3001, 0, 3000},
        Case{"gumbel_filtered",
             {.temperature = 0.8f,
              .top_k = 20,
              .top_p = 0.9f,
              .confidence = Confidence::Filtered,
              .draw = Draw::Gumbel},
             130,
             5,
             120},
        Case{"margin_greedy", {.margin = 1}, 67, 3, 60}, Case{"margin_of_one", {.margin = 1}, 3, 0, 2},
        Case{"margin_tempered", {.temperature = 0.7f, .top_k = 1, .margin = 1}, 67, 3, 60},
        Case{"margin_filtered",
             {.temperature = 0.7f, .top_p = 0.8f, .confidence = Confidence::Filtered, .margin = 1},
             130,
             5,
             120},
        Case{"hot", {.temperature = 2.5f, .confidence = Confidence::Plain}, 67, 3, 60},
        Case{"cold", {.temperature = 0.3f, .confidence = Confidence::Filtered}, 67, 3, 60},
        Case{"top_k", {.temperature = 1, .top_k = 7, .confidence = Confidence::Filtered}, 130, 5, 120},
        Case{"top_k_one", {.temperature = 1, .top_k = 1, .confidence = Confidence::Filtered}, 31, 5, 31},
        Case{"top_k_of_more_than_there_are", {.temperature = 1, .top_k = 99}, 31, 5, 31},
        Case{"top_p", {.temperature = 1.3f, .top_p = 0.8f, .confidence = Confidence::Filtered}, 130, 5, 120},
        Case{"top_p_small",
             {.temperature = 1, .top_p = 0.01f, .confidence = Confidence::Filtered},
             65,
             NO_MASK,
             65},
        Case{"top_k_and_top_p", {.temperature = 0.8f, .top_k = 20, .top_p = 0.9f}, 130, 5, 120},
        Case{"coldest", {.temperature = 1e-6f}, 67, 3, 60},
        Case{"coldest_gumbel",
             {.temperature = 1e-6f, .confidence = Confidence::Filtered, .draw = Draw::Gumbel},
             300,
             5,
             290},
        Case{"coldest_top_p",
             {.temperature = 1e-6f, .top_p = 0.9f, .confidence = Confidence::Filtered},
             67,
             3,
             60},
        Case{"coldest_top_k", {.temperature = 1e-6f, .top_k = 20, .margin = 1}, 67, 3, 60},
        Case{"top_p_off_the_end",
             {.temperature = 1, .top_k = 3, .top_p = 0.9999f, .confidence = Confidence::Plain},
             31,
             NO_MASK,
             31}),
    [](const auto& info) { return info.param.name; });

void expect_reference(const Sampled& got, const std::vector<float>& logits, const SampleRow& row, int mask_id,
                      int n_ids) {
    const Sampled want = ref::sample(logits, row, mask_id, n_ids);
    ASSERT_EQ(got.token, want.token);
    EXPECT_NEAR(got.confidence, want.confidence, 2e-6);
    EXPECT_NEAR(got.logprob, want.logprob, 1e-5);
    EXPECT_NEAR(got.entropy, want.entropy, 2e-5);
}

// Every way of drawing from rows of several chunks, the last of them ragged. Ids, and the shapes of distributions, are such that
// filters keep few ids, or so many that they are found by histograms.
class CudaSamplingOfChunks : public testing::TestWithParam<Case> {};
TEST_P(CudaSamplingOfChunks, DrawsWhatTheReferenceDraws) {
    const Case c = GetParam();
    const std::unique_ptr<Ops> ops = cuda_ops_for_tests();
    const size_t V = size_t(c.V);
    std::vector<float> normal = random_floats(V, 1, 3), steps = normal, crowd(V, 1.25f), even(V, 0.75f),
                       peak = normal, holes = normal, low = normal, rising(V), negative(V);
    for (float& x : steps) x = std::round(x);
    crowd[V / 2] = 2;
    peak[V - 2] = 25;
    for (size_t i = 0; i < V; i++)
        if (i % 3 || i / 1024 == 1) holes[i] = -INFINITY;
    for (size_t i = 0; i < V; i++) rising[i] = float(i) / 65536;
    for (float& x : low) x -= 300;
    low[0] = -287.5f;
    for (size_t i = 0; i < V; i++) negative[i] = -std::abs(normal[i]);
    negative[V / 2] = 0;  // the largest: all orders up to it are just too many for bins of the size below
    for (const auto& [name, logits] : {std::pair{"normal", normal},
                                       {"steps", steps},
                                       {"crowd", crowd},
                                       {"even", even},
                                       {"peak", peak},
                                       {"holes", holes},
                                       {"low", low},
                                       {"rising", rising},
                                       {"negative", negative}}) {
        SCOPED_TRACE(name);
        std::vector<SampleRow> rows(3, c.row);
        for (size_t i = 0; i < rows.size(); i++) rows[i].seed = 3, rows[i].position = uint32_t(i);
        const std::vector<Sampled> got = sample_logits(*ops, logits, rows, c.mask_id, c.n_ids);
        for (size_t i = 0; i < rows.size(); i++)
            expect_reference(got[i], logits, rows[i], c.mask_id, c.n_ids);
    }
}
INSTANTIATE_TEST_SUITE_P(
    Filters, CudaSamplingOfChunks,
    testing::Values(
        Case{"greedy", {.margin = 1}, 4099, 4098, 4098},
        Case{"greedy_without_the_first_id", {.margin = 1}, 2050, 0, 2050},
        Case{"plain_draw", {.temperature = 1}, 2050, NO_MASK, 2050},
        Case{"tempered", {.temperature = 0.6f}, 4099, 1024, 3000},
        Case{"filtered_by_nothing",
             {.temperature = 1.5f, .confidence = Confidence::Filtered, .margin = 1},
             4097,
             1023,
             4090},
        Case{"gumbel", {.temperature = 0.9f, .draw = Draw::Gumbel}, 4099, 5, 4090},
        Case{"gumbel_filtered", {.temperature = 1, .top_p = 0.9f, .draw = Draw::Gumbel}, 4099, 5, 4090},
        Case{"top_k", {.temperature = 1, .top_k = 15, .confidence = Confidence::Filtered}, 4099, 5, 4090},
        Case{"of_whole_chunks", {.temperature = 1.2f}, 2048, 5, 2048},
        Case{"gumbel_of_whole_chunks", {.temperature = 1.2f, .draw = Draw::Gumbel}, 3072, 5, 3072},
        Case{"gumbel_of_many_chunks", {.temperature = 3, .draw = Draw::Gumbel}, 9001, 5, 9000},
        Case{"top_k_one",
             {.temperature = 1, .top_k = 1, .confidence = Confidence::Filtered},
             2050,
             NO_MASK,
             2050},
        // one more than there are, which are as many as a list holds; and more than there are, which are found by histograms
        Case{"top_k_of_a_full_list",
             {.temperature = 1, .top_k = 4097, .confidence = Confidence::Filtered},
             4100,
             5,
             4097},
        Case{"top_k_in_a_full_list",
             {.temperature = 1, .top_k = 4000, .confidence = Confidence::Filtered},
             4100,
             5,
             4097},
        Case{"top_k_of_all",
             {.temperature = 1, .top_k = 6000, .confidence = Confidence::Filtered},
             4500,
             5,
             4500},
        Case{"top_k_of_more_than_quarters", {.temperature = 1, .top_k = 700}, 4099, 5, 4090},
        Case{"top_k_of_thousands",
             {.temperature = 1, .top_k = 5000, .top_p = 0.7f, .confidence = Confidence::Filtered},
             9001,
             5,
             9000},
        Case{"top_p_of_few",
             {.temperature = 0.5f, .top_p = 0.5f, .confidence = Confidence::Filtered, .margin = 1},
             4099,
             5,
             4090},
        Case{"top_p_of_thousands",
             {.temperature = 3, .top_p = 0.95f, .confidence = Confidence::Filtered},
             9001,
             5,
             9000}),
    [](const auto& info) { return info.param.name; });

TEST(CudaSampling, TheLowestOfTiedIdsMayBeInAnotherChunk) {
    const std::unique_ptr<Ops> ops = cuda_ops_for_tests();
    for (const auto& [first, second] : {std::pair{1023, 1024}, {2, 4098}, {2047, 3072}, {130, 131}}) {
        std::vector<float> logits(4099, -1);
        logits[size_t(first)] = logits[size_t(second)] = 3;
        for (const int banned : {NO_MASK, first}) {
            const Sampled got = sample_logits(*ops, logits, {SampleRow{.margin = 1}}, banned, 4099)[0];
            EXPECT_EQ(got.token, banned == first ? second : first);
            EXPECT_EQ(got.confidence == 0, banned == NO_MASK) << "the margin of two that are tied";
        }
    }
}

// The winner may come from any chunk, with a score below 0 where few take part.
TEST(CudaSampling, ARaceOfFewIds) {
    const std::unique_ptr<Ops> ops = cuda_ops_for_tests();
    std::vector<float> logits(3000, -INFINITY);
    logits[7] = 1, logits[1100] = -0.2f, logits[2999] = -0.5f;
    std::vector<SampleRow> rows(60, {.seed = 5, .temperature = 1, .draw = Draw::Gumbel});
    for (size_t i = 0; i < rows.size(); i++) rows[i].position = uint32_t(i);
    const std::vector<Sampled> got = sample_logits(*ops, logits, rows, NO_MASK, 3000);
    for (size_t i = 0; i < rows.size(); i++)
        ASSERT_EQ(got[i].token, ref::sample(logits, rows[i], NO_MASK, 3000).token) << "row " << i;
}

// An id that would win every race has no part in it, wherever it is in a pack of logits: as the mask, and as the first that is
// no id any more.
TEST(CudaSampling, ARaceWithoutTheLikeliest) {
    const std::unique_ptr<Ops> ops = cuda_ops_for_tests();
    std::vector<SampleRow> rows(8, {.seed = 5, .temperature = 1, .draw = Draw::Gumbel});
    for (size_t i = 0; i < rows.size(); i++) rows[i].position = uint32_t(i);
    for (const int banned : {1500, 1501, 1502, 1503})
        for (const int n_ids : {2200, banned}) {
            std::vector<float> logits = random_floats(2200, 1, 3);
            logits[size_t(banned)] = 40;
            const int mask_id = n_ids == banned ? NO_MASK : banned;
            const std::vector<Sampled> got = sample_logits(*ops, logits, rows, mask_id, n_ids);
            for (size_t i = 0; i < rows.size(); i++)
                ASSERT_EQ(got[i].token, ref::sample(logits, rows[i], mask_id, n_ids).token)
                    << "banned " << banned << " of " << n_ids << ", row " << i;
        }
}

// More chunks than the row's block has threads.
TEST(CudaSampling, AVocabularyOfManyChunks) {
    const std::unique_ptr<Ops> ops = cuda_ops_for_tests(size_t(2) << 20);
    const int V = 258 * 1024 + 5;
    const std::vector<float> logits = random_floats(size_t(V), 1);
    const std::vector<SampleRow> rows = {{.confidence = Confidence::Filtered},
                                         {.temperature = 1.5f, .confidence = Confidence::Filtered},
                                         {.temperature = 1, .draw = Draw::Gumbel}};
    for (const SampleRow& row : rows)
        expect_reference(sample_logits(*ops, logits, {row}, 7, V)[0], logits, row, 7, V);
}

// Bit for bit the same whoever shares the batch, though few rows and many are laid out on different blocks.
TEST(CudaSampling, DoesNotDependOnTheBatch) {
    const std::unique_ptr<Ops> ops = cuda_ops_for_tests();
    const std::vector<float> logits = random_floats(3001, 1, 3);
    std::vector<SampleRow> rows(12);
    for (uint32_t i = 0; i < 12; i++)
        rows[i] = {.position = i,
                   .temperature = i % 3 ? 0.9f : 0,
                   .top_k = i % 4 ? 0 : 30,
                   .top_p = i % 5 ? 1 : 0.7f,
                   .confidence = Confidence(i % 3),
                   .draw = Draw(i % 2)};
    const std::vector<Sampled> all = sample_logits(*ops, logits, rows, 3, 2990);
    for (size_t i = 0; i < rows.size(); i++) {
        const Sampled one = sample_logits(*ops, logits, {rows[i]}, 3, 2990)[0];
        EXPECT_EQ(one.token, all[i].token);
        EXPECT_EQ(one.confidence, all[i].confidence);
        EXPECT_EQ(one.logprob, all[i].logprob);
        EXPECT_EQ(one.entropy, all[i].entropy);
    }
}

// Nothing can be drawn where nothing is a number: some id that may be, and a log-probability that says so.
TEST(CudaSampling, WhatIsNotANumberShowsInTheLogProbability) {
    const std::unique_ptr<Ops> ops = cuda_ops_for_tests();
    for (const float x : {NAN, INFINITY, -INFINITY})
        for (const bool everywhere : {false, true}) {
            if (x < 0 && !everywhere) continue;  // one id that is never drawn: an ordinary row
            std::vector<float> logits(1500, everywhere ? x : 1.0f);
            logits[1300] = x;
            const std::vector<SampleRow> rows = {{},
                                                 {.temperature = 1},
                                                 {.temperature = 1, .draw = Draw::Gumbel},
                                                 {.temperature = 1, .top_k = 3},
                                                 {.temperature = 2, .top_p = 0.5f}};
            for (const Sampled& got : sample_logits(*ops, logits, rows, NO_MASK, 1500)) {
                EXPECT_TRUE(got.token >= 0 && got.token < 1500) << got.token;
                EXPECT_TRUE(std::isnan(got.logprob)) << got.logprob;
            }
        }
}

// A crowd of equal logits: exactly k of them stay, those of the lowest ids; top-p keeps the share it names.
TEST(CudaSampling, TiesGoToTheLowestIds) {
    const std::unique_ptr<Ops> ops = cuda_ops_for_tests();
    std::vector<float> logits(100, 0.5f);
    logits[50] = 1;
    std::vector<SampleRow> top_k, top_p;
    for (uint32_t position = 0; position < 12; position++)
        for (const Draw draw : {Draw::Inverse, Draw::Gumbel}) {
            top_k.push_back({.position = position, .temperature = 1, .top_k = 4, .draw = draw});
            top_p.push_back({.position = position, .temperature = 1, .top_p = 0.05f, .draw = draw});
        }
    for (const auto& [rows, what] : {std::pair{top_k, "top-k"}, {top_p, "top-p"}}) {
        const std::vector<Sampled> got = sample_logits(*ops, logits, rows, 1, 100);
        for (size_t i = 0; i < rows.size(); i++)
            ASSERT_EQ(got[i].token, ref::sample(logits, rows[i], 1, 100).token) << what << ", row " << i;
    }
}

TEST(CudaSampling, RefusesWhereNothingMayBeDrawn) {
    const std::unique_ptr<Ops> ops = cuda_ops_for_tests();
    EXPECT_THROW(sample_logits(*ops, {1, 2}, {SampleRow{}}, 0, 1), Error);
    EXPECT_THROW(sample_logits(*ops, {1, 2}, {SampleRow{}}, NO_MASK, 0), Error);
}
