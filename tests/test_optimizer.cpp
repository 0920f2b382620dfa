// Schedules on tables, AdamW against its formula in double, and state that survives a file bit for bit.
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <fstream>

#include "tests/random_model.h"
#include "tests/temporary_folder.h"
#include "train/optimizer.h"

namespace {

struct Trained {
    RandomModel model{random_model_config()};
    Arena arena{"gradients", host_memory()};
    Parameters gradients;
    Optimizer optimizer{*model.ops, model.config, Head::Policy, model.weights};
    Trained() {
        gradients.plan(arena, model.config, Head::Policy);
        arena.allocate();
        gradients.bind(model.config);
        optimizer.allocate();
    }
    void random_gradients(uint64_t seed) {
        Rng rng(seed, Stream::Noise);
        gradients.for_each_stored([&](const std::string&, const Tensor& t) {
            for (int64_t i = 0; i < t.size(); i++) t.as<float>()[i] = 0.01f * rng.normal();
        });
    }
};

std::vector<float> numbers(const Parameters& p) {
    std::vector<float> out;
    p.for_each_stored([&](const std::string&, const Tensor& t) {
        out.insert(out.end(), t.as<float>(), t.as<float>() + t.size());
    });
    return out;
}

bool same_bits(const std::vector<float>& a, const std::vector<float>& b) {
    return a.size() == b.size() && memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

}  // namespace

TEST(LearningRate, ConstantWithWarmup) {
    const OptimizerOptions o = {.lr = 2, .warmup_steps = 4};
    for (const auto& [step, lr] : {std::pair(0, 0.5), {1, 1.0}, {3, 2.0}, {4, 2.0}, {1000, 2.0}})
        EXPECT_DOUBLE_EQ(learning_rate(o, step), lr);
    EXPECT_DOUBLE_EQ(learning_rate({.lr = 3}, 0), 3);
}

TEST(LearningRate, CosineFallsToItsFloorAndStays) {
    const OptimizerOptions o = {
        .lr = 1, .schedule = Schedule::Cosine, .warmup_steps = 10, .total_steps = 110, .min_lr_ratio = 0.2};
    EXPECT_DOUBLE_EQ(learning_rate(o, 9), 1);
    EXPECT_DOUBLE_EQ(learning_rate(o, 10), 1);
    EXPECT_NEAR(learning_rate(o, 60), 0.6, 1e-12);
    EXPECT_NEAR(learning_rate(o, 110), 0.2, 1e-12);
    EXPECT_NEAR(learning_rate(o, 500), 0.2, 1e-12);
}

TEST(Optimizer, UpdatesByTheFormula) {
    Trained t;
    const OptimizerOptions o = {
        .lr = 0.01, .beta1 = 0.8, .beta2 = 0.9, .eps = 1e-6, .weight_decay = 0.1, .max_grad_norm = 0};
    std::vector<double> w, m, v;
    for (const float x : numbers(t.model.weights)) w.push_back(double(x)), m.push_back(0), v.push_back(0);
    std::vector<char> decays;
    t.model.weights.for_each_stored([&](const std::string& name, const Tensor& x) {
        decays.insert(decays.end(), size_t(x.size()), x.rows > 1);  // matrices do, norms and biases do not
        EXPECT_EQ(is_vector(name), x.rows == 1) << name;
    });
    for (int step = 1; step <= 3; step++) {
        t.random_gradients(uint64_t(step));
        const std::vector<float> g = numbers(t.gradients);
        const Optimizer::Report report = t.optimizer.update(t.gradients, o);
        EXPECT_FALSE(report.skipped);
        EXPECT_EQ(t.optimizer.steps(), step);
        for (size_t i = 0; i < w.size(); i++) {
            m[i] = 0.8 * m[i] + 0.2 * double(g[i]);
            v[i] = 0.9 * v[i] + 0.1 * double(g[i]) * double(g[i]);
            const double mh = m[i] / (1 - std::pow(0.8, step)), vh = v[i] / (1 - std::pow(0.9, step));
            w[i] -= 0.01 * (mh / (std::sqrt(vh) + 1e-6) + (decays[i] ? 0.1 : 0) * w[i]);
        }
    }
    const std::vector<float> got = numbers(t.model.weights);
    for (size_t i = 0; i < w.size(); i++)
        ASSERT_NEAR(got[i], w[i], 1e-5 * std::max(1.0, std::abs(w[i]))) << i;
}

TEST(Optimizer, ClipsByTheNormOverAllTensors) {
    // With eps far above every gradient, Adam's first step is proportional to the gradient: its size shows
    // the clip.
    const auto step_size = [](double max_norm, double& norm) {
        Trained t;
        t.random_gradients(1);
        const std::vector<float> before = numbers(t.model.weights);
        norm = t.optimizer.update(t.gradients, {.lr = 1e4, .eps = 1e4, .max_grad_norm = max_norm}).grad_norm;
        const std::vector<float> after = numbers(t.model.weights);
        double squares = 0;
        for (size_t i = 0; i < after.size(); i++)
            squares += std::pow(double(after[i]) - double(before[i]), 2);
        return std::sqrt(squares);
    };
    double norm = 0, same = 0;
    const double free = step_size(0, norm);
    EXPECT_NEAR(free, norm, 2e-2 * norm);
    EXPECT_NEAR(step_size(norm / 4, same), free / 4, 1e-2 * free);
    EXPECT_DOUBLE_EQ(norm, same);  // the norm is reported before clipping
    EXPECT_NEAR(step_size(norm * 2, same), free, 1e-6 * free);
}

TEST(Optimizer, SkipsWhatIsNotFinite) {
    Trained t;
    t.random_gradients(1);
    t.optimizer.update(t.gradients, {.lr = 0.1});
    const std::vector<float> before = numbers(t.model.weights);
    t.gradients.final_norm.as<float>()[3] = NAN;
    EXPECT_TRUE(t.optimizer.update(t.gradients, {.lr = 0.1}).skipped);
    EXPECT_TRUE(same_bits(numbers(t.model.weights), before));
    EXPECT_EQ(t.optimizer.steps(), 1);
}

TEST(Optimizer, StateSurvivesAFileBitForBit) {
    const TemporaryFolder folder;
    const std::string path = folder.file("optimizer.safetensors");
    const OptimizerOptions o = {
        .lr = 0.01, .schedule = Schedule::Cosine, .warmup_steps = 2, .total_steps = 9, .weight_decay = 0.01};
    Trained straight, stopped;
    for (Trained* t : {&straight, &stopped})
        for (int step = 0; step < 3; step++)
            t->random_gradients(uint64_t(step)), t->optimizer.update(t->gradients, o);
    stopped.optimizer.save(path);
    Optimizer resumed(*stopped.model.ops, stopped.model.config, Head::Policy, stopped.model.weights);
    resumed.allocate();
    resumed.load(path);
    EXPECT_EQ(resumed.steps(), 3);
    for (int step = 3; step < 6; step++) {
        straight.random_gradients(uint64_t(step));
        straight.optimizer.update(straight.gradients, o);
        stopped.random_gradients(uint64_t(step));
        resumed.update(stopped.gradients, o);
    }
    EXPECT_TRUE(same_bits(numbers(straight.model.weights), numbers(stopped.model.weights)));
}

TEST(Optimizer, ResetForgets) {
    Trained a, b;
    a.random_gradients(1);
    a.optimizer.update(a.gradients, {.lr = 0});  // moments only
    a.optimizer.reset();
    EXPECT_EQ(a.optimizer.steps(), 0);
    for (Trained* t : {&a, &b}) t->random_gradients(2), t->optimizer.update(t->gradients, {.lr = 0.1});
    EXPECT_TRUE(same_bits(numbers(a.model.weights), numbers(b.model.weights)));
}

TEST(Optimizer, RefusesAnotherModelsState) {
    const TemporaryFolder folder;
    const std::string path = folder.file("optimizer.safetensors");
    Trained t;
    t.optimizer.save(path);
    ModelConfig wider = random_model_config();
    wider.F = 32;
    const RandomModel other(wider);
    Optimizer optimizer(*other.ops, other.config, Head::Policy, other.weights);
    optimizer.allocate();
    try {
        optimizer.load(path);
        FAIL();
    } catch (const Error& e) {
        EXPECT_EQ(e.code, Exit::BadFile);
        EXPECT_NE(std::string(e.what()).find("gate_up"), std::string::npos) << e.what();
    }
    std::ofstream(path) << "not a safetensors file";
    EXPECT_THROW(optimizer.load(path), Error);
}
