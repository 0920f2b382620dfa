// Configurations of train_tracerl: those that come along load and plan; hostile ones are refused, with all of their faults at once.
#include <gtest/gtest.h>
#include <sys/wait.h>

#include <algorithm>
#include <filesystem>
#include <map>

#include "tests/programs.h"
#include "tests/temporary_folder.h"
#include "utils/error.h"
#include "utils/files.h"

namespace {

namespace fs = std::filesystem;

Outcome run(const std::string& arguments) {
    return run_command(program("train_tracerl") + " --device cpu " + arguments);
}

// What a plan says of `what`, in MiB.
double mib(const std::string& plan, const std::string& what) {
    const size_t at = plan.find(what);
    return at == std::string::npos ? -1 : std::stod(plan.substr(at + what.size()));
}

int n_lines(const std::string& text) { return int(std::count(text.begin(), text.end(), '\n')); }

struct Case {
    std::string name;
    std::string config;               // text of the file
    std::string arguments;            // beside it
    std::vector<std::string> faults;  // one line of the message each
};

const std::vector<Case>& cases() {
    static const std::vector<Case> all = {
        {"UnknownKeys", "temprature = 1\nno-such-key = 2\n", "", {"temprature", "no-such-key"}},
        {"WrongTypes",
         "tasks = \"many\"\nlr = [1]\nsave-every = 1.5\nreset-optimizer-each-step = 3\nloss-norm = "
         "\"mean\"\n",
         "",
         {"tasks", "lr", "save-every", "reset-optimizer-each-step", "loss-norm"}},
        {"OutOfRange",
         "responses = 1\nclip-low = 2\ngamma = -1\nsft-until = 7\nmax-resample = -1\n",
         "",
         {"responses", "clip-low", "gamma", "sft-until", "max-resample"}},
        {"BlockThatDoesNotDivide", "block = 4\ntrain-block = 6\n", "", {"multiple"}},
        {"EnlargementWithoutALargerBlock", "block = 4\nenlarge-at = 3\n", "", {"--enlarge-at"}},
        {"StepsAboveTheBlock", "block = 4\nsteps = 9\n", "", {"steps"}},
        {"ValueModelOfAnotherVocabulary", "", "--value-model {other}", {"vocabulary of 300"}},
        {"ValueModelWithAnotherObjective",
         "value-model = \"init\"\nobjective = \"coupled\"\n",
         "",
         {"--value-model"}},
        {"BudgetBelowOneSequence", "token-budget = 10\n", "", {"--token-budget 10"}},
        {"LengthBeyondTheModel", "gen-length = 1000000\n", "", {"positions"}},
        {"LengthScheduleAboveTheLimit",
         "gen-length = 64\nlength-schedule = \"0:65\"\n",
         "",
         {"--length-schedule"}},
        {"LengthScheduleThatFalls", "length-schedule = \"5:8,5:9\"\n", "", {"rise"}},
        {"LengthScheduleNonsense", "length-schedule = \"5\"\n", "", {"STEP:N"}},
        {"Tasks",
         "task = [\"chess\", \"arithmetic:digits=99\", \"sudoku4@0\", \"external:problems=x\"]\n",
         "",
         {"'chess'", "digits", "weight", "command=COMMAND"}},
        {"NothingHeldOut", "", "--task {data}:held_out=0", {"no problem is held out"}},
        {"NothingToTrainOn", "", "--task {data}:held_out=1", {"none is left to train on"}},
        {"NothingHeldOutOfAMixture",
         "",
         "--task {data}:held_out=0 --task {data}:held_out=0",
         {"none has problems that"}},
        {"EvaluationOfEqualSamples",
         "eval-samples = 3\neval-task = \"chess\"\n",
         "",
         {"--eval-samples 3", "'chess'"}},
        {"TemperaturesThatAreTooLow",
         "",
         "--temperature 1e-39 --eval-temperature 1e-8",
         {"--temperature 1e-39: 0 (greedy), or 1e-06", "--eval-temperature 1e-08: 0 (greedy), or 1e-06"}},
        {"Bands",
         "keep-accuracy = \"0.9,0.1\"\nmask-low = 0.9\nmask-high = 0.1\n",
         "",
         {"--keep-accuracy", "--mask-low"}},
        {"OutThatIsTaken", "", "--out {taken}", {"a run is there already"}},
        {"BlocksBesideATaskThatIsNone", "", "--block 4 --train-block 6 --task foo", {"multiple", "'foo'"}},
        {"BlocksBesideAModelThatIsNone",
         "",
         "--model nonesuch --block 4 --train-block 6 --eval-task foo",
         {"nonesuch", "multiple", "'foo'"}},
        {"WhatNeedsNoTokenizer",
         "steps = 9\n",
         "--model {other} --block 4 --tokenizer nonesuch --task chess --eval-task {data}:held_out=0",
         {"nonesuch", "'chess'", "no problem is held out", "--steps 9"}},
        {"BudgetAndLengthWithoutAPrompt", "", "--task chess --token-budget 10", {"'chess'", "any prompt"}},
        {"LengthOfFullAttention",
         "",
         "--model {canvas} --gen-length 40 --task arithmetic",
         {"positions, the model has 32"}},
        {"WithoutEffect",
         "",
         "--norm-length 5 --masks 2 --lambda 0.9 --sft-batch 3 --min-lr-ratio 0.1 --tokenizer bytes --out a "
         "--name b",
         {"--norm-length: is the divisor of --loss-norm constant",
          "--masks: ", "--lambda: there is no value model", "--sft-batch: there is no warm start",
          "--min-lr-ratio: is the floor of --schedule cosine", "--tokenizer: ", "--name: "}},
        {"MoreMiniBatchesThanResponses",
         "tasks = 4\nresponses = 4\nmini-batches = 17\nschedule = \"cosine\"\n",
         "",
         {"--mini-batches 17: a step has 4 x 4 = 16 responses"}},
        {"DevicesAndTypes",
         "device-memory = 80\n",
         "--device gpu --dtype bf16 --out /proc/nonesuch/run --task foo",
         {"belongs on the command line", "--device gpu", "/proc/nonesuch", "'foo'"}},
        // Of every kind one: the file's, the command line's, and what only shows beside model and task.
        {"AllAtOnce",
         "unknown = 1\ntasks = true\ntask = \"sudoku4:holes=99\"\nkeep-accuracy = \"no\"\n",
         "--lr x --block 4 --train-block 6 --value-model {other} --length-schedule 9 --out {taken}",
         {"unknown", "tasks", "holes", "--keep-accuracy", "--lr", "vocabulary of 300", "STEP:N", "multiple",
          "a run is there already"}},
    };
    return all;
}

void replace(std::string& text, const std::string& what, const std::string& by) {
    for (size_t at; (at = text.find(what)) != std::string::npos;) text.replace(at, what.size(), by);
}

class HostileConfig : public testing::TestWithParam<Case> {};

}  // namespace

