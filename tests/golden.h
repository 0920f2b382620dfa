// golden.h -- generation and logits of small models against what Hugging Face transformers computes, on any ops.
#pragma once
#include <gtest/gtest.h>

#include <cstdlib>

#include "inference/decoding_flags.h"
#include "inference/engine.h"
#include "inference/logits.h"
#include "tests/temporary_folder.h"
#include "utils/files.h"
#include "utils/json.h"
#include "weights_tools/model_folder.h"

// The folder of the golden files: FIXTURES of the environment, where they were brought along from elsewhere.
inline const std::string GOLDEN = [] {
    const char* folder = getenv("FIXTURES");
    return std::string(folder && *folder ? folder : "../shared/fixtures") + "/";
}();

struct GoldenCase {
    Request request;
    Json expected;
};

inline Request request_of(const Json& line, const ModelConfig& config) {
    DecodingFlags decoding;
    Options flags("golden", "A case.");
    decoding.declare(flags);
    EXPECT_TRUE(flags.parse(line["args"].get<std::vector<std::string>>()));
    return {.prompt_ids = line["prompt_ids"].get<std::vector<int>>(),
            .options = decoding.resolve(config, config.eos_ids, 0)};
}

// The first n_cases in one call: prompts that share their blocks, every rule, limit and stop beside each other.
inline void expect_golden_generation(Ops& ops, const std::string& name, size_t n_cases) {
    const std::string folder = GOLDEN + name;
    const LoadedModel model(folder + "/model", ops, Head::Policy, DType::F32);
    std::vector<GoldenCase> cases;
    std::vector<Request> requests;
    read_jsonl(folder + "/generate.jsonl", [&](const Json& line, const std::string&) {
        cases.push_back({request_of(line, model.config()), line});
        requests.push_back(cases.back().request);
    });
    ASSERT_GT(cases.size(), 50u);
    if (requests.size() > n_cases) requests.resize(n_cases);
    Arena arena("engine", ops);
    Engine engine(ops, model.config(), model.parameters, {.max_active = 12, .max_rows = 256, .kv_slots = 600},
                  model.config().V, arena);
    arena.allocate();
    const std::vector<Trajectory> got = engine.generate(requests);
    for (size_t i = 0; i < got.size(); i++) {
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

inline std::vector<float> read_floats(const FileTensor& t) {
    std::vector<float> out(size_t(t.size()));
    load_tensors({{&t, tensor(out.data(), 1, t.size())}});
    return out;
}

// The logits of golden prompt `ids` in blocks of `block` (0: the model's), computed on these ops.
inline std::vector<float> logits_of(Ops& ops, const LoadedModel& model, const FileTensor& ids, int block) {
    std::vector<int> prompt(size_t(ids.size()));
    load_tensors({{&ids, tensor(prompt.data(), 1, ids.size(), DType::I32)}});
    const std::string path = temporary("golden_logits.safetensors");
    write_logits(path, prompt, block ? block : model.config().B, ops, model.config(), model.parameters,
                 [](Arena& arena) { return arena.allocate(), true; });
    std::vector<float> got;
    {
        const SafetensorsFile written(path);
        got = read_floats(written.get("logits"));
    }
    return got;
}
