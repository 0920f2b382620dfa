// --replay against golden cases made with Hugging Face transformers and autograd: losses, log-probs, values, returns,
// advantages and every gradient, for every family.
#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>

#include "tests/temporary_folder.h"
#include "train/programs/options.h"
#include "train/programs/replay.h"
#include "utils/cli.h"
#include "utils/files.h"
#include "utils/json.h"
#include "weights_tools/safetensors.h"

namespace {

namespace fs = std::filesystem;
const std::string FIXTURES = "../shared/fixtures";

void expect_close(double got, double want, const std::string& what) {
    EXPECT_NEAR(got, want, 1e-4 * std::max(1.0, std::abs(want))) << what;
}

void expect_close(const Json& got, const Json& want, const std::string& what) {
    ASSERT_EQ(got.size(), want.size()) << what;
    for (size_t i = 0; i < want.size(); i++) {
        if (want[i].is_array())
            expect_close(got[i], want[i], what);
        else
            expect_close(got[i].get<double>(), want[i].get<double>(), what);
    }
}

std::vector<float> numbers(const SafetensorsFile& file, const FileTensor& t) {
    std::vector<float> out(size_t(t.size()));
    file.read(t, 0, out.data(), out.size() * sizeof(float));
    return out;
}

void expect_same_gradients(const std::string& got_path, const std::string& want_path) {
    const SafetensorsFile got(got_path), want(want_path);
    ASSERT_EQ(got.tensors().size(), want.tensors().size()) << want_path;
    for (const FileTensor& t : want.tensors()) {
        const std::vector<float> a = numbers(got, got.get(t.name)), b = numbers(want, t);
        ASSERT_EQ(got.get(t.name).shape, t.shape) << t.name;
        double difference = 0, size = 0;
        for (size_t i = 0; i < b.size(); i++) {
            difference += std::pow(double(a[i]) - double(b[i]), 2);
            size += std::pow(double(b[i]), 2);
        }
        EXPECT_LE(std::sqrt(difference), 2e-4 * std::sqrt(size) + 1e-7) << want_path << " " << t.name;
    }
}

struct GoldenCase {
    std::string folder, stem;  // folder/stem.jsonl, .expect.json, ...
    std::string path(const std::string& suffix) const { return folder + "/" + stem + suffix; }
};

std::vector<GoldenCase> golden_cases(const std::string& model) {
    std::vector<GoldenCase> out;
    const std::string folder = FIXTURES + "/" + model, suffix = ".expect.json";
    if (!folder_exists(folder)) return out;
    for (const auto& entry : fs::directory_iterator(folder)) {
        const std::string name = entry.path().filename().string();
        if (name.ends_with(suffix)) out.push_back({folder, name.substr(0, name.size() - suffix.size())});
    }
    return out;
}

// The request that a case's arguments make.
ReplayRequest request_of(const GoldenCase& c, const Json& expect, const TemporaryFolder& out) {
    RlFlags rl;
    ReplayRequest request;
    Options options("replay", "");
    options.add("--block B", &request.block, "");
    options.add("--value-model DIR", &request.value_model, "");
    rl.declare(options);
    EXPECT_TRUE(options.parse(expect.at("args").get<std::vector<std::string>>()));
    if (!request.value_model.empty()) request.value_model = c.folder + "/" + request.value_model;
    request.model = c.folder + "/model";
    request.file = c.path(".jsonl");
    request.dump_grads = out.file("grads.safetensors");
    if (!request.value_model.empty()) request.dump_value_grads = out.file("value_grads.safetensors");
    request.rl = rl.options;
    return request;
}

class ReplayTest : public testing::TestWithParam<const char*> {};

}  // namespace

TEST_P(ReplayTest, GoldenCases) {
    const std::vector<GoldenCase> cases = golden_cases(GetParam());
    if (cases.empty()) GTEST_SKIP() << FIXTURES << " is not here";
    const std::unique_ptr<Ops> ops = make_cpu_ops();
    for (const GoldenCase& c : cases) {
        SCOPED_TRACE(c.path(""));
        const TemporaryFolder out;
        const Json spec = read_json(c.path(".expect.json")), want = spec.at("expect");
        const bool sft = c.stem.starts_with("sft");
        for (const int token_budget : {0, 150}) {  // all in one pass, and in as many as a small budget makes
            ReplayRequest request = request_of(c, spec, out);
            request.token_budget = token_budget;
            Json got;
            try {
                got = sft ? replay_sft(*ops, request) : replay_tracerl(*ops, request);
            } catch (const Error& e) {
                ASSERT_TRUE(token_budget && e.code == Exit::Usage)
                    << e.what();  // a response beyond the small budget
                continue;
            }
            for (const auto& [key, value] : want.items())
                if (value.is_number()) expect_close(got.at(key).get<double>(), value.get<double>(), key);
            if (sft) {
                expect_close(got.at("logprobs"), want.at("logprobs"), "logprobs");
            } else {
                ASSERT_EQ(got.at("responses").size(), want.at("responses").size());
                for (size_t i = 0; i < want.at("responses").size(); i++)
                    for (const auto& [key, value] : want.at("responses")[i].items())
                        expect_close(got.at("responses")[i].at(key), value, key);
            }
            expect_same_gradients(request.dump_grads, c.path(".grads.safetensors"));
            if (!request.dump_value_grads.empty())
                expect_same_gradients(request.dump_value_grads, c.path(".value_grads.safetensors"));
        }
    }
}

INSTANTIATE_TEST_SUITE_P(Models, ReplayTest, testing::Values("sdar_b4", "sdar_b8_tied", "dream", "llada"));

TEST(KeepAccuracy, Spellings) {
    EXPECT_TRUE(parse_keep_accuracy("all").all);
    const KeepBand band = parse_keep_accuracy("0.05,0.95");
    EXPECT_FALSE(band.all);
    EXPECT_DOUBLE_EQ(band.low, 0.05);
    EXPECT_DOUBLE_EQ(band.high, 0.95);
    for (const char* wrong : {"", "0.2", "0.2,", ",0.8", "0.8,0.2", "0.2,0.8,1", "0.2;0.8", "nan,1", "none"})
        EXPECT_THROW(parse_keep_accuracy(wrong), Error) << wrong;
}
