// Which problems are trained on: never those of evaluations; all of a data file, in a new order every time.
#include <gtest/gtest.h>

#include <set>

#include "train/warm_start.h"

TEST(WarmStart, EvaluationProblemsAreNeverTrained) {
    for (const char* spec :
         {"arithmetic:working=totals", "arithmetic:digits=1,working=off", "countdown", "sudoku4"}) {
        const Task task = make_task(spec, 1);
        std::set<std::string> held_out;
        for (int i = 0; i < 300; i++) held_out.insert(task.problem(Split::HeldOut, i).prompt);
        for (const int64_t i : problem_indices(task, 1, 0, 3000))
            EXPECT_FALSE(held_out.contains(task.problem(Split::Train, i).prompt)) << spec;
    }
}

TEST(WarmStart, ADataFileIsGoneThroughInANewOrderEveryTime) {
    Task task;
    task.train_size = 10;
    const std::vector<int64_t> order = problem_indices(task, 1, 0, 30);
    for (int pass = 0; pass < 3; pass++) {
        const std::set<int64_t> seen(order.begin() + pass * 10, order.begin() + pass * 10 + 10);
        EXPECT_EQ(seen.size(), 10u);
    }
    EXPECT_FALSE(std::equal(order.begin(), order.begin() + 10, order.begin() + 10) &&
                 std::equal(order.begin(), order.begin() + 10, order.begin() + 20));
}
