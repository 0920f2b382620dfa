// train_tracerl as it is typed: the default run in a minute, interrupts and resumes, bad input.
#include <gtest/gtest.h>
#include <sys/wait.h>

#include <filesystem>
#include <map>

#include "tests/programs.h"
#include "train/run_folder.h"
#include "utils/files.h"
#include "utils/json.h"

namespace {

namespace fs = std::filesystem;

struct Outcome {
    int code;
    std::string out, err;
};

std::string temporary(const std::string& name) { return testing::TempDir() + "train_program_" + name; }

Outcome run(const std::string& arguments) {
    const std::string out = temporary("out"), err = temporary("err");
    const int status = system((program("train_tracerl") + " --progress none --device cpu " + arguments +
                               " </dev/null >" + out + " 2>" + err)
                                  .c_str());
    return {WIFEXITED(status) ? WEXITSTATUS(status) : -1, read_text(out), read_text(err)};
}

// A run of some seconds, of which every checkpoint is kept.
const std::string SMALL =
    "--task arithmetic:digits=1,working=off --gen-length 6 --sft-steps 6 --sft-batch 4 --sft-eval-every 0 "
    "--total-steps 4 --tasks 2 --responses 4 --keep-accuracy all --eval-problems 4 --save-every 1 --keep 0 "
    "--block 4 --seed 3 --threads 1";

std::string latest_weights(const std::string& folder) {
    std::string latest = read_text(folder + "/latest");
    latest.pop_back();
    return read_text(folder + "/" + latest + "/model.safetensors");
}

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr bool SANITIZED = true;
#else
constexpr bool SANITIZED = false;
#endif

}  // namespace

TEST(TrainProgram, TheDefaultRunInAMinute) {
    if (SANITIZED) GTEST_SKIP() << "takes a minute without a sanitizer, ten with one";
    const std::string folder = temporary("quick");
    fs::remove_all(folder);
    const Outcome o = run("--config train/configs/quick.toml --out " + folder);
    ASSERT_EQ(o.code, 0) << o.err;
    EXPECT_NE(o.out.find("./infer --model " + folder + "/ckpt/step-"), std::string::npos) << o.out;
    std::map<std::string, double> dynamic;
    int steps = 0;
    read_jsonl(folder + "/metrics.jsonl", [&](const Json& line, const std::string&) {
        if (line["phase"] == "eval") dynamic[line["name"]] = line["dynamic"]["accuracy"];
        if (line["phase"] != "rl") return;
        steps++;
        if (line["updates"].get<int>()) {
            EXPECT_LT(line["logprob_mismatch"].get<double>(), 1e-4);
        }
    });
    EXPECT_EQ(steps, 20);
    EXPECT_LT(dynamic.at("at the start"), 0.02);
    EXPECT_GT(dynamic.at("after SFT"), 0.3);
    EXPECT_GT(dynamic.at("after RL"), dynamic.at("after SFT"));
    // The folder says how it came to be, and what it says runs.
    EXPECT_EQ(run("--dry-run --config " + folder + "/config.toml").code, 0);
    // Every sampled trajectory can be replayed.
    const Outcome replayed = run("--model " + folder + "/ckpt/" +
                                 fs::path(read_text(folder + "/latest")).filename().string().substr(0, 11) +
                                 " --block 8 --keep-accuracy all --replay " + folder +
                                 "/samples/step-000020.jsonl --dump-grads " + temporary("grads"));
    ASSERT_EQ(replayed.code, 0) << replayed.err;
    EXPECT_GT(parse_json(replayed.out, "stdout")["n_responses"].get<int>(), 0);
}

// Stopped at 30 random moments by SIGINT, SIGTERM and kill -9; `make soak` does it 100 times.
TEST(TrainProgram, KilledAndResumedIsExact) {
    if (SANITIZED) GTEST_SKIP() << "takes ten seconds without a sanitizer, minutes with one";
    EXPECT_EQ(system(("tests/soak.sh " + program("train_tracerl") + " 30").c_str()), 0);
}

