// train_sft and train_tracerl --replay as they are typed: a run with everything on, a stop and a resume, hostile files.
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>

#include "tests/programs.h"
#include "tests/temporary_folder.h"
#include "utils/files.h"
#include "utils/json.h"

namespace {

class SftProgram : public testing::Test {
  protected:
    TemporaryFolder folder_;

    // A byte-level model of width 16 in folder `name`, and a file of 24 examples.
    void SetUp() override {
        const Outcome made = run_command(
            program("convert") + " init --preset tiny --tokenizer bytes --out " + folder_.file("model") +
            " --set hidden_size=16 --set num_hidden_layers=2 --set num_attention_heads=2 --set "
            "num_key_value_heads=1 --set head_dim=8 --set intermediate_size=24 --set "
            "max_position_embeddings=64");
        ASSERT_EQ(made.code, 0) << made.err;
        std::string lines;
        for (int i = 0; i < 24; i++)
            lines += format(R"({"question": "%d+%d=", "answer": "%d"})", i, 2 * i, 3 * i) + "\n";
        write_file_atomic(folder_.file("data.jsonl"), lines);
    }
    std::string training(const std::string& out) const {
        return program("train_sft") + " --device cpu --threads 1 --progress none --model " +
               folder_.file("model") + " --data " + folder_.file("data.jsonl") +
               " --prompt-field question --response-field answer --eval-split 0.25 --pad-tokens 1 "
               "--complementary "
               "--batch-size 4 --epochs 8 --eval-every 6 --save-every 1 --lr 1e-2 --schedule cosine --warmup "
               "3 "
               "--min-lr-ratio 0.1 --weight-decay 0.1 --seed 5 --out " +
               folder_.file(out);
    }
    std::string newest(const std::string& out) const {
        const std::string name = read_text(folder_.file(out + "/latest"));
        return folder_.file(out + "/" + name.substr(0, name.size() - 1));
    }
};

}  // namespace

TEST_F(SftProgram, LearnsEvaluatesAndSavesAFolderThatIsAModel) {
    const Outcome o = run_command(training("run") + " --json");
    ASSERT_EQ(o.code, 0) << o.err;
    EXPECT_EQ(parse_json(o.out, "stdout"), Json({{"model", newest("run")}}));
    EXPECT_TRUE(
        json_lines(run_command(training("plan") + " --dry-run --json").out)[0].contains("bytes_total"));
    std::vector<Json> lines;
    read_jsonl(folder_.file("run/metrics.jsonl"),
               [&](const Json& line, const std::string&) { lines.push_back(line); });
    ASSERT_EQ(lines.size(), 40u);  // 18 of 24 are trained: 5 updates an epoch
    EXPECT_LT(lines.back()["nll"].get<double>(), lines[0]["nll"].get<double>());
    EXPECT_LT(lines[11]["eval_nll"].get<double>(), lines[5]["eval_nll"].get<double>());
    EXPECT_FALSE(lines[6].contains("eval_nll"));
    EXPECT_LT(lines[0]["lr"].get<double>(), lines[2]["lr"].get<double>());  // warm-up
    EXPECT_NEAR(lines.back()["lr"].get<double>(), 1e-3, 2e-4);              // the cosine's floor
    EXPECT_EQ(run_command(program("convert") + " check " + newest("run")).code, 0);
    const Outcome again =
        run_command(program("train_sft") + " --device cpu --progress lines --resume " + folder_.file("run"));
    EXPECT_EQ(again.code, 0);
    EXPECT_NE(again.err.find("all 40 updates were made before"), std::string::npos) << again.err;
    EXPECT_EQ(again.err.find("/40"), std::string::npos) << again.err;
    EXPECT_EQ(run_command(program("infer") + " --device cpu --model " + newest("run") +
                          " --prompt 1+2= --gen-length 4 --json")
                  .code,
              0);
}

TEST_F(SftProgram, AStoppedRunGoesOnBitForBit) {
    ASSERT_EQ(run_command(training("whole")).code, 0);
    const pid_t pid = fork();
    if (pid == 0) {
        const std::string command = "exec " + training("cut") + " >/dev/null 2>&1";
        execl("/bin/sh", "sh", "-c", command.c_str(), nullptr);
        _exit(98);
    }
    const std::string metrics = folder_.file("cut/metrics.jsonl");
    for (int i = 0; i < 3000; i++) {
        const std::string text = file_exists(metrics) ? read_text(metrics) : "";
        if (std::count(text.begin(), text.end(), '\n') >= 7) break;
        usleep(5000);
    }
    kill(pid, SIGTERM);
    int status = 0;
    waitpid(pid, &status, 0);
    ASSERT_TRUE(WIFEXITED(status));
    EXPECT_TRUE(WEXITSTATUS(status) == 143 || WEXITSTATUS(status) == 0) << WEXITSTATUS(status);
    const Outcome o =
        run_command(program("train_sft") + " --device cpu --progress none --resume " + folder_.file("cut"));
    ASSERT_EQ(o.code, 0) << o.err;
    for (const char* file : {"/model.safetensors", "/optimizer.safetensors", "/config.json"})
        EXPECT_EQ(read_text(newest("whole") + file), read_text(newest("cut") + file)) << file;
}

