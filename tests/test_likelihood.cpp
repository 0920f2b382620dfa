// Likelihoods of given answers: the weights against the order of revealing they stand for, the network against
// states written out one by one, the causal model against the product of its conditionals.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <numeric>

#include "tests/fault_of.h"
#include "tests/random_model.h"
#include "train/eval/likelihood.h"
#include "train/update.h"

namespace {

std::vector<int> some_ids(int n, int from) {
    std::vector<int> ids;
    for (int i = 0; i < n; i++) ids.push_back((from + 7 * i) % 38);
    return ids;
}

double total(const std::vector<double>& x) { return std::accumulate(x.begin(), x.end(), 0.0); }

// log p of `id` at a position, from one state forwarded alone by the network that trains.
class Oracle {
  public:
    Oracle(RandomModel& model, int block)
        : network_(*model.ops, model.config, model.weights, Head::Policy, block, {512, 512}) {
        network_.allocate();
    }
    std::vector<double> logprobs(const Sequence& text, const Copy& state) {
        Sequence one = text;
        one.copies = {state};
        return network_.evaluate({&one, 1})[0];
    }

  private:
    TrainingNetwork network_;
};

// The mean over all n! orders in which positions [lo, hi) may be revealed of the sum of log p, state by state.
double mean_over_orders(Oracle& oracle, const Sequence& text, int begin, int stop, int lo, int hi,
                        int mask_id) {
    std::vector<int> order(size_t(hi - lo));
    std::iota(order.begin(), order.end(), lo);
    double sum = 0, n = 0;
    std::map<std::vector<int>, double> known;  // the order so far, as a set, and what comes next
    do {
        for (size_t k = 0; k < order.size(); k++) {
            std::vector<int> masked(order.begin() + std::ptrdiff_t(k), order.end());
            std::sort(masked.begin(), masked.end());
            std::vector<int> key = masked;
            key.push_back(order[k]);
            if (!known.contains(key)) {
                Copy state;
                state.begin = begin;
                for (int i = begin; i < stop; i++) {
                    const bool hidden =
                        i >= int(text.token.size()) || std::binary_search(masked.begin(), masked.end(), i);
                    state.token.push_back(hidden ? mask_id : text.token[size_t(i)]);
                }
                state.target = {order[k]};
                known[key] = oracle.logprobs(text, state)[0];
            }
            sum += known[key];
        }
        n++;
    } while (std::next_permutation(order.begin(), order.end()));
    return sum / n;
}

std::vector<double> scores(RandomModel& model, int block, const std::vector<AnswerStates>& answers,
                           int max_rows = 512) {
    Arena arena("likelihood", *model.ops);
    AnswerScorer scorer(*model.ops, model.config, model.weights, block, max_rows, arena);
    arena.allocate();
    return scorer.log_likelihoods(answers);
}

}  // namespace

TEST(Likelihood, EverySetIsTheMeanOverAllOrders) {
    RandomModel model(random_model_config());
    Oracle oracle(model, 4);
    Rng rng(1, Stream::Mask);
    // A prompt that ends inside a block, an answer that ends inside another.
    const std::vector<int> prompt = some_ids(6, 3), answer = some_ids(5, 11);
    const AnswerStates states = likelihood_states(prompt, answer, {4, model.config.mask_id}, 15, rng);
    EXPECT_FALSE(states.drawn);
    EXPECT_EQ(states.sequence.copies.size(), 3u + 7u);  // blocks [4, 8) with 2 of the answer, [8, 12) with 3
    EXPECT_NEAR(total(states.weight), 5, 1e-12);        // every token counts once
    const double expected = mean_over_orders(oracle, states.sequence, 4, 8, 6, 8, model.config.mask_id) +
                            mean_over_orders(oracle, states.sequence, 8, 12, 8, 11, model.config.mask_id);
    EXPECT_NEAR(scores(model, 4, {states})[0], expected, 1e-4);
}

TEST(Likelihood, FullAttentionSeesNothingAfterTheAnswer) {
    ModelConfig config = random_model_config();
    config.full_attention = true;
    for (const bool shift : {false, true}) {
        config.shift = shift;
        RandomModel model(config);
        Oracle oracle(model, 0);
        Rng rng(1, Stream::Mask);
        const AnswerStates states =
            likelihood_states(some_ids(3, 3), some_ids(4, 11), {0, config.mask_id}, 15, rng);
        EXPECT_EQ(states.sequence.copies.size(), 15u);
        EXPECT_NEAR(scores(model, 0, {states})[0],
                    mean_over_orders(oracle, states.sequence, 0, 7, 3, 7, config.mask_id), 1e-4);
    }
}

