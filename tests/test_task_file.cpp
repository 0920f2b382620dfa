// Tasks from data files: both schemas, both layouts, faults, and the reward for an answer's form.
#include <gtest/gtest.h>

#include <set>

#include "tests/fault_of.h"
#include "tests/temporary_folder.h"
#include "train/tasks/task.h"
#include "utils/error.h"
#include "utils/files.h"
#include "utils/json.h"

namespace {

std::string file_with(const std::string& content, const std::string& name = "task.jsonl") {
    const std::string path = temporary(name);
    write_file_atomic(path, content);
    return path;
}

std::string error_of(const std::string& spec, Exit code = Exit::BadFile) {
    return fault_of(code, [&] { make_task(spec, 0); });
}

const char* GSM = R"({"question": "2+3?", "answer": "We add 2+3 = <<2+3=5>>5.\n#### 1,005"})";

TEST(TaskFile, Gsm8k) {
    const std::string path = file_with(GSM);
    const Task task = make_task(path + ":held_out=0", 0);
    EXPECT_EQ(task.train_size, 1);
    EXPECT_EQ(task.held_out_size, 0);
    const Problem p = task.problem(Split::Train, 0);
    EXPECT_EQ(p.prompt, "2+3?");
    EXPECT_EQ(p.answer, "1,005");
    EXPECT_EQ(p.solution, "We add 2+3 = 5.\n#### 1,005");
    EXPECT_EQ(task.longest_solution, int(p.solution.size()));
    EXPECT_EQ(task.reward(p, p.solution), 1);
    EXPECT_EQ(task.reward(p, "so \\boxed{1005}"), 1);
    EXPECT_EQ(task.reward(p, "#### 1006"), 0);
    EXPECT_EQ(task.reward(p, "1005"), 0);
    EXPECT_THROW(task.problem(Split::Train, 1), Error);
    EXPECT_EQ(make_task(path + ":held_out=1,calculator=on", 0).problem(Split::HeldOut, 0).solution,
              "We add 2+3 = <<2+3=5>>5.\n#### 1,005");
}

TEST(TaskFile, TheFormOfAnAnswerIsAskedForAndMayEarnAShare) {
    const std::string path = file_with(GSM);
    const Task task = make_task(path + ":held_out=0,answer=boxed,format=0.25", 0);
    const Problem p = task.problem(Split::Train, 0);
    EXPECT_EQ(p.solution, "We add 2+3 = 5.\n\\boxed{1,005}");
    EXPECT_EQ(task.reward(p, p.solution), 1);
    EXPECT_EQ(task.reward(p, "\\boxed{7}"), 0.25);
    EXPECT_EQ(task.reward(p, "#### 1005"), 0);
    EXPECT_EQ(make_task(path + ":held_out=0,answer=hash", 0).reward(p, "\\boxed{1005}"), 0);
}

TEST(TaskFile, DllmRlAsArrayOrLines) {
    const std::string a = R"({"question": "q1", "ground_truth_answer": "\\frac{1}{2}", "level": 3})";
    const std::string b = R"x({"question": "q2", "ground_truth_answer": "(1,2)"})x";
    for (const std::string& path :
         {file_with("\n [" + a + ",\n" + b + "]", "task.json"), file_with(a + "\n" + b + "\n"),
          file_with("\xEF\xBB\xBF[" + a + ",\r\n" + b + "]\r\n", "windows.json")}) {
        const Task task = make_task(path + ":held_out=0", 0);
        EXPECT_EQ(task.train_size, 2);
        EXPECT_EQ(task.longest_solution, 0);
        EXPECT_EQ(task.name, path);
        EXPECT_EQ(task.reward(task.problem(Split::Train, 0), "\\boxed{0.5}"), 1);
        EXPECT_EQ(task.reward(task.problem(Split::Train, 1), "\\boxed{(1, 2)}"), 1);
        EXPECT_EQ(task.problem(Split::Train, 1).solution, "");
    }
}

TEST(TaskFile, FaultsAreListedWithTheirPlace) {
    std::string lines = std::string(GSM) + "\n";
    for (int i = 0; i < 12; i++) lines += "{\"question\": \"q\"}\n";
    const std::string message = error_of(file_with(lines));
    EXPECT_NE(message.find("task.jsonl:2: field 'answer'"), std::string::npos) << message;
    EXPECT_TRUE(message.ends_with("task.jsonl: 2 more are at fault")) << message;
    EXPECT_EQ(std::count(message.begin(), message.end(), '\n'), 10) << message;
    EXPECT_NE(error_of(file_with("[{\"question\": 5}]")).find("record 0"), std::string::npos);
    EXPECT_NE(error_of(file_with(R"({"question": "q", "answer": "5"})")).find("'#### '"), std::string::npos);
    EXPECT_NE(error_of(file_with(R"({"question": "q", "ground_truth_answer": ""})")).find("empty"),
              std::string::npos);
    EXPECT_NE(error_of(file_with(R"({"question": "q", "test_method": "stdio"})")).find("test_method"),
              std::string::npos);
    EXPECT_NE(error_of(file_with("[7]")).find("not an object"), std::string::npos);
    EXPECT_NE(error_of(file_with("")).find("no record"), std::string::npos);
    EXPECT_NE(error_of("nowhere.jsonl").find("nowhere.jsonl"), std::string::npos);
    EXPECT_NE(error_of(file_with(GSM) + ":answer=xml", Exit::Usage).find("any, boxed, hash"),
              std::string::npos);
    EXPECT_NE(error_of(file_with(GSM) + ":hold_out=0.1", Exit::Usage).find("no option 'hold_out'"),
              std::string::npos);
    EXPECT_NE(error_of("x.jsonl.txt", Exit::Usage).find("no such task"), std::string::npos);
}

TEST(TaskFile, Gsm8kWhole) {
    const std::string path = "../shared/data/tasks/gsm8k_train.jsonl";
    if (!file_exists(path)) GTEST_SKIP() << path << " is not there";
    const Task task = make_task(path, 0);
    EXPECT_EQ(task.train_size + task.held_out_size, 7473);
    EXPECT_NEAR(double(task.held_out_size), 747, 105);  // four standard deviations
    std::set<std::string> train;
    for (int64_t i = 0; i < task.train_size; i++) {
        const Problem p = task.problem(Split::Train, i);
        train.insert(p.prompt);
        EXPECT_EQ(task.reward(p, p.solution), 1) << p.answer;
        EXPECT_EQ(p.solution.find("<<"), std::string::npos);
    }
    for (int64_t i = 0; i < task.held_out_size; i++)
        EXPECT_EQ(train.count(task.problem(Split::HeldOut, i).prompt), 0u);
}

TEST(TaskFile, MathIsRewardedForItsOwnAnswers) {
    const std::string path = "../shared/data/tasks/MATH500.json";
    if (!file_exists(path)) GTEST_SKIP() << path << " is not there";
    const Task task = make_task(path + ":held_out=1,answer=boxed", 0);
    ASSERT_EQ(task.held_out_size, 500);
    for (int64_t i = 0; i < 500; i++) {
        const Problem p = task.problem(Split::HeldOut, i);
        EXPECT_EQ(task.reward(p, "Thus \\boxed{" + p.answer + "}."), 1) << p.answer;
        EXPECT_EQ(task.reward(p, "Thus \\boxed{" + p.answer + "7}."), 0) << p.answer;
    }
}

}  // namespace
