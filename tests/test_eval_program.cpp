// The `eval` program as it is typed: tables of a model that can do sums, its responses graded again, likelihoods, multiple choice.
// Skipped where it is not built.
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <set>
#include <sstream>

#include "tests/programs.h"
#include "tests/temporary_folder.h"
#include "utils/files.h"
#include "utils/json.h"

namespace {

class EvalProgram : public testing::Test {
  protected:
    void SetUp() override {
        if (!file_exists(program("eval"))) GTEST_SKIP() << program("eval") + " is not built";
    }
    Outcome run(const std::string& arguments) {
        return run_command(program("eval") + " --threads 1 --device cpu --progress none " + arguments);
    }
    // The lines of --json, or of a file.
    std::vector<Json> json(const std::string& arguments) {
        const Outcome r = run("--json " + arguments);
        EXPECT_EQ(r.code, 0) << r.err;
        return json_lines(r.out);
    }
    TemporaryFolder folder_;
};

// A judge that runs `cases`, the cases of a shell's `case`, on every line it is given; `answer` prints its answer.
std::string judging_by(const std::string& cases) {
    return R"(answer() { printf '{"id": %d, %s}\n' "$id" "$1"; }
while read -r line; do id=${line#*\"id\":}; id=${id%%,*}; case $line in
)" + cases +
           "\nesac; done\n";
}

}  // namespace

TEST_F(EvalProgram, StaticAndDynamicOfTheModelThatComesAlong) {
    const std::vector<Json> rows = json("--problems 24 --block 8 --gen-length 24");
    ASSERT_EQ(rows.size(), 2u);
    EXPECT_EQ(rows[0]["decoding"], "static");
    EXPECT_EQ(rows[1]["decoding"], "dynamic");
    for (const Json& row : rows) {
        EXPECT_EQ(row["problems"], 24);
        EXPECT_EQ(row["samples"], 1);
        EXPECT_GT(row["accuracy"], 0.6);
        EXPECT_LT(row["accuracy_low"], row["accuracy"]);
        EXPECT_GT(row["accuracy_high"], row["accuracy"]);
        EXPECT_FALSE(row["interrupted"]);
    }
    EXPECT_LE(rows[0]["tokens_per_forward"], 1);
    EXPECT_GT(rows[1]["tokens_per_forward"], 2);
    // One rule that was asked for is the only one; and it is a table for people.
    const Outcome table = run("--problems 4 --block 8 --remasking sequential");
    EXPECT_NE(table.out.find("sequential"), std::string::npos) << table.out;
    EXPECT_EQ(table.out.find("dynamic"), std::string::npos) << table.out;
    // A preset's rule that another replaced is named as well.
    const Outcome both = run("--problems 4 --block 8 --preset lmdeploy --remasking sequential");
    EXPECT_NE(both.out.find("lmdeploy sequential"), std::string::npos) << both.out;
}

// A score is another with an approximate cache, or guided.
TEST_F(EvalProgram, CacheAndGuidanceAreNamed) {
    const std::string model = folder_.file("llada");
    const Outcome made =
        run_command(program("convert") +
                    " init --preset llada-8b --tokenizer bytes --set d_model=16 --set mlp_hidden_size=32 "
                    "--set n_layers=1 "
                    "--set n_heads=2 --set n_kv_heads=2 --set max_sequence_length=64 --progress none --out " +
                    model);
    ASSERT_EQ(made.code, 0) << made.err;
    const std::string few = "--model " + model + " --task arithmetic --problems 1 --gen-length 4 ";
    EXPECT_EQ(json(few + "--preset fast-dllm")[0]["decoding"], "fast-dllm dual cache");
    EXPECT_EQ(json(few + "--preset llada --cfg-scale 1.5")[0]["decoding"], "llada cfg 1.5");
}

