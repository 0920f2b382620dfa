// Words of commands that programs tell their user to type.
#include <gtest/gtest.h>

#include "tests/programs.h"
#include "utils/words.h"

TEST(Words, AShellReadsBackWhatWasQuoted) {
    for (const std::string text : {"runs/a-1", "12+34=", "läuf/é", "", "it's $5 \"or\" `x`", "a b", "*", "~",
                                   "a\nb", "#", "!x", "%d;"})
        EXPECT_EQ(run_command("printf '%s' " + shell_word(text)).out, text);
    EXPECT_EQ(shell_word("runs/läuf-1"), "runs/läuf-1") << "what is plain stays so";
    EXPECT_EQ(shell_word("12 + 34"), "'12 + 34'");
}