// Every kind of bad line, as line 2 of a file: exit 3 and one line that names the file, the line and the field.
TEST_F(SftProgram, HostileFilesEndWithOneClearLine) {
    const std::string record =
        R"({"prompt_ids": [1,2,3,4,5], "response_ids": [6,7,8,9], "step_map": [2,1,1,4], )";
    const std::string copies = R"({"prompt_ids": [1,2,3,4,5], "response_ids": [6,7,8,9], "copies": )";
    struct Case {
        const char* program;  // and what goes before its file
        std::string good, bad;
        const char* field;
    };
    const char *replay = "train_tracerl --replay ", *sft_replay = "train_sft --replay ",
               *sft = "train_sft --data ";
    const std::string given = record + R"("advantage": 1})", text = R"({"prompt": "1+1=", "response": "2"})";
    const Case cases[] = {
        {replay, given, R"({"prompt_ids": [1,264], "response_ids": [6], "step_map": [1], "advantage": 1})",
         "prompt_ids"},
        {replay, given, R"({"prompt_ids": [1,2], "response_ids": [-1], "step_map": [1], "advantage": 1})",
         "response_ids"},
        {replay, given, R"({"prompt_ids": [1,2], "response_ids": [6], "step_map": [0], "advantage": 1})",
         "step_map"},
        {replay, given,
         R"({"prompt_ids": [1,2], "response_ids": [6,7,8], "step_map": [1,5,5], "advantage": 1})",
         "step_map"},
        {replay, given, R"({"prompt_ids": [1,2], "response_ids": [6,7], "step_map": [1], "advantage": 1})",
         "step_map"},
        {replay, given, record + R"("advantage": 1, "old_logprobs": [-1,-1,NaN,-1]})", ""},
        {replay, given, record + R"("advantage": 1, "old_logprobs": [-1,-1,null,-1]})", "old_logprobs"},
        {replay, given, record + R"("advantage": [1,1,1]})", "advantage"},
        {replay, given, record + R"("reward": 1})", "advantage"},
        {replay, given, record + R"("advantage": 1, "tail_ids": [1]})", "tail_steps"},
        {replay, given, R"({"prompt_ids": [1,2], "step_map": [1], "advantage": 1})", "response_ids"},
        {replay, given, "17", "object"},
        {sft_replay, copies + R"([{"masked": [0]}]})", copies + R"([{"masked": [0], "weight": "x"}]})",
         "weight"},
        {sft_replay, copies + R"([{"masked": [0]}]})", copies + R"([{"masked": [4]}]})", "masked"},
        {sft_replay, copies + R"([{"masked": [0]}]})", copies + R"([{"masked": [2, 3]}]})", "block"},
        {sft_replay, copies + R"([{"masked": [0]}]})", copies + "[]}", "copies"},
        {sft, text, R"({"prompt": "1+1="})", "response"},
        {sft, text, R"({"prompt": "1+1=", "response": 2})", "response"},
        {sft, text, R"({"messages": [{"role": "user", "content": "hi"}]})", "messages"},
        {sft, text, R"({"prompt_ids": [1], "response_ids": [264]})", "response_ids"},
        {sft, text, R"({"prompt_ids": [1], "response_ids": [4], "step_map": [1,2]})", "step_map"},
        {sft, text, R"({"prompt": "1+1=")", ""},
    };
    const std::string file = folder_.file("bad.jsonl");
    for (const Case& c : cases) {
        write_file_atomic(file, c.good + "\n" + c.bad + "\n");
        const Outcome o =
            run_command(program(c.program) + file + " --device cpu --model " + folder_.file("model"));
        EXPECT_EQ(o.code, 3) << c.bad << o.err;
        EXPECT_EQ(std::count(o.err.begin(), o.err.end(), '\n'), 1) << c.bad << o.err;
        EXPECT_NE(o.err.find(file + ":2:"), std::string::npos) << c.bad << o.err;
        EXPECT_NE(o.err.find(c.field), std::string::npos) << c.bad << o.err;
        EXPECT_EQ(o.out, "") << c.bad;
    }
    for (const char* of : {replay, sft_replay, sft, "eval --choices "}) {  // all lines at fault are named
        write_file_atomic(file, "{\n[]\n{}\n");
        const Outcome all =
            run_command(program(of) + file + " --device cpu --model " + folder_.file("model"));
        EXPECT_EQ(all.code, 3) << of;
        EXPECT_EQ(std::count(all.err.begin(), all.err.end(), '\n'), 3) << of << all.err;
        for (const char* line : {":1:", ":2:", ":3:"})
            EXPECT_NE(all.err.find(file + line), std::string::npos) << all.err;
    }
    for (const char* of : {replay, sft_replay, sft}) {
        write_file_atomic(file, "");
        const Outcome o = run_command(program(of) + file + " --device cpu --model " + folder_.file("model"));
        EXPECT_EQ(o.code, 3) << of;
        EXPECT_NE(o.err.find(file), std::string::npos) << o.err;
        EXPECT_NE(o.err.find("empty"), std::string::npos) << o.err;
    }
}