TEST_P(HostileConfig, IsRefusedWithAllItsFaults) {
    const Case& c = GetParam();
    const std::string config = temporary("hostile.toml"), taken = temporary("taken"),
                      other = temporary("other");
    make_folders(taken);
    write_file_atomic(taken + "/config.toml", "");
    if (!file_exists(other + "/config.json")) {
        const std::string init = " init --preset tiny --set vocab_size=300 --out ";
        ASSERT_EQ(run_command(program("convert") + init + other).code, 0);
    }
    const std::string data = temporary("data.jsonl");
    write_file_atomic(data, "{\"question\": \"1+1\", \"ground_truth_answer\": \"2\"}\n");
    write_file_atomic(config, c.config);
    std::string arguments = "--config " + config + " " + c.arguments;
    replace(arguments, "{other}", other);
    replace(arguments, "{taken}", taken);
    replace(arguments, "{data}", data);
    if (arguments.find("{canvas}") != std::string::npos) {
        const std::string canvas = fresh("canvas");
        ASSERT_EQ(
            run_command(program("convert") +
                        " init --preset dream-7b --tokenizer bytes --set hidden_size=16 --set "
                        "intermediate_size=24 --set "
                        "num_hidden_layers=1 --set num_attention_heads=2 --set num_key_value_heads=1 --set "
                        "max_position_embeddings=32 --out " +
                        canvas)
                .code,
            0);
        replace(arguments, "{canvas}", canvas);
    }
    const Outcome o = run(arguments);
    EXPECT_EQ(o.code, 2) << o.err;
    EXPECT_EQ(o.out, "");
    EXPECT_EQ(n_lines(o.err), int(c.faults.size())) << o.err;
    for (const std::string& fault : c.faults)
        EXPECT_NE(o.err.find(fault), std::string::npos) << fault << "\n" << o.err;
}

INSTANTIATE_TEST_SUITE_P(All, HostileConfig, testing::ValuesIn(cases()),
                         [](const auto& info) { return info.param.name; });

// A file serves runs that switch parts of it off: there is no fault in what is idle.
TEST(TrainConfigs, AFileMayHoldWhatHasNoEffect) {
    const std::string config = temporary("idle.toml");
    write_file_atomic(config,
                      "norm-length = 5\nmasks = 2\nlambda = 0.9\nsft-batch = 3\nmin-lr-ratio = 0.1\n");
    const Outcome o = run("--dry-run --config " + config);
    EXPECT_EQ(o.code, 0) << o.err;
}

