// Damaged weights are said to be damaged, whatever a rule makes of probabilities that compare with nothing; and the engine is usable
// again.
#include <gtest/gtest.h>

#include <algorithm>

#include "inference/engine.h"
#include "tests/fault_of.h"
#include "tests/random_model.h"

class NotFinite : public testing::TestWithParam<bool> {};

TEST_P(NotFinite, OutputIsAnError) {
    ModelConfig config = random_model_config();
    config.full_attention = GetParam();
    const RandomModel model(config);
    Arena arena("engine", host_memory());
    Engine engine(*model.ops, model.config, model.weights,
                  {.max_active = 8, .max_rows = 256, .kv_slots = 512}, model.config.V - 1, arena);
    arena.allocate();
    float* norm = model.weights.final_norm.as<float>();
    const std::vector<float> sound(norm, norm + model.config.C);
    for (int rule = 0; rule <= int(Remasking::Origin); rule++) {
        if (Remasking(rule) == Remasking::Origin && !config.full_attention) continue;
        Request r;
        r.prompt_ids = {3, 1, 4, 1, 5};
        r.options.block = config.B;
        r.options.gen_length = 9;
        r.options.remasking = Remasking(rule);
        r.options.temperature = rule % 2 ? 0.8f : 0;
        r.options.top_k = rule % 4 == 1 ? 5 : 0;
        r.options.top_p = rule % 4 == 3 ? 0.9f : 1;
        std::fill(norm, norm + model.config.C, NAN);
        const std::string fault = fault_of(Exit::Runtime, [&] { engine.generate(std::vector{r, r, r}); });
        EXPECT_NE(fault.find("not finite"), std::string::npos) << "rule " << rule << ": " << fault;
        std::copy(sound.begin(), sound.end(), norm);
        EXPECT_EQ(engine.generate(std::vector{r})[0].finish_reason, "length");
    }
}

INSTANTIATE_TEST_SUITE_P(Models, NotFinite, testing::Values(false, true),
                         [](const auto& model) { return std::string(model.param ? "Canvas" : "Blocks"); });