TEST(TrainProgram, EnlargedBlocksAreTheModelsOwn) {
    const std::string model = temporary("b4"), folder = temporary("enlarged");
    fs::remove_all(model);
    fs::remove_all(folder);
    ASSERT_EQ(
        system((program("convert") +
                " init --preset tiny --tokenizer bytes --set num_hidden_layers=1 --quiet --out " + model)
                   .c_str()),
        0);
    const std::string small =
        "--task arithmetic:digits=1,working=off --gen-length 6 --sft-steps 1 --sft-batch 2 --sft-eval-every "
        "0 --total-steps 2 "
        "--tasks 1 --responses 2 --eval-problems 2 --save-every 1 --keep 0 --threads 1 --train-block 8 "
        "--enlarge-at 1 ";
    const Outcome o = run(small + "--model " + model + " --out " + folder);
    ASSERT_EQ(o.code, 0) << o.err;
    EXPECT_NE(o.out.find(" --block 8 "), std::string::npos) << o.out;
    // One RL step in blocks of 4, then one in blocks of 8: a checkpoint says what comes next.
    EXPECT_EQ(read_json(folder + "/ckpt/step-000002/config.json")["block_size"], 8);
    EXPECT_EQ(read_json(folder + "/ckpt/step-000003/config.json")["block_size"], 8);
    const Outcome resumed = run("--resume " + folder);
    EXPECT_EQ(resumed.code, 0) << resumed.err;
}

// Rewards of single tokens come from a command, beside another task, and train policy and value model.
TEST(TrainProgram, AnExternalTaskInAMixture) {
    const std::string folder = temporary("external"), model = temporary("external_model"),
                      problems = temporary("problems.jsonl"), judge = temporary("judge.sh");
    fs::remove_all(folder);
    fs::remove_all(model);
    ASSERT_EQ(system((program("convert") +
                      " init --preset tiny --tokenizer bytes --set hidden_size=16 --set intermediate_size=24 "
                      "--set num_hidden_layers=2 --set head_dim=8 --set num_attention_heads=2 "
                      "--set num_key_value_heads=1 --out " +
                      model + " >/dev/null 2>&1")
                         .c_str()),
              0);
    write_file_atomic(problems, "{\"question\": \"a\"}\n{\"question\": \"b\"}\n{\"question\": \"c\"}\n");
    // The first token of every other response is worth 1, the rest nothing.
    write_file_atomic(judge,
                      "while read -r line; do id=${line#*\\\"id\\\":}; id=${id%%[!0-9]*}; echo "
                      "\"{\\\"id\\\": $id, \\\"reward\\\": $((id % 2)), \\\"chunks\\\": [{\\\"end\\\": 1, "
                      "\\\"reward\\\": $((id % 2))}, {\\\"end\\\": 8, \\\"reward\\\": 0}]}\"; done\n");
    const Outcome o =
        run("--model " + model + " --task external:problems=" + problems +
            ",held_out=0,timeout=60,command=sh\\ " + judge +
            " --task arithmetic:digits=1@1 --value-model init --overlong keep --ignore-eos --gen-length 8 "
            "--block 4 --tasks 4 --responses 4 --total-steps 2 --max-resample 0 --eval-problems 2 --out " +
            folder);
    ASSERT_EQ(o.code, 0) << o.err;
    int steps = 0;
    read_jsonl(folder + "/metrics.jsonl", [&](const Json& line, const std::string&) {
        if (line["phase"] != "rl") return;
        steps++;
        EXPECT_EQ(line["tasks"]["external"]["responses"], 8);
        EXPECT_EQ(line["tasks"]["external"]["accuracy"], 0.5);
        EXPECT_EQ(line["tasks"]["arithmetic"]["accuracy"], 0);
        EXPECT_EQ(line["ungraded"], 0);
        EXPECT_EQ(line["responses"], 8);  // token rewards drop nothing, a group that is all wrong is dropped
        EXPECT_GT(line["grad_norm"].get<double>(), 0);
        EXPECT_GT(line["value_grad_norm"].get<double>(), 0);
    });
    EXPECT_EQ(steps, 2);
    int rewarded = 0;
    read_jsonl(folder + "/samples/step-000001.jsonl", [&](const Json& line, const std::string&) {
        if (!line.contains("token_rewards")) return;
        rewarded += line["token_rewards"][0] == 1;
        EXPECT_EQ(line["token_rewards"].size(), 8u);
    });
    EXPECT_EQ(rewarded, 4);
}

