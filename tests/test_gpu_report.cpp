// tests/gpu_report.sh beside a GPU and test programs that are not there: what it says when a test ends its process, hangs, or fails
// because of another.
#include <gtest/gtest.h>

#include <filesystem>

#include "tests/programs.h"
#include "tests/temporary_folder.h"

namespace {

void write_script(const std::string& path, const std::string& text) {
    write_file_atomic(path, "#!/bin/bash\n" + text);
    std::filesystem::permissions(path, std::filesystem::perms::owner_all);
}

// As GoogleTest has them, two tests to a shard: one crashes, one hangs, one fails, and the one behind that in the same process.
const char* const FAKE_TESTS = R"bash(
all=(A.good A.crashes A.hangs A.behind B.fails B.victim B.skipped B.fine/0)
[ "$ALL_GOOD" ] && all=(A.good A.good A.good A.good A.good A.good A.good A.good)
run() {
    echo "[ RUN      ] $1"
    case $1 in
        A.crashes) kill -SEGV $$ ;;
        A.hangs) exec sleep 100 ;;
        B.fails) echo "it is wrong"; failed=1 ;;
        B.victim) [ "$failed" ] && echo "its device is broken" ;;
        B.skipped) echo "[  SKIPPED ] $1 (0 ms)"; return ;;
    esac
    if [ "$failed" ]; then echo "[  FAILED  ] $1, where GetParam() = 3 (2 ms)"; else echo "[       OK ] $1 (1 ms)"; fi
}
for argument in "$@"; do
    case $argument in
        --gtest_list_tests)
            printf 'Running main() from gtest_main.cc\nA.\n  good\n  crashes\n  hangs\n  behind\n'
            printf 'B.\n  fails\n  victim\n  skipped\n  fine/0  # GetParam() = 7\n'
            exit ;;
        --gtest_filter=[AB].*) run "${argument#--gtest_filter=}"; exit ${failed:-0} ;;
    esac
done
for ((i = 2 * GTEST_SHARD_INDEX; i < 2 * GTEST_SHARD_INDEX + 2; i++)); do run "${all[i]}"; done
exit ${failed:-0}
)bash";

class GpuReport : public testing::Test {
  protected:
    GpuReport() {
        write_script(file("nvidia-smi"), "echo a device");
        write_script(file("compute-sanitizer"),
                     "echo \"$2, loops on host: $LOOPS_ON_HOST, in turn: $KERNELS_IN_TURN\" >>" +
                         file("sanitized") + "\nshift 6\nexec \"$@\"");
        write_script(file("run_gpu_tests"), FAKE_TESTS);
        write_script(file("bench_cuda"), "echo the bench ran");
    }
    std::string file(const std::string& name) const { return folder.file(name); }
    Outcome report(const std::string& settings, const std::string& parts) const {
        return run_command(settings + " SHARDS=4 PATH=" + folder.path() + ":$PATH tests/gpu_report.sh " +
                           folder.path() + " " + file("report") + " " + parts);
    }
    const TemporaryFolder folder{true};
};

}  // namespace

TEST_F(GpuReport, SaysWhatCrashedAndHungAndTriesTheRestAlone) {
    const Outcome o = report("LIMIT=2", "tests bench");
    EXPECT_EQ(o.code, 1);
    EXPECT_EQ(read_text(file("report")), o.out);
    for (const char* line :
         {"it ended in A.crashes\n", "it was stopped in A.hangs\n", "its device is broken\n",
          "alone, too, B.fails fails:\nit is wrong\n", "4 passed, 3 failed or did not end, 1 skipped\n",
          "the bench ran\n", "==== 1 steps failed: tests\n"})
        EXPECT_NE(o.out.find(line), std::string::npos) << line << "is not in\n" << o.out;
    for (const char* alone : {"A.behind", "B.victim"})
        EXPECT_EQ(o.out.find(std::string("alone, too, ") + alone), std::string::npos) << o.out;
}

TEST_F(GpuReport, RunsTheSanitizersAsTheyCanBeRun) {
    const Outcome o = report("ALL_GOOD=1", "memcheck racecheck");
    EXPECT_EQ(o.code, 0) << o.out;
    const std::string said = read_text(file("sanitized"));
    EXPECT_NE(said.find("memcheck, loops on host: 1, in turn: \n"), std::string::npos) << said;
    EXPECT_NE(said.find("racecheck, loops on host: 1, in turn: 1\n"), std::string::npos) << said;
}

TEST_F(GpuReport, EndsWithinItsTime) {
    write_script(file("bench_cuda"), "exec sleep 100");
    const Outcome o = report("WITHIN=13", "bench models");
    EXPECT_EQ(o.code, 1);
    for (const char* line : {"no time is left for it\n", "==== 2 steps failed: bench models\n"})
        EXPECT_NE(o.out.find(line), std::string::npos) << line << "is not in\n" << o.out;
}