// Of what is given: neither model nor data is asked for, nor looked at where they are named.
TEST_F(SftProgram, AConfigurationIsWrittenWithoutModelAndData) {
    const std::string path = folder_.file("sft.toml");
    const auto dump = [&](const std::string& arguments) {
        const Outcome o = run_command(program("train_sft") + " --dump-config " + path + " " + arguments);
        EXPECT_EQ(o.code, 0) << arguments << "\n" << o.err;
        EXPECT_EQ(o.err, "");
        return o.code == 0 ? read_text(path) : "";
    };
    EXPECT_NE(dump("--epochs 3").find("\nepochs = 3 "), std::string::npos);
    const std::string named = dump("--model no_model --data no_data --dtype bf16 --device cuda:7");
    EXPECT_NE(named.find("model = \"no_model\""), std::string::npos) << named;
    dump("--replay no_copies");
    const Outcome o = run_command(program("train_sft") + " --device cpu --lr 1e-2 --config " + path +
                                  " --model " + folder_.file("model") +
                                  " --dry-run --prompt-field question --response-field answer --data " +
                                  folder_.file("data.jsonl"));
    EXPECT_EQ(o.code, 0) << o.err;
    EXPECT_EQ(run_command(program("train_sft") + " --epochs 0 --dump-config -").code, 2);
}

TEST_F(SftProgram, FaultsAreListedTogether) {
    const auto fault = [&](const std::string& arguments, int code) {
        const Outcome o = run_command(program("train_sft") + " --device cpu " + arguments);
        EXPECT_EQ(o.code, code) << arguments << "\n" << o.err;
        return o.err;
    };
    const auto expect = [](const std::string& err, const std::vector<const char*>& parts) {
        EXPECT_EQ(std::count(err.begin(), err.end(), '\n'), std::ptrdiff_t(parts.size())) << err;
        for (const char* part : parts) EXPECT_NE(err.find(part), std::string::npos) << part << "\n" << err;
    };
    const std::string model = "--model " + folder_.file("model"), data = folder_.file("data.jsonl"),
                      fields = " --prompt-field question --response-field answer --data " + data;
    expect(fault("", 2), {"--model", "--data"});
    expect(
        fault(
            "--model no_model --data no_data --eval-data no_eval_data --method trace --complementary --lr x "
            "--dtype bf16 --out /proc/none/run",
            2),
        {"no_model", "no_data", "no_eval_data", "--complementary: ", "--lr", "--dtype bf16", "/proc/none"});
    expect(fault(model + fields +
                     " --canvas 8 --eval-split 0.001 --method random-mask --sft-block 8 --eval-every 2",
                 2),
           {"--canvas: is for full-attention models", "--sft-block: is for --method semi-ar",
            "--sft-block: is for full-attention", "--eval-split 0.001"});
    expect(fault(model + fields + " --token-budget 2 --eval-every 2 --shrink 2", 2),
           {"--token-budget 2", "--eval-every: nothing is held out", "--shrink: "});
    expect(fault(model + " --replay no_copies --dump-grads no_folder/grads --batch-size 3 --resume x", 2),
           {"no_copies", "no_folder/grads", "--batch-size: ", "--resume: "});
    expect(fault(model + fields + " --epochs 0 --name a/b", 2), {"--epochs 0", "--name 'a/b'"});
    // A folder that is no run hides nothing, and --model is not asked for.
    expect(fault("--resume no_run --lr x --name y", 2), {"no_run", "--lr", "--name: a resumed run stays"});
}
