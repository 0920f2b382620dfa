// A command asked line by line: it answers, is slow, ends, or never reads.
#include <gtest/gtest.h>

#include <vector>

#include "utils/line_process.h"

namespace {

using End = LineProcess::End;

std::vector<std::string> ask(LineProcess& process, const std::string& input, size_t n, End expected,
                             double timeout_s = 20) {
    std::vector<std::string> lines;
    const auto on_line = [&](std::string_view line) {
        lines.emplace_back(line);
        return lines.size() < n;
    };
    EXPECT_EQ(process.exchange(input, on_line, timeout_s, {}), expected);
    return lines;
}

}  // namespace

TEST(LineProcess, AnswersAgainAndAgain) {
    LineProcess cat("cat");
    EXPECT_EQ(ask(cat, "a\nb\n", 2, End::Enough), (std::vector<std::string>{"a", "b"}));
    EXPECT_EQ(ask(cat, "c\n", 1, End::Enough), (std::vector<std::string>{"c"}));
}

TEST(LineProcess, LongInputAndLongAnswersDoNotBlockEachOther) {
    LineProcess cat("cat");
    const std::string line(1 << 19, 'x');
    std::string input;
    for (int i = 0; i < 3; i++) input += line + "\n";
    const std::vector<std::string> lines = ask(cat, input, 3, End::Enough);
    ASSERT_EQ(lines.size(), 3u);
    EXPECT_EQ(lines[2], line);
}

TEST(LineProcess, EndsAndTimeOutsAreTold) {
    LineProcess one("echo only; exit 3");
    EXPECT_EQ(ask(one, "a\nb\n", 2, End::Exited), (std::vector<std::string>{"only"}));
    LineProcess slow("sleep 100");
    EXPECT_TRUE(ask(slow, "a\n", 1, End::TimedOut, 0.2).empty());
    LineProcess missing("no_such_command_at_all 2>/dev/null");
    EXPECT_TRUE(ask(missing, std::string(1 << 20, 'x'), 1, End::Exited).empty());
}

TEST(LineProcess, CanBeInterrupted) {
    LineProcess slow("sleep 100");
    EXPECT_EQ(slow.exchange(
                  "", [](std::string_view) { return true; }, 100, [] { return true; }),
              End::Interrupted);
}
