// Generation and logits of four small models against what Hugging Face transformers computes. Skipped where
// the golden files are not.
#include <gtest/gtest.h>

#include <cstdlib>

#include "inference/engine.h"
#include "inference/logits.h"
#include "utils/files.h"
#include "utils/json.h"
#include "weights_tools/model_folder.h"

namespace {

const std::string GOLDEN = "../shared/fixtures/";

struct GoldenCase {
    Request request;
    Json expected;
};

Request request_of(const Json& line, const ModelConfig& config) {
    Request r;
    GenerateOptions& o = r.options;
    r.prompt_ids = line["prompt_ids"].get<std::vector<int>>();
    o.block = config.B;
    o.stop_ids = config.eos_ids;
    const auto args = line["args"].get<std::vector<std::string>>();
    for (size_t i = 0; i < args.size(); i++) {
        if (args[i] == "--ignore-eos") {
            o.stop_ids.clear();
            continue;
        }
        const std::string &name = args[i], &value = args.at(i + 1);
        i++;
        if (name == "--gen-length")
            o.gen_length = std::stoi(value);
        else if (name == "--block")
            o.block = std::stoi(value);
        else if (name == "--steps")
            o.steps = std::stoi(value);
        else if (name == "--remasking")
            o.remasking = parse_remasking(value);
        else if (name == "--threshold")
            o.threshold = std::stod(value);
        else if (name == "--eb-threshold")
            o.eb_threshold = std::stod(value);
        else if (name == "--temperature")
            o.temperature = std::stof(value);
        else if (name == "--stop-ids")
            o.stop_ids = Json::parse("[" + value + "]").get<std::vector<int>>();
        else
            ADD_FAILURE() << "unknown argument " << name;
    }
    return r;
}

class GoldenModel : public testing::TestWithParam<const char*> {
  protected:
    void SetUp() override {
        if (!folder_exists(GOLDEN)) GTEST_SKIP() << GOLDEN << " is not here";
    }
};

}  // namespace

// All cases in one call: prompts that share their blocks, every rule, limit and stop beside each other.
TEST_P(GoldenModel, GeneratesTheSame) {
    const auto ops = make_cpu_ops();
    const std::string folder = GOLDEN + GetParam();
    const LoadedModel model(folder + "/model", *ops, Head::Policy, DType::F32);
    std::vector<GoldenCase> cases;
    std::vector<Request> requests;
    read_jsonl(folder + "/generate.jsonl", [&](const Json& line, const std::string&) {
        cases.push_back({request_of(line, model.config()), line});
        requests.push_back(cases.back().request);
    });
    ASSERT_GT(cases.size(), 50u);
    Arena arena("engine", *ops);
    Engine engine(*ops, model.config(), model.parameters,
                  {.max_active = 12, .max_rows = 256, .kv_slots = 600}, model.config().V, arena);
    arena.allocate();
    const std::vector<Trajectory> got = engine.generate(requests);
    for (size_t i = 0; i < cases.size(); i++) {
        const Json& want = cases[i].expected;
        const Json record = to_json(got[i]);
        for (const char* field :
             {"output_ids", "step_map", "finish_reason", "tail_ids", "tail_steps", "denoise_steps"})
            EXPECT_EQ(record[field], want[field]) << field << " of case " << i << " " << want["args"];
        const auto logprobs = want["logprobs"].get<std::vector<float>>();
        ASSERT_EQ(got[i].logprobs.size(), logprobs.size());
        for (size_t k = 0; k < logprobs.size(); k++)
            EXPECT_NEAR(got[i].logprobs[k], logprobs[k], 1e-4) << "case " << i;
    }
}

TEST_P(GoldenModel, ComputesTheSameLogits) {
    const auto ops = make_cpu_ops();
    const std::string folder = GOLDEN + GetParam();
    const std::string path = testing::TempDir() + "golden_logits_" + GetParam() + ".safetensors";
    int compared = 0;
    const auto compare = [&](const std::string& model_folder, const SafetensorsFile& golden,
                             const std::string& ids_name, const std::string& logits_name, int block) {
        const LoadedModel model(model_folder, *ops, Head::Policy, DType::F32);
        const FileTensor& ids = golden.get(ids_name);
        std::vector<int> prompt(size_t(ids.size()));
        load_tensors({{&ids, tensor(prompt.data(), 1, ids.size(), DType::I32)}});
        write_logits(path, prompt, block ? block : model.config().B, *ops, model.config(), model.parameters);
        const SafetensorsFile written(path);
        const FileTensor &a = written.get("logits"), &b = golden.get(logits_name);
        ASSERT_EQ(a.shape, b.shape);
        std::vector<float> got(size_t(a.size())), want(size_t(b.size()));
        load_tensors({{&a, tensor(got.data(), 1, a.size())}, {&b, tensor(want.data(), 1, b.size())}});
        for (size_t i = 0; i < got.size(); i++)
            ASSERT_NEAR(got[i], want[i], 2e-4) << model_folder << " " << ids_name << " " << i;
        compared++;
    };
    const SafetensorsFile golden(folder + "/logits.safetensors");
    for (int k = 0; k < 5; k++) {
        compare(folder + "/model", golden, format("ids_%d", k), format("logits_%d", k), 0);
        if (std::string(GetParam()).starts_with("sdar"))
            compare(folder + "/model", golden, format("ids_%d", k), format("causal_logits_%d", k), 1);
    }
    const std::string bf16 = folder + "/logits_bf16_weights.safetensors";
    if (file_exists(bf16)) compare(folder + "/model_bf16_sharded", SafetensorsFile(bf16), "ids", "logits", 0);
    EXPECT_GE(compared, 5);
    std::remove(path.c_str());
}

INSTANTIATE_TEST_SUITE_P(Models, GoldenModel, testing::Values("sdar_b4", "sdar_b8_tied", "dream", "llada"),
                         [](const auto& info) { return std::string(info.param); });
