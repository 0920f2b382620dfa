#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include "utils/signals.h"

// What a program that polls interrupted() leaves with when it gets these signals.
static int exit_code_after(std::initializer_list<int> signals, bool polls) {
    const pid_t child = fork();
    if (child == 0) {
        catch_signals();
        if (interrupted() || interrupt_code() != Exit::Ok) _exit(99);
        for (int number : signals) raise(number);
        _exit(polls && interrupted() ? int(interrupt_code()) : 98);
    }
    int status = 0;
    waitpid(child, &status, 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

TEST(Signals, TheFirstAsksTheSecondEnds) {
    EXPECT_EQ(exit_code_after({SIGINT}, true), 130);
    EXPECT_EQ(exit_code_after({SIGTERM}, true), 143);
    EXPECT_EQ(exit_code_after({SIGTERM}, false), 98) << "the first signal alone must not end the program";
    EXPECT_EQ(exit_code_after({SIGTERM, SIGINT}, false), 130);
    EXPECT_EQ(exit_code_after({SIGINT, SIGTERM}, false), 143);
}
