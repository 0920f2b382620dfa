// train_tracerl as it is typed: the default run in a minute, interrupts and resumes, bad input.
#include <gtest/gtest.h>
#include <sys/wait.h>

#include <algorithm>
#include <filesystem>
#include <map>

#include "tests/programs.h"
#include "tests/temporary_folder.h"
#include "train/run_folder.h"
#include "utils/files.h"
#include "utils/json.h"

namespace {

namespace fs = std::filesystem;

Outcome run(const std::string& arguments) {
    return run_command(program("train_tracerl") + " --progress none --device cpu " + arguments);
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

}  // namespace

TEST(TrainProgram, TheDefaultRunInAMinute) {
    if (SANITIZED) GTEST_SKIP() << "takes a minute without a sanitizer, ten with one";
    const std::string folder = fresh("quick");
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
    const TemporaryFolder folder;  // most of the time would go by in syncing its many checkpoints to a disk
    const Outcome o =
        run_command("TMPDIR=" + folder.path() + " tests/soak.sh " + program("train_tracerl") + " 30");
    EXPECT_EQ(o.code, 0) << o.out << o.err;
}

TEST(TrainProgram, EnlargedBlocksAreTheModelsOwn) {
    const std::string model = fresh("b4"), folder = fresh("enlarged");
    const std::string init = " init --preset tiny --tokenizer bytes --set num_hidden_layers=1 --out ";
    ASSERT_EQ(run_command(program("convert") + init + model).code, 0);
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
    const std::string folder = fresh("external"), model = fresh("external_model"),
                      problems = temporary("problems.jsonl"), judge = temporary("judge.sh");
    const std::string init =
        " init --preset tiny --tokenizer bytes --set hidden_size=16 --set intermediate_size=24 --set "
        "num_hidden_layers=2 --set head_dim=8 --set num_attention_heads=2 --set num_key_value_heads=1 --out ";
    ASSERT_EQ(run_command(program("convert") + init + model).code, 0);
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
    const std::string whole = fresh("disk_whole"), full = fresh("disk_full");
    ASSERT_EQ(run(SMALL + " --out " + whole).code, 0);
    fs::copy(whole, full, fs::copy_options::recursive);  // as it was after two of four steps
    write_file_atomic(full + "/latest", "ckpt/step-000008\n");
    const std::string before = latest_weights(full);
    // ulimit counts blocks of 512 or 1024 bytes: enough for the metrics, not for the weights
    const Outcome o = run_command("trap '' XFSZ; ulimit -f 500; exec " + program("train_tracerl") +
                                  " --progress none --device cpu --resume " + full);
    EXPECT_EQ(o.code, 1);
    EXPECT_NE(o.err.find("error: " + full), std::string::npos) << o.err;
    EXPECT_NE(o.err.find("File too large"), std::string::npos) << o.err;
    EXPECT_TRUE(latest_weights(full) == before);
    EXPECT_EQ(read_text(full + "/latest"), "ckpt/step-000008\n");
    for (const auto& entry : fs::recursive_directory_iterator(full))
        EXPECT_EQ(entry.path().filename().string().find(".tmp"), std::string::npos) << entry.path();
    ASSERT_EQ(run("--resume " + full).code, 0);
    EXPECT_TRUE(latest_weights(full) == latest_weights(whole));
    EXPECT_EQ(read_text(full + "/latest"), read_text(whole + "/latest"));
}

TEST(TrainProgram, FoldersThatCannotBeUsed) {
    const std::string file = temporary("a_file"), taken = fresh("locked");
    write_file_atomic(file, "x");
    const Outcome under_a_file = run(SMALL + " --out " + file + "/run");
    EXPECT_EQ(under_a_file.code, 1);
    EXPECT_NE(under_a_file.err.find(file), std::string::npos) << under_a_file.err;
    EXPECT_EQ(run(SMALL + " --out /proc/run").code, 1);
    // Another process has the folder.
    const RunFolder mine = RunFolder::create(taken, "x", "");
    const Outcome second = run("--resume " + taken);
    EXPECT_EQ(second.code, 2);
    EXPECT_NE(second.err.find("another process"), std::string::npos) << second.err;
}

TEST(TrainProgram, PlotsRuns) {
    const std::string a = fresh("plot_a"), page = temporary("comparison.html");
    const Outcome trained = run(SMALL + " --json --out " + a);
    ASSERT_EQ(trained.code, 0) << trained.err;
    const std::vector<Json> evaluations = json_lines(trained.out);
    ASSERT_EQ(evaluations.size(), 3u);
    EXPECT_EQ(evaluations[2]["name"], "after RL");
    EXPECT_TRUE(evaluations[2]["dynamic"]["accuracy"].is_number());
    EXPECT_NE(read_text(a + "/main.log").find("evaluating (after RL)"), std::string::npos);
    const std::string report = read_text(a + "/report.html");
    fs::remove(a + "/report.html");
    const auto plot = [&](const std::string& arguments) {
        return run_command(program("train_tracerl") + " plot " + arguments).code;
    };
    EXPECT_EQ(plot(a), 0);
    EXPECT_EQ(read_text(a + "/report.html"), report);
    EXPECT_EQ(plot(a + " " + a + " --out " + page), 0);
    EXPECT_NE(read_text(page).find("2 runs compared"), std::string::npos);
    EXPECT_EQ(plot("no_such_run"), 3);
    EXPECT_EQ(plot(a + " no_such_run --out " + page), 3);
    // What lies beside runs is left out.
    const Outcome rest = run_command(program("train_tracerl") + " plot --json " + a + " " + a +
                                     " inference/default_model README.md --out " + page);
    EXPECT_EQ(rest.out, dump({{"runs", {a, a}}, {"page", page}}) + "\n") << rest.err;
    EXPECT_NE(read_text(page).find("2 runs compared"), std::string::npos);
    EXPECT_EQ(plot("inference/default_model README.md --out " + page), 3);
    EXPECT_EQ(plot("inference/default_model"), 3);
    EXPECT_EQ(plot(""), 2);
}

TEST(TrainProgram, APlanAsJson) {
    const Outcome o = run(SMALL + " --value-model init --dry-run --json");
    ASSERT_EQ(o.code, 0) << o.err;
    const Json plan = parse_json(o.out, "stdout");
    size_t held = 0, block = 0;
    for (const auto& [name, bytes] : plan["bytes"].items()) held += bytes.get<size_t>();
    for (const auto& [name, bytes] : plan["bytes_in_turn"].items())
        block = std::max(block, bytes.get<size_t>());
    EXPECT_GT(plan["bytes"]["value model weights"], 1 << 20);
    EXPECT_EQ(plan["bytes_total"], held + block);
    EXPECT_EQ(plan["bytes_with_recompute"][plan["recompute"].get<std::string>()], plan["bytes_total"]);
    EXPECT_EQ(plan["step"]["generated_tokens_most"], 2 * 4 * 6);
    EXPECT_GE(plan["step"]["seconds_most"], plan["step"]["seconds_least"]);
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
    EXPECT_EQ(run(SMALL + " --value-model none --objective coupled --dry-run").code, 0);
    EXPECT_EQ(run("--token-budget 8 --dry-run").code, 2);
    EXPECT_NE(run("--cfg-scale 1 --dry-run").err.find("log-probabilities of a guided"), std::string::npos);
    EXPECT_EQ(run("--block 4 --train-block 6 --dry-run").code, 2);
    EXPECT_EQ(run("--block 4 --enlarge-at 2 --dry-run").code, 2);
    EXPECT_EQ(run("--block 4 --train-block 8 --enlarge-at 2 --dry-run").code, 0);
    EXPECT_EQ(run("--cache dual --dry-run").code, 2);
    EXPECT_EQ(run("--further-horizon 8 --dry-run").code, 2);
    EXPECT_EQ(run("--factor 2 --dry-run").code, 2);
    const std::string taken = fresh("taken");
    make_folders(taken);
    write_file_atomic(taken + "/config.toml", "");
    EXPECT_EQ(run("--out " + taken).code, 2);
    write_file_atomic(taken + "/own.toml",
                      "task = \"arithmetic\"\n");  // names no block, as the default one does
    const Outcome canvas = run("--config " + taken + "/own.toml --preset dream --dry-run");
    EXPECT_NE(canvas.err.find("(which --preset dream has)"), std::string::npos) << canvas.err;
    EXPECT_EQ(canvas.err.find("block_size"), std::string::npos) << canvas.err;
}

// Neither is asked for what it would need to run, and what is named may not be there yet.
TEST(TrainProgram, AConfigurationIsWrittenOfWhatIsGiven) {
    for (const char* arguments :
         {"", "--tokenizer no_tokenizer", "--replay no_records", "--model no_model --task no_task.jsonl",
          "--config train/configs/math.toml --dtype bf16", "--device cuda:7 --value-model no_value"}) {
        const Outcome o = run(std::string(arguments) + " --dump-config -");
        EXPECT_EQ(o.code, 0) << arguments << "\n" << o.err;
        EXPECT_EQ(o.err, "") << arguments;
        EXPECT_NE(o.out.find("\ntotal_steps = "), std::string::npos) << o.out;
    }
    EXPECT_EQ(run("--dump-config - --keep-accuracy x").code, 2);
}

// In fp32 they would be 0 or 1, and 0 / 0 the step of a weight without a gradient.
TEST(TrainProgram, AdamsNumbersAreFp32s) {
    const Outcome o = run("--adam-eps 0 --sft-adam-eps 1e-60 --beta1 0.99999999 --value-beta2 0.99999999");
    EXPECT_EQ(o.code, 2);
    for (const char* name : {"--adam-eps 0", "--sft-adam-eps", "--beta1", "--value-beta2"})
        EXPECT_NE(o.err.find(std::string("error: ") + name), std::string::npos) << o.err;
    EXPECT_EQ(run(SMALL + " --adam-eps 1e-30 --beta2 0.9999999 --dry-run").code, 0);
    EXPECT_LT(float(0.9999999), 1);
}

TEST(TrainProgram, ReplayIsNoRun) {
    const std::string grads = temporary("grads.safetensors"),
                      same = (fs::path(grads).parent_path() / "." / "grads.safetensors").string();
    const Outcome o = run(
        "--replay no_records.jsonl --model no_policy --value-model no_value --resume no_run --dump-grads " +
        grads + " --dump-value-grads " + same);
    EXPECT_EQ(o.code, 2);
    for (const char* part : {"--resume: --replay computes", "no_records.jsonl", "no_policy", "no_value",
                             "--dump-value-grads would be written over it"})
        EXPECT_NE(o.err.find(part), std::string::npos) << part << "\n" << o.err;
    const Outcome nowhere = run("--replay no_records.jsonl --model no_policy --dump-grads no_folder/grads");
    EXPECT_EQ(nowhere.code, 3);
    for (const char* part : {"no_records.jsonl", "no_policy", "no_folder/grads: cannot write"})
        EXPECT_NE(nowhere.err.find(part), std::string::npos) << part << "\n" << nowhere.err;
}

// One response is no group; with an advantage it needs none.
TEST(TrainProgram, AReplayThatDropsEverythingSaysSo) {
    const std::string alone = temporary("alone.jsonl"), given = temporary("given.jsonl");
    const std::string record = R"({"prompt_ids": [49, 61], "response_ids": [49, 258], "step_map": [1, 2], )";
    write_file_atomic(alone, record + R"("reward": 1})");
    write_file_atomic(given, record + R"("advantage": 1})");
    const Outcome o = run("--model inference/default_model --replay " + alone);
    EXPECT_EQ(o.code, 0) << o.err;
    EXPECT_NE(o.err.find("all 1 responses are dropped"), std::string::npos) << o.err;
    const Outcome trained = run("--model inference/default_model --replay " + given);
    EXPECT_EQ(trained.err.find("dropped"), std::string::npos) << trained.err;
    EXPECT_EQ(trained.code, 0);
}

// As with `2>&1 | tee log`, when tee has gone.
TEST(TrainProgram, ItsLogNeedsNoReader) {
    const std::string folder = fresh("unread");
    const Outcome o = run(SMALL + " --total-steps 1 --out " + folder + " 2>&1 >/dev/null | true");
    EXPECT_EQ(read_text(folder + "/latest"), "ckpt/step-000007\n") << o.err;
}

// Whoever goes on once more, as the program says, goes on with what was changed.
TEST(TrainProgram, WhatAResumeChangesStays) {
    const std::string folder = fresh("changed"), config = folder + "/config.toml";
    ASSERT_EQ(run(SMALL + " --out " + folder + " --total-steps 1").code, 0);
    const std::string first = read_text(config);
    ASSERT_EQ(run("--quiet --resume " + folder).code, 0);
    EXPECT_EQ(read_text(config), first) << "how it is shown is no change";
    const Outcome longer = run("--total-steps 2 --resume " + folder);
    ASSERT_EQ(longer.code, 0);
    EXPECT_NE(longer.err.find("--total-steps 2 from here on, 1 before\n"), std::string::npos) << longer.err;
    EXPECT_NE(read_text(folder + "/main.log").find("--total-steps 2 from here on"), std::string::npos);
    const std::string second = read_text(config);
    EXPECT_EQ(run("--moments bf16 --total-steps 3 --resume " + folder).code, 3);
    EXPECT_EQ(read_text(config), second) << "what does not fit the checkpoint is not kept";
    const Outcome again = run("--resume " + folder);
    EXPECT_NE(again.err.find("all 2 steps were made before"), std::string::npos) << again.err;
    EXPECT_EQ(again.err.find("from here on"), std::string::npos) << again.err;
    EXPECT_EQ(RunFolder::program_of(folder), "train_tracerl");
    const Outcome named = run("--name other --resume " + folder);
    EXPECT_EQ(named.code, 2);
    EXPECT_NE(named.err.find("--name: a resumed run stays in its folder"), std::string::npos) << named.err;
}

// Whatever is named in place of a run: what it is instead, and what to do.
TEST(TrainProgram, FoldersThatAreNoRunToResume) {
    const std::string folder = fresh("resumed"), file = temporary("resumed_file"),
                      other = fresh("resumed_sft");
    ASSERT_EQ(run(SMALL + " --out " + folder + " --total-steps 0").code, 0);
    EXPECT_NE(run("--resume " + folder).err.find("all 0 steps were made before; more with --total-steps"),
              std::string::npos);
    const std::string newest = read_text(folder + "/latest"), name = newest.substr(0, newest.size() - 1);
    write_file_atomic(file, "x");
    make_folders(other);
    write_file_atomic(other + "/config.toml", "# train_sft\npad_tokens = 3\n");
    const auto fault = [&](const std::string& path, int code) {
        const Outcome o = run("--resume " + path);
        EXPECT_EQ(o.code, code) << o.err;
        EXPECT_EQ(std::count(o.err.begin(), o.err.end(), '\n'), 1) << o.err;
        EXPECT_NE(o.err.find(path), std::string::npos) << o.err;
        return o.err;
    };
    const auto has = [](const std::string& text, const std::string& part) {
        EXPECT_NE(text.find(part), std::string::npos) << text;
    };
    has(fault("no_such_run", 3), "there is no such folder");
    has(fault(file, 3), "is a file");
    has(fault("tests", 3), "config.toml is missing");
    has(fault("inference/default_model", 3), "--model begins a new run with it");
    has(fault(folder + "/" + name, 3), "is a checkpoint");
    has(fault(other, 2), "is a run of train_sft; go on with ./train_sft --resume");
    has(run_command(program("train_sft") + " --resume " + folder).err,
        "is a run of train_tracerl; go on with ./train_tracerl --resume");

    write_file_atomic(folder + "/latest", "ckpt/step-000099\n");
    has(fault(folder, 3), "names 'ckpt/step-000099', which is not there");
    write_file_atomic(folder + "/latest", "\n");
    has(fault(folder, 3), "echo " + name + " > ");
    fs::remove(folder + "/latest");
    has(fault(folder, 3), "echo " + name + " > ");
    fs::remove_all(folder + "/ckpt");
    has(fault(folder, 3), "begin again with --config " + folder + "/config.toml");
}
