// A run's folder: one process at a time, checkpoints that are whole or not there.
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>
#include <set>

#include "tests/fault_of.h"
#include "tests/temporary_folder.h"
#include "train/run_folder.h"
#include "utils/files.h"
#include "utils/json.h"

TEST(RunFolder, OneProcessAndOneRunPerFolder) {
    const std::string path = fresh("folder");
    {
        const RunFolder a = RunFolder::create(path, "x", "k = 1\n");
        EXPECT_THROW(RunFolder::open(path, "train_sft"), Error);  // locked
    }
    EXPECT_THROW(RunFolder::create(path, "x", ""), Error);    // there is a run
    EXPECT_THROW(RunFolder::open(path, "train_sft"), Error);  // without a checkpoint
    EXPECT_THROW(RunFolder::open(path + "_none", "train_sft"), Error);
    EXPECT_EQ(read_text(path + "/config.toml"), "k = 1\n");
}

// A run in a model's folder would be taken for that model; the metrics of an older run would be its own.
TEST(RunFolder, FoldersThatHoldWhatARunWouldWrite) {
    for (const char* name : {"config.json", "metrics.jsonl"}) {
        const TemporaryFolder folder;
        write_file_atomic(folder.file("notes.txt"), "what is somebody's own is no hindrance");
        EXPECT_NO_THROW(RunFolder::check_free(folder.path(), ""));
        write_file_atomic(folder.file(name), "{}\n");
        const std::string fault =
            fault_of(Exit::Usage, [&] { RunFolder::create(folder.path(), "", "k = 1\n"); });
        EXPECT_EQ(fault, "--out " + folder.path() + ": holds " + name + " already; choose another folder");
        EXPECT_FALSE(file_exists(folder.file("config.toml")));
    }
}

TEST(RunFolder, RunsOfTheSameSecondHaveFoldersOfTheirOwn) {
    const TemporaryFolder folder;
    const std::filesystem::path here = std::filesystem::current_path();
    std::filesystem::current_path(folder.path());
    std::set<std::string> paths;
    for (int process = 0; process < 4; process++)
        if (fork() == 0) {
            try {
                RunFolder::create("", "x", "");
                _exit(0);
            } catch (const Error&) {
                _exit(1);
            }
        }
    for (int status; wait(&status) > 0;) EXPECT_EQ(status, 0);
    for (const auto& entry : std::filesystem::directory_iterator("runs")) {
        EXPECT_TRUE(file_exists(entry.path().string() + "/config.toml"));
        paths.insert(entry.path().filename().string());
    }
    std::filesystem::current_path(here);
    EXPECT_EQ(paths.size(), 4u);
}

// After a resume from an older checkpoint the newest are those of the steps that were done last.
TEST(RunFolder, SamplesThatWillBeWrittenAgainDoNotCount) {
    RunFolder run = RunFolder::create(fresh("samples"), "x", "");
    const auto write = [&](int step) { run.sample(format("step-%06d.jsonl", step), "{}\n", 2); };
    const auto there = [&](int step) {
        return file_exists(run.file(format("samples/step-%06d.jsonl", step)));
    };
    for (const int step : {18, 19, 20, 11, 12}) write(step);
    EXPECT_TRUE(there(11) && there(12) && there(19) && there(20));
    EXPECT_FALSE(there(18));
    write(13);
    EXPECT_TRUE(there(12) && there(13) && !there(11));
    for (int step = 14; step <= 20; step++) write(step);
    EXPECT_TRUE(there(19) && there(20) && !there(18));
}

TEST(RunFolder, OldCheckpointsGoAndMetricsAreCut) {
    const std::string path = fresh("prune");
    RunFolder run = RunFolder::create(path, "x", "");
    for (int step = 1; step <= 5; step++) {
        run.metrics({{"step", step}});
        run.checkpoint(step, 2, [&](const std::string& at) {
            write_file_atomic(at + "/state.json", std::to_string(step));
        });
    }
    EXPECT_EQ(run.latest(), path + "/ckpt/step-000005");
    EXPECT_TRUE(file_exists(path + "/ckpt/step-000004"));
    EXPECT_FALSE(file_exists(path + "/ckpt/step-000003"));
    run.truncate_metrics(3);
    EXPECT_EQ(read_text(path + "/metrics.jsonl"), "{\"step\":1}\n{\"step\":2}\n{\"step\":3}\n");
    EXPECT_EQ(run.metrics_lines(), 3);
    EXPECT_THROW(run.truncate_metrics(4), Error);
    // A checkpoint that fails leaves the last one.
    EXPECT_THROW(run.checkpoint(6, 2, [](const std::string&) { fail(Exit::Runtime, "disk full"); }), Error);
    EXPECT_EQ(run.latest(), path + "/ckpt/step-000005");
    EXPECT_FALSE(file_exists(path + "/ckpt/step-000006"));
}

TEST(RunFolder, WhatAKilledProcessLeftHalfSavedIsRemoved) {
    const std::string path = fresh("killed");
    {
        RunFolder run = RunFolder::create(path, "x", "# train_sft\n");
        run.checkpoint(1, 0, [](const std::string& at) { write_file_atomic(at + "/state.json", "1"); });
        if (const pid_t child = fork(); child == 0) {
            run.checkpoint(2, 0, [](const std::string&) { _exit(0); });
            _exit(1);
        } else {
            int status;
            waitpid(child, &status, 0);
            EXPECT_EQ(status, 0);
        }
    }
    const auto entries = [&] {
        return std::distance(std::filesystem::directory_iterator(path + "/ckpt"),
                             std::filesystem::directory_iterator());
    };
    EXPECT_EQ(entries(), 2);
    const RunFolder again = RunFolder::open(path, "train_sft");
    EXPECT_EQ(entries(), 1);
    EXPECT_EQ(again.latest(), path + "/ckpt/step-000001");
}
