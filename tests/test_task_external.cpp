// Rewards by a command: every form of answer, and a command that is slow, dies, or talks nonsense.
#include <gtest/gtest.h>

#include "tests/fault_of.h"
#include "tests/temporary_folder.h"
#include "train/tasks/task.h"
#include "utils/error.h"
#include "utils/files.h"
#include "utils/log.h"

namespace {

struct Judged {
    std::string response;
    std::vector<std::string> tokens;
};

std::string problems_file() {
    const std::string path = temporary("external.jsonl");
    write_file_atomic(
        path, "{\"question\": \"one?\", \"level\": 3}\n{\"question\": \"two?\", \"solution\": \"2\"}\n");
    return path;
}

Task task_of(const std::string& command, const std::string& timeout = "20") {
    const std::string script = temporary("external_" + std::to_string(std::hash<std::string>()(command)));
    write_file_atomic(script, command);
    return make_task(
        "external:problems=" + problems_file() + ",held_out=0,timeout=" + timeout + ",command=sh " + script,
        0);
}

std::vector<Verdict> ask(const Task& task, const std::vector<Judged>& judged) {
    static Problem problem;
    problem = task.problem(Split::Train, 0);
    std::vector<Answer> answers;
    for (const Judged& j : judged) answers.push_back({&problem, j.response, j.tokens});
    set_quiet(true);
    const std::vector<Verdict> out = judge(task, answers, {});
    set_quiet(false);
    return out;
}

// The id is the first number of a line.
const std::string EACH_LINE = "while read -r line; do id=${line#*\\\"id\\\":}; id=${id%%,*}; ";

std::string error_of(const std::string& spec, Exit code) {
    return fault_of(code, [&] { make_task(spec, 0); });
}

}  // namespace

TEST(TaskExternal, TheCommandSeesPromptResponseTokensAndRecord) {
    // right where all four are in the line
    const Task task =
        task_of(EACH_LINE +
                "r=0; case $line in *'\"level\":3'*) case $line in *'\"prompt\":\"one?\"'*) case $line in "
                "*'\"response\":\"ab\"'*) case $line in *'\"tokens\":[\"a\",\"b\",\"\"]'*) r=1;; esac;; "
                "esac;; esac;; esac; echo \"{\\\"id\\\": $id, \\\"reward\\\": $r}\"; done");
    EXPECT_EQ(task.train_size, 2);
    EXPECT_EQ(task.longest_solution, 1);
    const std::vector<Verdict> v = ask(task, {{"ab", {"a", "b", ""}}, {"abc", {"a", "b", ""}}});
    EXPECT_EQ(v[0].reward, 1);
    EXPECT_EQ(v[1].reward, 0);
    EXPECT_TRUE(v[1].graded);
    // the command stays for the next rollout
    EXPECT_EQ(ask(task, {{"ab", {"a", "b", ""}}})[0].reward, 1);
}

TEST(TaskExternal, RewardsOfTokensAndChunks) {
    const Task task = task_of(
        "read a; read b; read c\n"
        "echo '{\"id\": 2, \"chunks\": [{\"end\": 2, \"reward\": 0.5}, {\"end\": 3, \"reward\": 1}], "
        "\"reward\": 1}'\n"
        "echo '{\"id\": 0, \"token_rewards\": [0, 0.5, 1]}'\n"
        "echo '{\"id\": 1, \"reward\": -2.5}'\ncat >/dev/null");
    const std::vector<std::string> tokens = {"x", "y", "z"};
    const std::vector<Verdict> v = ask(task, {{"xyz", tokens}, {"xyz", tokens}, {"xyz", tokens}});
    EXPECT_EQ(v[0].token_rewards, (std::vector<double>{0, 0.5, 1}));
    EXPECT_DOUBLE_EQ(v[0].reward, 0.5);
    EXPECT_EQ(v[1].reward, -2.5);
    EXPECT_TRUE(v[1].token_rewards.empty());
    EXPECT_EQ(v[2].token_rewards, (std::vector<double>{0.5, 0.5, 1}));
    EXPECT_EQ(v[2].reward, 1);
}

TEST(TaskExternal, TheMeanOfEqualTokenRewardsIsExact) {
    const Task task =
        task_of(EACH_LINE + "echo \"{\\\"id\\\": $id, \\\"token_rewards\\\": [1, 1, 1, 1, 1, 1]}\"; done");
    const Verdict v = ask(task, {{"abcdef", {"a", "b", "c", "d", "e", "f"}}})[0];
    EXPECT_EQ(v.reward, 1);  // right, which 6 times 1/6 is not
}