// A disk that is full, played by a limit on the size of files: the run ends with one line that names the file, the checkpoint
// before stays whole, and with room again the run goes on to the same weights.
TEST(TrainProgram, AFullDisk) {
    const std::string whole = temporary("disk_whole"), full = temporary("disk_full");
    fs::remove_all(whole);
    fs::remove_all(full);
    ASSERT_EQ(run(SMALL + " --out " + whole).code, 0);
    fs::copy(whole, full, fs::copy_options::recursive);  // as it was after two of four steps
    write_file_atomic(full + "/latest", "ckpt/step-000008\n");
    const std::string before = latest_weights(full);
    const std::string err = temporary("err");
    // ulimit counts blocks of 512 or 1024 bytes: enough for the metrics, not for the weights
    const int status =
        system(("trap '' XFSZ; ulimit -f 500; exec " + program("train_tracerl") +
                " --progress none --device cpu --resume " + full + " </dev/null >/dev/null 2>" + err)
                   .c_str());
    EXPECT_EQ(WEXITSTATUS(status), 1);
    const std::string said = read_text(err);
    EXPECT_NE(said.find("error: " + full), std::string::npos) << said;
    EXPECT_NE(said.find("File too large"), std::string::npos) << said;
    EXPECT_TRUE(latest_weights(full) == before);
    EXPECT_EQ(read_text(full + "/latest"), "ckpt/step-000008\n");
    for (const auto& entry : fs::recursive_directory_iterator(full))
        EXPECT_EQ(entry.path().filename().string().find(".tmp"), std::string::npos) << entry.path();
    ASSERT_EQ(run("--resume " + full).code, 0);
    EXPECT_TRUE(latest_weights(full) == latest_weights(whole));
    EXPECT_EQ(read_text(full + "/latest"), read_text(whole + "/latest"));
}

TEST(TrainProgram, FoldersThatCannotBeUsed) {
    const std::string file = temporary("a_file"), taken = temporary("locked");
    write_file_atomic(file, "x");
    const Outcome under_a_file = run(SMALL + " --out " + file + "/run");
    EXPECT_EQ(under_a_file.code, 1);
    EXPECT_NE(under_a_file.err.find(file), std::string::npos) << under_a_file.err;
    EXPECT_EQ(run(SMALL + " --out /proc/run").code, 1);
    // Another process has the folder.
    fs::remove_all(taken);
    const RunFolder mine = RunFolder::create(taken, "x", "");
    const Outcome second = run("--resume " + taken);
    EXPECT_EQ(second.code, 2);
    EXPECT_NE(second.err.find("another process"), std::string::npos) << second.err;
}

TEST(TrainProgram, PlotsRuns) {
    const std::string a = temporary("plot_a"), page = temporary("comparison.html");
    fs::remove_all(a);
    ASSERT_EQ(run(SMALL + " --out " + a).code, 0);
    EXPECT_NE(read_text(a + "/main.log").find("evaluating (after RL)"), std::string::npos);
    const std::string report = read_text(a + "/report.html");
    fs::remove(a + "/report.html");
    const auto plot = [&](const std::string& arguments) {
        return system((program("train_tracerl") + " plot " + arguments + " >" + temporary("out") + " 2>" +
                       temporary("err"))
                          .c_str());
    };
    EXPECT_EQ(plot(a), 0) << read_text(temporary("err"));
    EXPECT_EQ(read_text(a + "/report.html"), report);
    EXPECT_EQ(plot(a + " " + a + " --out " + page), 0) << read_text(temporary("err"));
    EXPECT_NE(read_text(page).find("2 runs compared"), std::string::npos);
    EXPECT_EQ(WEXITSTATUS(plot("no_such_run")), 3);
    EXPECT_EQ(WEXITSTATUS(plot("")), 2);
}

TEST(TrainProgram, FaultsAreListedTogether) {
    const Outcome o = run("--lr banana --tasks 0 --no-such-flag 3");
    EXPECT_EQ(o.code, 2);
    for (const char* word : {"--lr", "banana", "--tasks", "--no-such-flag"})
        EXPECT_NE(o.err.find(word), std::string::npos) << o.err;
    EXPECT_EQ(run("--task nonsense").code, 2);
    EXPECT_EQ(run("--task no_such_file.jsonl").code, 3);
    EXPECT_EQ(run("--model no_such_folder").code, 3);
    EXPECT_EQ(run("--resume no_such_run").code, 3);
    EXPECT_EQ(run("--value-model init --objective coupled").code, 2);
    EXPECT_EQ(run("--token-budget 8 --dry-run").code, 2);
    EXPECT_EQ(run("--block 4 --train-block 6 --dry-run").code, 2);
    EXPECT_EQ(run("--block 4 --enlarge-at 2 --dry-run").code, 2);
    EXPECT_EQ(run("--block 4 --train-block 8 --enlarge-at 2 --dry-run").code, 0);
    const std::string taken = temporary("taken");
    make_folders(taken);
    write_file_atomic(taken + "/config.toml", "");
    EXPECT_EQ(run("--out " + taken).code, 2);
}