// It holds every option, those that are empty too: no task beside --choices.
TEST_F(EvalProgram, AWrittenConfigurationCanBeRun) {
    const std::string path = folder_.file("eval.toml");
    ASSERT_EQ(run("--block 8 --dump-config " + path).code, 0);
    const Outcome written = run("--dry-run --config " + path);
    EXPECT_EQ(written.code, 0) << written.err;
    EXPECT_NE(run("--choices c --task arithmetic").err.find("exclude each other"), std::string::npos);
    // Of what is given: nothing that it names is looked at.
    const Outcome named = run("--model no_model --task no_task.jsonl --device cuda:7 --dump-config -");
    EXPECT_EQ(named.code, 0) << named.err;
    EXPECT_NE(named.out.find("no_task.jsonl"), std::string::npos);
}

// An accuracy of answers that nobody judged is none.
TEST_F(EvalProgram, ACommandThatJudgesNothingIsAnError) {
    std::ofstream(folder_.file("q.jsonl")) << R"({"question": "347+586="})"
                                           << "\n"
                                           << R"({"question": "414+384="})"
                                           << "\n";
    const Outcome none =
        run("--block 8 --gen-length 24 --task 'external:problems=" + folder_.file("q.jsonl") +
            ",held_out=1,command=false'");
    EXPECT_EQ(none.code, 1) << none.out;
    EXPECT_NE(none.err.find("judged none of 2 responses"), std::string::npos) << none.err;
}

TEST_F(EvalProgram, SamplesAreSavedAndGradedAgain) {
    const std::string items = folder_.file("items.jsonl");
    const std::string options = " --problems 6 --pass-at 1,2,3";
    const std::vector<Json> rows =
        json("--block 8 --gen-length 24 --num-samples 3 --temperature 1 --items " + items + options);
    ASSERT_EQ(rows.size(), 2u);
    EXPECT_EQ(rows[0]["samples"], 3);
    EXPECT_DOUBLE_EQ(rows[0]["pass_at"]["1"], rows[0]["accuracy"]);
    EXPECT_GE(rows[0]["pass_at"]["3"], rows[0]["pass_at"]["2"]);
    const std::vector<Json> saved = json_lines(read_text(items));
    ASSERT_EQ(saved.size(), 2u * 6 * 3);
    std::set<std::string> distinct;
    for (size_t i = 0; i < 18; i++) {
        EXPECT_EQ(saved[i]["sample"], i % 3);
        EXPECT_EQ(saved[i]["prompt"], saved[i / 3 * 3]["prompt"]);
        distinct.insert(saved[i]["prompt"].dump() + saved[i]["step_map"].dump());
    }
    EXPECT_GT(distinct.size(), 6u) << "samples are no copies of each other";
    // The same figures come out of the file alone.
    const std::vector<Json> again = json("--grade-only " + items + options);
    ASSERT_EQ(again.size(), 2u);
    for (size_t i = 0; i < 2; i++) {
        for (const char* key :
             {"accuracy", "accuracy_low", "pass_at", "length", "tokens_per_forward", "entropy"})
            EXPECT_EQ(again[i][key], rows[i][key]) << key;
        EXPECT_EQ(again[i]["changed_rewards"], 0);
    }
    // A text that was changed is judged by what it says now.
    Json wrong = saved[0];
    wrong["text"] = "1;2;3;0";
    wrong["reward"] = 1;
    write_file_atomic(items, wrong.dump() + "\n");
    EXPECT_EQ(json("--grade-only " + items)[0]["accuracy"], 0);
    EXPECT_EQ(json("--grade-only " + items)[0]["changed_rewards"], 1);
}