// The response "bad" is what the command fails at; all others are graded all the same.
TEST(TaskExternal, OneResponseItFailsAtCostsNoOther) {
    const std::string others = "*) echo \"{\\\"id\\\": $id, \\\"reward\\\": 1}\";; esac; done";
    for (const std::string at_bad :
         {"exit 7", "sleep 100", "echo nonsense", "echo \"{\\\"id\\\": $id, \\\"reward\\\": \\\"good\\\"}\"",
          "echo \"{\\\"id\\\": $id}\"", "echo \"{\\\"id\\\": 99, \\\"reward\\\": 1}\"",
          "echo \"{\\\"id\\\": $id, \\\"token_rewards\\\": [1, 2]}\"",
          "echo \"{\\\"id\\\": $id, \\\"chunks\\\": [{\\\"end\\\": 9, \\\"reward\\\": 1}]}\"", "echo '[]'"}) {
        const Task task = task_of(EACH_LINE + "case $line in *bad*) " + at_bad + ";; " + others,
                                  at_bad == "sleep 100" ? "1" : "20");
        const std::vector<Verdict> v =
            ask(task, {{"a", {"a"}}, {"bad", {"bad"}}, {"c", {"c"}}, {"d", {"d"}}});
        EXPECT_FALSE(v[1].graded) << at_bad;
        EXPECT_EQ(v[1].reward, 0) << at_bad;
        for (const size_t i : {0, 2, 3}) {
            EXPECT_TRUE(v[i].graded) << at_bad << i;
            EXPECT_EQ(v[i].reward, 1) << at_bad << i;
        }
    }
}

// A second answer to the last response of a call lies there when the next call reads.
TEST(TaskExternal, AnAnswerThatComesTwiceIsNoOtherResponses) {
    const Task task = task_of(EACH_LINE +
                              "case $line in *bad*) r=0;; *) r=1;; esac; "
                              "printf '{\"id\": %d, \"reward\": %d}\\n' $id $r $id $r; done");
    EXPECT_EQ(ask(task, {{"good", {"good"}}})[0].reward, 1);
    const Verdict next = ask(task, {{"bad", {"bad"}}})[0];
    EXPECT_TRUE(next.graded);
    EXPECT_EQ(next.reward, 0);
}

TEST(TaskExternal, ALateAnswerToWhatWasInterruptedIsNoOtherResponses) {
    const Task task = task_of(EACH_LINE +
                              "case $line in *slow*) sleep 0.2; r=1;; *) r=0;; esac; "
                              "echo \"{\\\"id\\\": $id, \\\"reward\\\": $r}\"; done");
    const Problem problem = task.problem(Split::Train, 0);
    const std::vector<std::string> tokens = {"x"};
    const std::vector<Answer> slow = {{&problem, "slow", tokens}};
    int asked = 0;
    EXPECT_FALSE(judge(task, slow, [&] { return asked++ == 1; })[0].graded);
    const Verdict next = ask(task, {{"other", tokens}})[0];
    EXPECT_TRUE(next.graded);
    EXPECT_EQ(next.reward, 0);
}

TEST(TaskExternal, ACommandThatNeverWorksEndsTheWait) {
    const std::string count = temporary("external_starts");
    write_file_atomic(count, "");
    const Task task = task_of("echo x >>" + count + "; exit 1");
    const std::vector<Verdict> v = ask(task, std::vector<Judged>(20, {"a", {"a"}}));
    for (const Verdict& verdict : v) EXPECT_FALSE(verdict.graded);
    EXPECT_EQ(read_text(count), "x\nx\nx\n");
}

TEST(TaskExternal, SpecFaults) {
    EXPECT_NE(error_of("external:command=cat", Exit::Usage).find("problems=FILE"), std::string::npos);
    EXPECT_NE(error_of("external:problems=" + problems_file(), Exit::Usage).find("command=COMMAND"),
              std::string::npos);
    EXPECT_NE(error_of("external:problems=none.json,command=cat", Exit::BadFile).find("none.json"),
              std::string::npos);
    EXPECT_NE(error_of("external:command=cat,problem=x", Exit::Usage).find("'problem'"), std::string::npos);
}
