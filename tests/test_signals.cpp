#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/temporary_folder.h"
#include "utils/files.h"
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

// A program reads a page of a mapped file that is gone.
TEST(Signals, AMappedFileCutShortIsSaid) {
    const TemporaryFolder folder;
    const std::string path = folder.file("weights");
    write_file_atomic(path, std::string(100'000, 'x'));
    int ends[2];
    ASSERT_EQ(pipe(ends), 0);
    const pid_t child = fork();
    if (child == 0) {
        dup2(ends[1], STDERR_FILENO);
        catch_signals();
        const MappedFile file(path);
        if (truncate(path.c_str(), 5000) != 0 || file.data()[4096] != 'x')
            _exit(98);  // its page is still there
        const volatile char gone = file.data()[90'000];
        _exit(gone == 'x' ? 97 : 96);
    }
    close(ends[1]);
    char text[1000] = {};
    EXPECT_GT(read(ends[0], text, sizeof text - 1), 0);
    close(ends[0]);
    int status = 0;
    waitpid(child, &status, 0);
    EXPECT_TRUE(WIFEXITED(status));
    EXPECT_EQ(WEXITSTATUS(status), int(Exit::BadFile));
    EXPECT_NE(std::string(text).find("error: a model or data file was cut short"), std::string::npos) << text;
}

TEST(Signals, TheFirstAsksTheSecondEnds) {
    EXPECT_EQ(exit_code_after({SIGINT}, true), 130);
    EXPECT_EQ(exit_code_after({SIGTERM}, true), 143);
    EXPECT_EQ(exit_code_after({SIGTERM}, false), 98) << "the first signal alone must not end the program";
    EXPECT_EQ(exit_code_after({SIGTERM, SIGINT}, false), 130);
    EXPECT_EQ(exit_code_after({SIGINT, SIGTERM}, false), 143);
    const auto before = signal(SIGHUP, SIG_DFL);  // the tests may be under nohup themselves
    EXPECT_EQ(exit_code_after({SIGHUP}, true), 143) << "a terminal that is closed";
    EXPECT_EQ(exit_code_after({SIGHUP, SIGHUP}, false), 128 + SIGHUP);
    signal(SIGHUP, SIG_IGN);  // as nohup does
    EXPECT_EQ(exit_code_after({SIGHUP, SIGHUP}, true), 98);
    signal(SIGHUP, before);
}