TEST_F(EvalProgram, GradesLinesOfInfer) {
    const std::string data = folder_.file("questions.jsonl"), answers = folder_.file("answers.jsonl");
    write_file_atomic(data, R"({"question": "2 and 2?", "ground_truth_answer": "4"})"
                            "\n"
                            R"({"question": "3 and 3?", "ground_truth_answer": "6"})"
                            "\n");
    write_file_atomic(answers, R"({"id": 0, "sample": 0, "text": "\\boxed{4}", "finish_reason": "stop"})"
                               "\n"
                               R"({"id": 1, "sample": 0, "text": "\\boxed{5}", "finish_reason": "stop"})"
                               "\n"
                               R"({"id": 1, "sample": 1, "text": "\\boxed{6}", "finish_reason": "length"})"
                               "\n");
    const std::string command = "--grade-only " + answers + " --task " + data + ":held_out=1";
    const std::vector<Json> rows = json(command);
    ASSERT_EQ(rows.size(), 1u);
    EXPECT_EQ(rows[0]["problems"], 2);
    EXPECT_NEAR(rows[0]["accuracy"].get<double>(), 1.0 / 3, 1e-12);
    EXPECT_NEAR(rows[0]["truncated"].get<double>(), 1.0 / 3, 1e-12);
    for (const char* bad : {R"({"text": "4"})", R"({"id": 2, "text": "4"})", R"({"id": 0})", R"([1])", "{",
                            R"({"prompt": "unknown", "text": "4"})"}) {
        write_file_atomic(answers, std::string(bad) + "\n");
        const Outcome r = run(command);
        EXPECT_EQ(r.code, 3) << bad;
        EXPECT_NE(r.err.find("answers.jsonl"), std::string::npos) << r.err;
    }
}

// The command rewards both tokens of the right answer and its end with 1 each, those of any other with 0.
TEST_F(EvalProgram, SavedResponsesToACommandThatRewardsTokens) {
    const std::string judge = folder_.file("judge.sh"), items = folder_.file("items.jsonl");
    write_file_atomic(folder_.file("q.jsonl"), R"({"question": "40+2="})");
    write_file_atomic(judge, judging_by(R"(*'"tokens":["4","2",'*) answer '"token_rewards": [1, 1, 1]';;
*'"tokens":[]'*) answer '"token_rewards": []';;
*) answer '"chunks": [{"end": 2, "reward": 0}]';;)"));
    write_file_atomic(items,
                      R"({"id": 0, "text": "42", "output_ids": [52, 50, 258], "finish_reason": "stop"})"
                      "\n"
                      R"({"id": 0, "text": "4", "output_ids": [52, 258], "finish_reason": "stop"})");
    const std::string command = "--grade-only " + items +
                                " --task 'external:problems=" + folder_.file("q.jsonl") +
                                ",held_out=1,command=sh " + judge + "'";
    const std::vector<Json> rows = json(command + " --tokenizer bytes");
    ASSERT_EQ(rows.size(), 1u);
    EXPECT_EQ(rows[0]["accuracy"], 0.5);
    EXPECT_EQ(rows[0]["ungraded"], 0);
    // Without the tokens there is nothing to reward, and the user hears what to do.
    const Outcome blind = run(command);
    EXPECT_EQ(blind.code, 2) << blind.out;
    EXPECT_NE(blind.err.find("name the model's tokenizer with --tokenizer DIR"), std::string::npos)
        << blind.err;
    EXPECT_EQ(std::count(blind.err.begin(), blind.err.end(), '\n'), 1) << blind.err;
    // Lines that have none, or ids that are none of the tokenizer's.
    for (const char* bad :
         {R"({"id": 0, "text": "42"})", R"({"id": 0, "text": "42", "output_ids": [99999]})"}) {
        write_file_atomic(items, bad);
        const Outcome r = run(command + " --tokenizer bytes");
        EXPECT_EQ(r.code, 3) << bad;
        EXPECT_NE(r.err.find("items.jsonl:1: field 'output_ids'"), std::string::npos) << r.err;
    }
}

// An accuracy of saved responses that nobody judged is none either, and single ones are told.
TEST_F(EvalProgram, SavedResponsesThatTheCommandDoesNotJudge) {
    const std::string judge = folder_.file("judge.sh"), items = folder_.file("items.jsonl");
    write_file_atomic(folder_.file("q.jsonl"), R"({"question": "40+2="})");
    write_file_atomic(items, R"({"id": 0, "text": "a"})"
                             "\n"
                             R"({"id": 0, "text": "b"})");
    const std::string command = "--grade-only " + items +
                                " --task 'external:problems=" + folder_.file("q.jsonl") +
                                ",held_out=1,command=sh " + judge + "'";
    write_file_atomic(judge, "exit 1\n");
    const Outcome none = run(command);
    EXPECT_EQ(none.code, 1) << none.out;
    EXPECT_NE(none.err.find("judged none of 2 responses"), std::string::npos) << none.err;
    write_file_atomic(judge, judging_by(R"(*'"a"'*) exit 1;; *) answer '"reward": 1';;)"));
    const Outcome one = run("--json " + command);
    EXPECT_EQ(one.code, 0) << one.err;
    EXPECT_NE(one.err.find("1 of 2 responses could not be judged"), std::string::npos) << one.err;
    EXPECT_EQ(json_lines(one.out)[0]["ungraded"], 1);
}

