// Damaged weights are said to be damaged, whatever a rule makes of probabilities that compare with nothing; and the engine is usable
// again.
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>

#include "inference/engine.h"
#include "tests/fault_of.h"
#include "tests/random_model.h"
#include "tests/temporary_folder.h"
#include "train/programs/replay.h"
#include "utils/files.h"
#include "utils/json.h"
#include "weights_tools/model_folder.h"

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

// Of policy or value model, of records or of noisy copies; and no gradients are written.
TEST(NotFiniteReplay, OutputIsAnError) {
    const std::string records = temporary("records.jsonl"), copies = temporary("copies.jsonl"),
                      grads = temporary("grads.safetensors");
    const std::string response = R"({"prompt_ids": [1, 2], "response_ids": [3, 4], )";
    write_file_atomic(records, response + R"("step_map": [1, 2], "reward": 1})" + "\n" + response +
                                   R"("step_map": [1, 1], "reward": 0})" + "\n");
    write_file_atomic(copies, response + R"("copies": [{"masked": [0]}]})" + "\n");
    const auto folder = [](const char* name, Head head, bool sound) {
        RandomModel model(random_model_config(), 1, 4, head);
        if (!sound) model.weights.final_norm.as<float>()[3] = NAN;
        const std::string path = temporary(name);
        make_folders(path);
        save_model_folder(path, model.weights, model.config, "", DType::F32, *model.ops);
        return path;
    };
    const std::string policy = folder("policy", Head::Policy, true),
                      value = folder("value", Head::Value, true),
                      bad_policy = folder("bad_policy", Head::Policy, false),
                      bad_value = folder("bad_value", Head::Value, false);
    const std::unique_ptr<Ops> ops = make_cpu_ops();
    const auto fault = [&](const std::string& policy, const std::string& value, bool sft) {
        ReplayRequest request;
        request.model = policy, request.value_model = value, request.dump_grads = grads;
        request.file = sft ? copies : records;
        request.rl.keep.all = true;
        std::filesystem::remove(grads);
        const std::string said =
            fault_of(Exit::Runtime, [&] { sft ? replay_sft(*ops, request) : replay_tracerl(*ops, request); });
        EXPECT_EQ(file_exists(grads), said.empty());
        return said;
    };
    const auto is = [](const std::string& said, const char* what) {
        EXPECT_NE(said.find(what), std::string::npos) << said;
    };
    EXPECT_EQ(fault(policy, value, false), "");
    EXPECT_EQ(fault(policy, "", true), "");
    is(fault(bad_policy, "", false), "not finite (a log-probability of response 0)");
    is(fault(bad_policy, "", true), "not finite (a log-probability of response 0)");
    is(fault(policy, bad_value, false), "not finite (a value of response 0)");
}

INSTANTIATE_TEST_SUITE_P(Models, NotFinite, testing::Values(false, true),
                         [](const auto& model) { return std::string(model.param ? "Canvas" : "Blocks"); });
