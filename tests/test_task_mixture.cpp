// Mixtures of tasks: shares, reproducibility, whose reward counts, faults.
#include <gtest/gtest.h>

#include <map>
#include <set>

#include "tests/fault_of.h"
#include "tests/temporary_folder.h"
#include "train/tasks/task.h"
#include "utils/error.h"
#include "utils/files.h"

namespace {

Task mixture(const std::vector<std::string>& specs) { return make_tasks(specs, 5); }

std::string data_file(int n) {
    const std::string path = temporary("mixture.jsonl");
    std::string lines;
    for (int i = 0; i < n; i++)
        lines += "{\"question\": \"q" + std::to_string(i) + "\", \"ground_truth_answer\": \"1\"}\n";
    write_file_atomic(path, lines);
    return path;
}

}  // namespace

TEST(TaskMixture, SharesAreThoseOfTheWeightsInEveryRound) {
    const Task task = mixture({"arithmetic:digits=2@3", "countdown", "sudoku4@2"});
    EXPECT_EQ(task.parts, (std::vector<std::string>{"arithmetic", "countdown", "sudoku4"}));
    for (const Split split : {Split::Train, Split::HeldOut}) {
        for (int round = 0; round < 4; round++) {
            std::map<int, int> count;
            for (int i = 0; i < 6; i++) count[task.problem(split, round * 6 + i).part]++;
            EXPECT_EQ(count, (std::map<int, int>{{0, 3}, {1, 1}, {2, 2}})) << round;
        }
    }
    // spread, not in runs
    int largest_run = 0, run = 0, last = -1;
    for (int i = 0; i < 60; i++) {
        const int part = task.problem(Split::Train, i).part;
        run = part == last ? run + 1 : 1;
        last = part;
        largest_run = std::max(largest_run, run);
    }
    EXPECT_LE(largest_run, 2);
}

TEST(TaskMixture, ProblemsAreThoseOfTheTasksInTheirOrder) {
    const Task task = mixture({"arithmetic:digits=2@2", "sudoku4"}),
               sums = make_task("arithmetic:digits=2", 5);
    std::vector<std::string> seen;
    for (int i = 0; i < 30; i++) {
        const Problem p = task.problem(Split::Train, i);
        if (p.part == 0) seen.push_back(p.prompt);
    }
    ASSERT_EQ(seen.size(), 20u);
    for (int i = 0; i < 20; i++) EXPECT_EQ(seen[size_t(i)], sums.problem(Split::Train, i).prompt);
}

TEST(TaskMixture, ADataFileIsGoneThroughWholeAndInANewOrder) {
    const Task task = mixture({data_file(6) + ":held_out=0", "arithmetic"});
    std::vector<std::string> seen;
    for (int i = 0; i < 24; i++) {
        const Problem p = task.problem(Split::Train, i);
        if (p.part == 0) seen.push_back(p.prompt);
    }
    ASSERT_EQ(seen.size(), 12u);
    EXPECT_GE(task.pass, 12);
    EXPECT_EQ(std::set<std::string>(seen.begin(), seen.begin() + 6).size(), 6u);
    EXPECT_EQ(std::set<std::string>(seen.begin() + 6, seen.end()).size(), 6u);
    EXPECT_FALSE(std::equal(seen.begin(), seen.begin() + 6, seen.begin() + 6));
    // the file keeps nothing for evaluation: all of that is arithmetic
    for (int i = 0; i < 8; i++) EXPECT_EQ(task.problem(Split::HeldOut, i).part, 1);
}

TEST(TaskMixture, EachResponseIsJudgedByItsOwnTask) {
    const Task task = mixture({"arithmetic:working=off", "sudoku4"});
    std::vector<Problem> problems;
    for (int i = 0; i < 8; i++) problems.push_back(task.problem(Split::HeldOut, i));
    std::vector<Answer> right, wrong;
    for (int i = 0; i < 8; i++) {
        right.push_back({&problems[size_t(i)], problems[size_t(i)].solution, {}});
        wrong.push_back({&problems[size_t(i)], problems[size_t((i + 1) % 8)].solution, {}});
    }
    for (const Verdict& v : judge(task, right, {})) EXPECT_EQ(v.reward, 1);
    for (const Verdict& v : judge(task, wrong, {})) EXPECT_EQ(v.reward, 0);
}

TEST(TaskMixture, OneSpecIsThatTaskAndEqualNamesAreToldApart) {
    const Task one = mixture({"arithmetic@7"});
    EXPECT_EQ(one.name, "arithmetic");
    EXPECT_TRUE(one.parts.empty());
    EXPECT_EQ(mixture({"arithmetic:digits=2", "arithmetic:digits=3"}).parts,
              (std::vector<std::string>{"arithmetic#1", "arithmetic#2"}));
}

TEST(TaskMixture, AnAtSignInAPathOrACommandIsNoWeight) {
    const TemporaryFolder folder;
    make_folders(folder.file("me@3"));
    const std::string path = folder.file("me@3/q.jsonl");
    write_file_atomic(path, R"({"question": "1+1=", "ground_truth_answer": "2"})");
    EXPECT_EQ(mixture({path + ":held_out=1"}).held_out_size, 1);
    const Task external = mixture({"external:problems=" + path + ",held_out=1,command=ssh me@host judge"});
    EXPECT_EQ(external.held_out_size, 1);
    const Task two = mixture({"sudoku4", path + ":held_out=0.5@3"});
    EXPECT_EQ(two.parts.size(), 2u);
}

TEST(TaskMixture, AllFaultsAreListed) {
    const std::string all = fault_of(Exit::Usage, [] {
        mixture({"chess", "arithmetic@0", "sudoku4:holes=99", "countdown@1.5", "sudoku4@x"});
    });
    for (const char* part : {"'chess'", "from 1 to 1000", "holes", "'1.5'", "'sudoku4@x'"})
        EXPECT_NE(all.find(part), std::string::npos) << all;
}