TEST_F(EvalProgram, ProblemsOfAnotherTaskAreNamedWithTheirFile) {
    const std::string items = folder_.file("items.jsonl");
    write_file_atomic(items, R"({"prompt": "1+1=", "answer": "2", "text": "2"})");
    const Outcome r = run("--grade-only " + items + " --task countdown");
    EXPECT_EQ(r.code, 3);
    EXPECT_TRUE(r.err.starts_with("error: " + items + ": task 'countdown': '1+1=' is no problem of it"))
        << r.err;
}

TEST_F(EvalProgram, AMixtureKnowsItsOwnProblemsOnly) {
    const std::string items = folder_.file("items.jsonl");
    write_file_atomic(items, R"({"prompt": "1+1=", "answer": "2", "text": "2"})");
    const Outcome r = run("--grade-only " + items + " --task countdown --task sudoku4");
    EXPECT_EQ(r.code, 3);
    EXPECT_NE(r.err.find(":1: field 'prompt' is no question of task countdown + sudoku4\n"),
              std::string::npos)
        << r.err;
}

TEST_F(EvalProgram, Likelihoods) {
    const std::vector<Json> rows = json("--likelihood --problems 8 --block 8 --mask-sets 256");
    ASSERT_EQ(rows.size(), 1u);
    EXPECT_EQ(rows[0]["kind"], "bound");
    EXPECT_EQ(rows[0]["answers"], 8);
    const double per_token = rows[0]["log_likelihood_per_token"];
    EXPECT_LT(per_token, 0);
    EXPECT_GT(per_token, -0.5) << "it was trained on such answers";
    EXPECT_NEAR(rows[0]["perplexity"].get<double>(), std::exp(-per_token), 1e-12);
    EXPECT_EQ(json("--likelihood --problems 2 --block 8 --mask-sets 8")[0]["kind"], "bound, estimated");
}

TEST_F(EvalProgram, MultipleChoiceByLikelihood) {
    const std::string data = folder_.file("choices.jsonl");
    write_file_atomic(
        data,
        R"({"question": "414+384=", "choices": ["08;09;07;799", "08;09;07;798", "18;00;05;055"], "answer": 1})"
        "\n"
        R"({"question": "111+222=", "choices": ["03;03;03;333", "03;03;03;433"], "answer": "A"})"
        "\n");
    const std::string items = folder_.file("items.jsonl");
    const std::vector<Json> rows = json("--choices " + data + " --block 8 --mask-sets 256 --items " + items);
    ASSERT_EQ(rows.size(), 1u);
    EXPECT_EQ(rows[0]["questions"], 2);
    EXPECT_EQ(rows[0]["accuracy"], 1);
    const std::vector<Json> saved = json_lines(read_text(items));
    ASSERT_EQ(saved.size(), 2u);
    EXPECT_EQ(saved[0]["chosen"], 1);
    EXPECT_GT(saved[0]["log_likelihoods"][1], saved[0]["log_likelihoods"][0]);
    const Outcome piped =
        run_command("cat " + data + " | " + program("eval") + " --device cpu --dry-run --choices /dev/stdin");
    EXPECT_EQ(piped.code, 0) << piped.err;
    for (const char* bad :
         {R"({"question": "q", "choices": ["a"], "answer": 0})",
          R"({"question": "q", "choices": ["a", "b"], "answer": 2})",
          R"({"question": "q", "choices": ["a", "b"], "answer": "C"})",
          R"({"question": "q", "choices": ["a", 1], "answer": 0})",
          R"({"question": "q", "choices": ["a", "b"]})", R"({"choices": ["a", "b"], "answer": 0})"}) {
        write_file_atomic(data, std::string(bad) + "\n");
        const Outcome r = run("--choices " + data);
        EXPECT_EQ(r.code, 3) << bad;
        EXPECT_NE(r.err.find("choices.jsonl:1"), std::string::npos) << r.err;
    }
}

