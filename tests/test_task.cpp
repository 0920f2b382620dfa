// Tasks: problems are reproducible, splits disjoint, the reference solution is rewarded and little else is.
#include <gtest/gtest.h>

#include <set>

#include "tests/fault_of.h"
#include "train/tasks/task.h"
#include "utils/error.h"

namespace {

std::string error_of(const std::string& spec) {
    return fault_of(Exit::Usage, [&] { make_task(spec, 0); });
}

class GeneratedTask : public testing::TestWithParam<const char*> {};

TEST_P(GeneratedTask, IsAPureFunctionOfSeedAndIndex) {
    const Task a = make_task(GetParam(), 7), b = make_task(GetParam(), 7), other = make_task(GetParam(), 8);
    int differ = 0;
    for (int i = 0; i < 50; i++) {
        EXPECT_EQ(a.problem(Split::Train, 50 - i).prompt, b.problem(Split::Train, 50 - i).prompt);
        differ += a.problem(Split::Train, i).prompt != other.problem(Split::Train, i).prompt;
    }
    EXPECT_GT(differ, 10);
}

TEST_P(GeneratedTask, SplitsShareNoProblem) {
    const Task task = make_task(GetParam(), 1);
    std::set<std::string> train;
    for (int i = 0; i < 3000; i++) train.insert(task.problem(Split::Train, i).prompt);
    for (int i = 0; i < 3000; i++) EXPECT_EQ(train.count(task.problem(Split::HeldOut, i).prompt), 0u);
}

TEST_P(GeneratedTask, RewardsItsOwnSolutionAndNotThatOfAnother) {
    const Task task = make_task(GetParam(), 2);
    for (int i = 0; i < 200; i++) {
        const Problem p = task.problem(Split::HeldOut, i), q = task.problem(Split::HeldOut, i + 1);
        EXPECT_EQ(task.reward(p, p.solution), 1.0) << p.prompt << p.solution;
        EXPECT_LE(int(p.solution.size()), task.longest_solution) << p.prompt << p.solution;
        if (p.answer != q.answer) {
            EXPECT_LT(task.reward(p, q.solution), 1.0) << p.prompt << q.solution;
        }
        EXPECT_LT(task.reward(p, ""), 1.0);
        EXPECT_LT(task.reward(p, p.solution + "0"), 1.0);
    }
}

INSTANTIATE_TEST_SUITE_P(All, GeneratedTask,
                         testing::Values("arithmetic", "arithmetic:digits=2,operations=+-*",
                                         "arithmetic:digits=9,working=off", "countdown",
                                         "countdown:numbers=5,largest=30,operations=+-*/,largest_target=999",
                                         "sudoku4", "sudoku4:holes=11,partial=on"));

TEST(Arithmetic, ShowsTheWorkingColumnByColumn) {
    const Task task = make_task("arithmetic:operations=+-*", 3);
    bool seen[3] = {};
    for (int i = 0; i < 200; i++) {
        const Problem p = task.problem(Split::Train, i);
        long long a, b;
        char operation;
        ASSERT_EQ(sscanf(p.prompt.c_str(), "%lld%c%lld=", &a, &operation, &b), 3);
        const long long result = operation == '+' ? a + b : operation == '-' ? a - b : a * b;
        seen[std::string("+-*").find(operation)] = true;
        EXPECT_EQ(p.answer, std::to_string(result));
        EXPECT_EQ(p.solution.size(), 27 + p.answer.size()) << p.solution;
        // the out-going digits of the columns are the answer, from the right; the last carry is its first
        // digit
        const std::string digits = format("%03lld", result % 1000);
        for (size_t column = 0; column < 3; column++)
            EXPECT_EQ(p.solution[9 * column + 7], digits[2 - column]) << p.solution;
        EXPECT_EQ(p.solution[9 * 2 + 6] - '0', result / 1000) << p.solution;
    }
    EXPECT_TRUE(seen[0] && seen[1] && seen[2]);
}

TEST(Arithmetic, AnswerIsWhatFollowsTheLastSemicolon) {
    const Task task = make_task("arithmetic", 3);
    const Problem p{"347+586=", "7+6+0=13;4+8+1=13;3+5+1=09;933", "933"};
    EXPECT_EQ(task.reward(p, "933"), 1);
    EXPECT_EQ(task.reward(p, "nonsense; 933\n"), 1);
    EXPECT_EQ(task.reward(p, "933;"), 0);
    EXPECT_EQ(task.reward(p, "0933"), 0);
    EXPECT_EQ(task.reward(p, "7+6+0=13;932"), 0);
}

TEST(Countdown, TheExpressionAloneCounts) {
    const Task task = make_task("countdown", 3);
    const Problem p{"24 from 3,7,6:", "7-3=4;4*6=24;(7-3)*6", "24"};
    for (const char* right :
         {"(7-3)*6", "x;6*(7-3)", "7-3=4;4*6=24;(7-3)*6\n", " ( 7 - 3 ) * 6 ", "((6))*((7)-3)"}) {
        EXPECT_EQ(task.reward(p, right), 1) << right;
    }
    for (const char* wrong :
         {"24", "7*3+6-3", "(7-3)*6;", "7-3*6", "(7-3)*6*1", "(7-3)6", "((7-3)*6", "(7-3)*6)", "-3+7*6",
          "3*6+7", "(7-3)*06 0", "6*7/0", "", "(", "99999999999999999999", "6*(7-3)+0*6"}) {
        EXPECT_EQ(task.reward(p, wrong), 0) << wrong;
    }
    EXPECT_EQ(task.reward(p, std::string(100000, '(')), 0);
    const Problem fraction{"10 from 3,5,6:", "", "10"};  // through a fraction
    EXPECT_EQ(task.reward(fraction, "5/3*6"), 1);
}

// Saved responses that are graded again bring their problems along.
TEST(Task, ProblemsOfAnotherTaskAreRefused) {
    for (const char* name : {"countdown", "sudoku4", "sudoku4:partial=on"}) {
        const Task task = make_task(name, 3);
        for (const char* prompt : {"414+384=", "", "24 from 3,7,6", "x", "9999999999999 from 1,2:"}) {
            const std::string fault = fault_of(Exit::BadFile, [&] {
                task.reward({prompt, "", "08;09;07;798"}, "798");
            });
            EXPECT_NE(fault.find(std::string("'") + prompt + "' is no problem of it"), std::string::npos)
                << name << ": " << fault;
        }
    }
}

TEST(Countdown, NumbersInAnotherOrderAreTheSameProblem) {
    const Task task = make_task("countdown:numbers=2,largest=6,held_out=0.4", 3);
    const auto key = [](const Problem& p) {
        int target, a, b;
        EXPECT_EQ(sscanf(p.prompt.c_str(), "%d from %d,%d:", &target, &a, &b), 3);
        return std::vector<int>{target, std::min(a, b), std::max(a, b)};
    };
    std::set<std::vector<int>> train;
    for (int i = 0; i < 500; i++) train.insert(key(task.problem(Split::Train, i)));
    for (int i = 0; i < 500; i++) EXPECT_EQ(train.count(key(task.problem(Split::HeldOut, i))), 0u);
}

TEST(Sudoku4, GridsAreSolvedAndHeldOutWhole) {
    const Task task = make_task("sudoku4", 3);
    std::set<std::string> train, seen;
    for (int i = 0; i < 3000; i++) train.insert(task.problem(Split::Train, i).answer);
    for (int i = 0; i < 300; i++) {
        const Problem p = task.problem(Split::HeldOut, i);
        EXPECT_EQ(train.count(p.answer), 0u);
        EXPECT_EQ(std::count(p.prompt.begin(), p.prompt.end(), '.'), 8);
        int rows[4] = {}, columns[4] = {}, quarters[4] = {};
        for (size_t i = 0; i < 16; i++) {
            const size_t at = i / 4 * 5 + i % 4;
            EXPECT_TRUE(p.prompt[at] == '.' || p.prompt[at] == p.answer[at]);
            const int bit = 1 << (p.answer[at] - '0');
            rows[i / 4] |= bit;
            columns[i % 4] |= bit;
            quarters[i / 8 * 2 + i % 4 / 2] |= bit;
        }
        for (size_t k = 0; k < 4; k++)
            EXPECT_TRUE(rows[k] == 30 && columns[k] == 30 && quarters[k] == 30) << p.answer;
    }
    EXPECT_GT(train.size(), 240u);  // nearly all of the nine tenths of 288 grids
}

TEST(Sudoku4, PartialCreditStaysBelowOne) {
    const Task task = make_task("sudoku4:holes=4,partial=on", 3);
    const Problem p = task.problem(Split::Train, 0);
    std::string answer = p.solution;
    EXPECT_EQ(task.reward(p, answer), 1);
    answer[p.prompt.find('.')] = '0';
    EXPECT_DOUBLE_EQ(task.reward(p, answer), 3.0 / 5);
    EXPECT_DOUBLE_EQ(task.reward(p, p.solution + "1"), 4.0 / 5);
    EXPECT_EQ(task.reward(p, p.prompt), 0);
}

TEST(TaskSpec, FaultsAreNamed) {
    EXPECT_NE(error_of("chess").find("'chess'"), std::string::npos);
    EXPECT_NE(error_of("arithmetic:digit=3").find("no option 'digit' (it has digits"), std::string::npos);
    EXPECT_NE(error_of("arithmetic:digits=12").find("from 1 to 9"), std::string::npos);
    EXPECT_NE(error_of("arithmetic:digits=3x").find("'3x'"), std::string::npos);
    EXPECT_NE(error_of("arithmetic:digits=3,digits=4").find("twice"), std::string::npos);
    EXPECT_NE(error_of("arithmetic:digits").find("key=value"), std::string::npos);
    EXPECT_NE(error_of("arithmetic:operations=/").find("some of"), std::string::npos);
    EXPECT_NE(error_of("countdown:operations=^").find("some of"), std::string::npos);
    EXPECT_NE(error_of("countdown:numbers=2,largest=2,operations=-,largest_target=2,held_out=0.01")
                  .find("no problem"),
              std::string::npos);
    EXPECT_NE(error_of("sudoku4:holes=12").find("from 1 to 11"), std::string::npos);
    EXPECT_NE(error_of("arithmetic:working=yes").find("one of full, totals, off"), std::string::npos);
}

TEST(TaskSplit, HoldsOutTheShareAskedFor) {
    int held_out = 0;
    for (int i = 0; i < 10000; i++) held_out += split_of(std::to_string(i), 0.2) == Split::HeldOut;
    EXPECT_NEAR(held_out, 2000, 160);  // four standard deviations
}

}  // namespace
