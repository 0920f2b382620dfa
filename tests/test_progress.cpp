#include <gtest/gtest.h>

#include "tests/temporary_folder.h"
#include "utils/error.h"
#include "utils/files.h"
#include "utils/log.h"
#include "utils/progress.h"

TEST(Progress, Durations) {
    EXPECT_EQ(format_duration(4.24), "4.2 s");
    EXPECT_EQ(format_duration(9.96), "10 s");
    EXPECT_EQ(format_duration(59.4), "59 s");
    EXPECT_EQ(format_duration(59.6), "1:00");
    EXPECT_EQ(format_duration(187), "3:07");
    EXPECT_EQ(format_duration(3765), "1:02:45");
}

TEST(Progress, PlainLinesAreRareAndTheLastIsSaid) {
    testing::internal::CaptureStderr();
    ProgressBar progress("sft", 1000, ProgressStyle::Lines);
    for (int i = 1; i <= 1000; i++) progress.update(i, "loss 1");
    progress.finish("loss 0.5");
    progress.finish();
    const std::string said = testing::internal::GetCapturedStderr();
    EXPECT_EQ(said.find("sft  loss 0.5  1000/1000 in 0."), 0u) << said;
    EXPECT_EQ(said.find('\n'), said.size() - 1);
}

TEST(Progress, QuietSaysNothing) {
    set_quiet(true);
    testing::internal::CaptureStderr();
    {
        ProgressBar progress("sft", 3, ProgressStyle::Lines);
        progress.update(3);
        progress.finish();
        log_info("nothing");
        log_warning("this");
    }
    set_quiet(false);
    EXPECT_EQ(testing::internal::GetCapturedStderr(), "warning: this\n");
}

TEST(Progress, StylesByName) {
    EXPECT_EQ(progress_style("lines"), ProgressStyle::Lines);
    EXPECT_EQ(progress_style("none"), ProgressStyle::None);
    EXPECT_THROW(progress_style("pie"), Error);
}

TEST(Log, AlsoToAFile) {
    const std::string path = temporary("main.log");
    write_file_atomic(path, "before\n");
    log_to_file(path);
    testing::internal::CaptureStderr();
    set_quiet(true);
    log_info("step %d", 1);
    set_quiet(false);
    log_to_file("");
    log_info("not in it");
    EXPECT_EQ(testing::internal::GetCapturedStderr(), "not in it\n");
    EXPECT_EQ(read_text(path), "before\nstep 1\n");
    EXPECT_THROW(log_to_file("/nowhere/main.log"), Error);
}