TEST_F(EvalProgram, ARunsFolderIsItsNewestCheckpointOnItsTask) {
    const std::string run_folder = folder_.file("run");
    make_folders(run_folder + "/ckpt");
    ASSERT_EQ(system(("cp -r inference/default_model " + run_folder + "/ckpt/step-000001").c_str()), 0);
    write_file_atomic(run_folder + "/latest", "ckpt/step-000001\n");
    write_file_atomic(run_folder + "/config.toml",
                      "[task]\ntask = \"arithmetic:digits=2,working=totals\"\n"
                      "tokenizer = \"\"\ngen_length = 20\nblock = 8\n");
    const std::string items = folder_.file("items.jsonl");
    EXPECT_EQ(json("--problems 2 --model " + run_folder + " --items " + items).size(), 2u);
    EXPECT_EQ(json_lines(read_text(items))[0]["prompt"].get<std::string>().size(), 6u);  // 12+34=
    const std::string said = run("--problems 2 --dry-run --model " + run_folder).err;
    EXPECT_NE(said.find("as the run: --task arithmetic:digits=2,working=totals --gen-length 20 --block 8\n"),
              std::string::npos)
        << said;
    const std::string preset = run("--problems 2 --dry-run --preset dream --model " + run_folder).err;
    EXPECT_NE(preset.find("--gen-length 20\n"), std::string::npos) << "its block is the preset's: " << preset;
    EXPECT_NE(preset.find("--block 65536: the whole canvas"), std::string::npos) << preset;
    // What is typed beats the run's, and two models are a table of two.
    const Outcome two = run("--problems 2 --task arithmetic:working=totals --model " + run_folder +
                            " --model inference/default_model");
    EXPECT_EQ(two.code, 0) << two.err;
    EXPECT_NE(two.out.find(run_folder), std::string::npos) << two.out;
    EXPECT_NE(two.out.find("inference/default_model"), std::string::npos) << two.out;
}

// What was done by then is reported, and half a file of items is a whole file of half of them.
TEST_F(EvalProgram, ASignalEndsItWithWhatIsThere) {
    const std::string out = folder_.file("out"), err = folder_.file("err"),
                      items = folder_.file("items.jsonl");
    const int status = system(
        (program("eval") + " --threads 1 --device cpu --progress none --json --problems 20000 --items " +
         items + " >" + out + " 2>" + err + " & p=$!; for i in $(seq 600); do grep -q 'problems of' " + err +
         " && break; sleep 0.05; done; sleep 0.2; kill -TERM $p; wait $p")
            .c_str());
    EXPECT_EQ(WEXITSTATUS(status), 143) << read_text(err);
    const std::vector<Json> rows = json_lines(read_text(out));
    ASSERT_EQ(rows.size(), 1u);
    EXPECT_TRUE(rows[0]["interrupted"]);
    EXPECT_LT(rows[0]["problems"], 20000);
    EXPECT_EQ(json_lines(read_text(items)).size(), rows[0]["problems"].get<size_t>());
}

TEST_F(EvalProgram, FaultsAndPlans) {
    const Outcome r = run("--num-samples 4 --pass-at 8 --likelihood --choices x --split nowhere");
    EXPECT_EQ(r.code, 2);
    for (const char* word : {"--num-samples 4", "--pass-at 8", "exclude each other", "nowhere"})
        EXPECT_NE(r.err.find(word), std::string::npos) << r.err;
    EXPECT_EQ(run("--model no_such_folder").code, 3);
    EXPECT_EQ(run("--choices no_such_file.jsonl").code, 3);
    EXPECT_EQ(run("--task nonsense").code, 2);
    EXPECT_EQ(run("--gen-length 0").code, 2);
    const Outcome plan = run("--dry-run --items " + folder_.file("none"));
    EXPECT_EQ(plan.code, 0) << plan.err;
    EXPECT_NE(plan.out.find("MiB"), std::string::npos) << plan.out;
    EXPECT_FALSE(file_exists(folder_.file("none")));
    const std::string help = run("--help").out;
    for (const char* word : {"What is measured:", "Decoding:", "Examples:", "--grade-only"})
        EXPECT_NE(help.find(word), std::string::npos) << word;
}

