// Generation and logits of four small models against what Hugging Face transformers computes. Skipped where
// the golden files are not.
#include "tests/golden.h"

class GoldenModel : public testing::TestWithParam<const char*> {
  protected:
    void SetUp() override {
        if (!folder_exists(GOLDEN)) GTEST_SKIP() << GOLDEN << " is not here";
    }
};

TEST_P(GoldenModel, GeneratesTheSame) { expect_golden_generation(*make_cpu_ops(), GetParam(), 1000); }

TEST_P(GoldenModel, ComputesTheSameLogits) {
    const auto ops = make_cpu_ops();
    const std::string folder = GOLDEN + GetParam();
    int compared = 0;
    const auto compare = [&](const std::string& model_folder, const SafetensorsFile& golden,
                             const std::string& ids_name, const std::string& logits_name, int block) {
        const LoadedModel model(model_folder, *ops, Head::Policy, DType::F32);
        const std::vector<float> got = logits_of(*ops, model, golden.get(ids_name), block),
                                 want = read_floats(golden.get(logits_name));
        ASSERT_EQ(got.size(), want.size());
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
}

INSTANTIATE_TEST_SUITE_P(Models, GoldenModel, testing::Values("sdar_b4", "sdar_b8_tied", "dream", "llada"),
                         [](const auto& info) { return std::string(info.param); });