TEST(Likelihood, DrawnSetsEstimateTheSame) {
    RandomModel model(random_model_config(8));
    const std::vector<int> prompt = some_ids(8, 3), answer = some_ids(8, 11);
    Rng rng(1, Stream::Mask);
    const MaskShape shape = {8, model.config.mask_id};
    const AnswerStates all = likelihood_states(prompt, answer, shape, 255, rng);
    ASSERT_FALSE(all.drawn);
    std::vector<AnswerStates> drawn;
    for (int i = 0; i < 64; i++) drawn.push_back(likelihood_states(prompt, answer, shape, 24, rng));
    EXPECT_TRUE(drawn[0].drawn);
    EXPECT_EQ(drawn[0].sequence.copies.size(), 24u);
    const double exact = scores(model, 8, {all})[0];
    double mean = 0, squares = 0;
    for (const double x : scores(model, 8, drawn)) {
        mean += x / 64;
        squares += (x - exact) * (x - exact) / 64;
    }
    const double standard_error = std::sqrt(squares / 64);
    EXPECT_GT(standard_error, 0);
    EXPECT_NEAR(mean, exact, 4 * standard_error);
    EXPECT_LT(standard_error, 0.05 * std::abs(exact));
}

TEST(Likelihood, TheSizesOfDrawnSetsAreStratified) {
    Rng rng(1, Stream::Mask);
    const AnswerStates s = likelihood_states({}, some_ids(32, 1), {32, 38}, 16, rng);
    std::vector<int> sizes;
    for (const Copy& copy : s.sequence.copies) sizes.push_back(int(copy.target.size()));
    EXPECT_TRUE(std::is_sorted(sizes.begin(), sizes.end()));
    for (int k = 0; k < 16; k++) EXPECT_NEAR(sizes[size_t(k)], 2 * k + 1.5, 1);
    // n/l / sets for every token of a set of l: 16 sets of 32 tokens.
    EXPECT_NEAR(total(s.weight), 32, 1e-9);
}

TEST(Likelihood, ACausalModelsIsExact) {
    ModelConfig config = random_model_config(1);
    config.shift = true;
    RandomModel model(config);
    const std::vector<int> prompt = some_ids(4, 3), answer = some_ids(6, 11);
    double expected = 0;
    for (size_t n = 0; n < answer.size(); n++) {  // token by token
        std::vector<int> before = prompt;
        before.insert(before.end(), answer.begin(), answer.begin() + std::ptrdiff_t(n));
        expected += scores(model, 1, {causal_states(before, {answer[n]})})[0];
    }
    const AnswerStates states = causal_states(prompt, answer);
    EXPECT_EQ(states.weight.size(), 6u);
    EXPECT_NEAR(scores(model, 1, {states})[0], expected, 1e-4);
}

TEST(Likelihood, OutputThatIsNotFiniteIsAnError) {
    RandomModel model(random_model_config());
    Rng rng(1, Stream::Mask);
    const std::vector<AnswerStates> answers = {
        likelihood_states(some_ids(5, 0), some_ids(9, 2), {4, model.config.mask_id}, 3, rng)};
    model.weights.final_norm.as<float>()[3] = NAN;
    EXPECT_NE(fault_of(Exit::Runtime, [&] { scores(model, 4, answers); }).find("not finite"),
              std::string::npos);
}

TEST(Likelihood, ManyStatesAreCutIntoPasses) {
    RandomModel model(random_model_config());
    Rng rng(1, Stream::Mask);
    std::vector<AnswerStates> answers;
    for (int i = 0; i < 3; i++)
        answers.push_back(
            likelihood_states(some_ids(5 + i, i), some_ids(9, i + 2), {4, model.config.mask_id}, 15, rng));
    const std::vector<double> whole = scores(model, 4, answers), cut = scores(model, 4, answers, 24);
    for (size_t i = 0; i < 3; i++) EXPECT_NEAR(whole[i], cut[i], 1e-4);
    EXPECT_GT(std::abs(whole[0] - whole[1]), 1e-3);
    EXPECT_THROW(scores(model, 4, answers, 12), Error);  // not even one state fits
}