TEST_F(EvalProgram, FaultsOfEveryKindAreListedTogether) {
    const Outcome r =
        run("--model no_model --model inference/default_model --model inference/../inference/default_model/ "
            "--task chess "
            "--items no_folder/items --top-p 0 --steps 99 --mask-sets 4 --device gpu");
    EXPECT_EQ(r.code, 2);
    for (const char* part :
         {"no_model", "default_model/: is given twice", "'chess'", "no_folder/items: cannot write",
          "--top-p 0", "--steps 99", "--mask-sets: is for --likelihood", "--device gpu"})
        EXPECT_NE(r.err.find(part), std::string::npos) << part << "\n" << r.err;
    // One fault makes no others.
    const Outcome one = run("--temperature inf --top-k 4 --num-samples 2 --problems 1");
    EXPECT_EQ(std::count(one.err.begin(), one.err.end(), '\n'), 1) << one.err;
    // What does not fit the model, before anything is generated.
    const Outcome longer = run("--gen-length 100000 --problems 1 --block 0 --stop-ids 999");
    EXPECT_EQ(longer.code, 2);
    EXPECT_NE(longer.err.find("--stop-ids 999"), std::string::npos) << longer.err;
    EXPECT_NE(run("--gen-length 100000 --problems 1").err.find("positions"), std::string::npos);
}

TEST_F(EvalProgram, FlagsWithoutEffectAreRefused) {
    const struct {
        const char *arguments, *fault;
    } cases[] = {
        {"--likelihood --gen-length 9", "--gen-length: --likelihood generates nothing"},
        {"--likelihood --pass-at 1", "--pass-at: counts generated responses"},
        {"--choices c --split train", "--split: --choices takes every question"},
        {"--grade-only g --block 8", "--block: --grade-only takes no model"},
        {"--grade-only g --dry-run", "--dry-run: --grade-only takes no model"},
        {"--grade-only /dev/null --tokenizer bytes", "--tokenizer: shows the tokens to a task"},
        {"--score-end", "--score-end: is for --likelihood and --choices"},
        {"--top-k 4", "--top-k: has no effect at --temperature 0"},
        {"--remasking sequential --threshold 0.5", "--threshold: is for"},
        {"--eb-threshold 0.5", "--eb-threshold: is for"},
        {"--factor 2", "--factor: is for --remasking factor"},
        {"--further-horizon 8", "--further-horizon: is for --cache prefix"},
        {"--likelihood --cache exact", "--cache: --likelihood generates nothing"},
        {"--preset sdar-eval --num-samples 2", "--num-samples 2: at --temperature 0 or --top-k 1"},
    };
    for (const auto& c : cases) {
        const Outcome r = run(c.arguments);
        EXPECT_EQ(r.code, 2) << c.arguments << r.err;
        EXPECT_NE(r.err.find(c.fault), std::string::npos) << c.arguments << "\n" << r.err;
    }
    // Decoded statically and dynamically, a threshold has its effect.
    EXPECT_EQ(run("--threshold 0.5 --dry-run").code, 0);
}

// What is there in place of a model.
TEST_F(EvalProgram, FoldersThatAreNoModel) {
    const std::string run_folder = folder_.file("run"), file = folder_.file("file");
    make_folders(run_folder);
    write_file_atomic(run_folder + "/config.toml", "# train_sft\n");
    write_file_atomic(file, "x");
    const Outcome r = run("--model no_folder --model tests --model " + file + " --model " + run_folder);
    EXPECT_EQ(r.code, 3);
    for (const std::string& part :
         {std::string("no_folder: there is no such folder"), std::string("tests: holds no config.json"),
          file + ": is a file", run_folder + ": is a run's folder, and `latest` in it"})
        EXPECT_NE(r.err.find(part), std::string::npos) << part << "\n" << r.err;
}