// What the recipes for published models name, in a folder as a user has it: models without weights, which a plan does not need.
// "": it cannot be had here.
static std::string folder_of_a_user() {
    const std::string shared = "../shared/data/", folder = fresh("user");
    if (!fs::exists(shared + "configs") || !fs::exists(shared + "tokenizer")) return "";
    for (const char* model : {"SDAR-4B-Chat", "SDAR-8B-Chat", "Dream-v0-Instruct-7B"}) {
        const std::string here = folder + "/" + model;
        make_folders(here);
        for (const std::string& from : {shared + "tokenizer/qwen3-sdar", shared + "configs/" + model})
            for (const auto& file : fs::directory_iterator(from))
                if (const std::string name = file.path().filename();
                    from.find("configs") == from.npos || name.find("tok") == name.npos)
                    fs::copy_file(file.path(), here + "/" + name, fs::copy_options::overwrite_existing);
    }
    for (const auto& [name, like] : {std::pair("gsm8k_train.jsonl", "gsm8k_train.jsonl"),
                                     {"MATH_train.json", "GSM8K.json"},
                                     {"MATH500.json", "MATH500.json"},
                                     {"MBPP.json", "MBPP.json"}})
        fs::create_symlink(fs::absolute(shared + "tasks/" + like), folder + "/" + name);
    return folder;
}

// As they are written the recipes for published models fit a GPU of 139 GiB.
TEST(TrainConfigs, ThoseThatComeAlongPlan) {
    std::map<std::string, std::string> plans;
    const std::string user = folder_of_a_user();
    for (const auto& entry : fs::directory_iterator("train/configs")) {
        const std::string path = fs::absolute(entry.path()), text = read_text(path);
        if (text.find("\nmodel = ") != std::string::npos && user.empty()) continue;
        if (text.find("\nmodel = \"runs/") != std::string::npos) continue;  // a model that is made first
        const Outcome o = run_command((user.empty() ? "" : "cd " + user + " && ") +
                                      fs::absolute(program("train_tracerl")).string() +
                                      " --device cpu --dry-run --device-memory 139 --config " + path);
        EXPECT_EQ(o.code, 0) << path << "\n" << o.err;
        for (const char* part :
             {"policy", "optimizer moments", "KV cache", "total", "one step", "tokens generated", "time"})
            EXPECT_NE(o.out.find(part), std::string::npos) << path << "\n" << o.out;
        plans[entry.path().stem()] = o.out;
    }
    EXPECT_TRUE(plans.contains("default"));
    if (!plans.contains("math")) GTEST_SKIP() << "../shared/data is not there";
    // SDAR-4B: 4,411,424,256 parameters: 2 bytes as the passes read them, 4 of the master, 4 of two moments. The value model has
    // no LM head but a head of one row.
    const double policy = 4411424256.0, value = policy - 151936.0 * 2560 + 2560;
    const std::string math = plans["math"], critic = math.substr(math.find("value model"));
    EXPECT_NEAR(mib(math, "policy weights"), policy * 2 / (1 << 20), 1);
    EXPECT_NEAR(mib(math, "policy optimizer moments"), policy * 4 / (1 << 20), 2);
    EXPECT_NEAR(mib(critic, "value model master weights"), value * 4 / (1 << 20), 1);
    EXPECT_NE(math.find("128 problems x 32"), std::string::npos) << math;
    EXPECT_NE(math.find("8192 thousand at most"), std::string::npos) << math;  // 128 x 32 x 2000
    EXPECT_NE(plans["dream_code"].find("7615.62 million parameters"), std::string::npos);
    EXPECT_NE(plans["enlarge"].find("4411.42 million parameters"), std::string::npos);
    EXPECT_NE(plans["longcot"].find("each of at most 16000 tokens"), std::string::npos);
}

// Who has none of it is told all that is missing; what the command line names takes its place.
TEST(TrainConfigs, WhatARecipeNamesIsYoursToGet) {
    const std::string math = "--dry-run --device-memory 139 --config train/configs/math.toml";
    const Outcome none = run(math);
    EXPECT_EQ(none.code, 3);
    EXPECT_EQ(n_lines(none.err), 3) << none.err;
    for (const char* part : {"SDAR-4B-Chat: there is no such folder", "MATH_train.json: cannot read",
                             "MATH500.json: cannot read"})
        EXPECT_NE(none.err.find(part), std::string::npos) << none.err;
    const Outcome named =
        run(math + " --model inference/default_model --task arithmetic --eval-task sudoku4 --gen-length 16");
    EXPECT_EQ(named.code, 0) << named.err;
}
