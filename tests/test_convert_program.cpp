// The `convert` program as it is typed.
#include <gtest/gtest.h>

#include <filesystem>

#include "tests/programs.h"
#include "tests/temporary_folder.h"
#include "utils/files.h"

// A folder that cannot be used as it is is not sound: what its tokenizer says counts.
TEST(ConvertProgram, CheckReadsTheTokenizer) {
    const std::string folder = fresh("checked");
    std::filesystem::copy("inference/default_model", folder);
    const auto check = [&] { return run_command(program("convert") + " check " + folder); };
    const Outcome sound = check();
    EXPECT_EQ(sound.code, 0) << sound.err;
    EXPECT_NE(sound.out.find("sound, every number finite"), std::string::npos) << sound.out;
    write_file_atomic(folder + "/tokenizer.json", "");
    const Outcome empty = check();
    EXPECT_EQ(empty.code, 3);
    EXPECT_EQ(empty.out.find("sound"), std::string::npos) << empty.out;
    EXPECT_NE(empty.err.find("tokenizer.json: is empty"), std::string::npos) << empty.err;
    // Of another model, with more ids than this one has.
    ASSERT_EQ(run_command(
                  program("convert") +
                  " init --preset tiny --tokenizer bytes --force --set vocab_size=200 --set "
                  "mask_token_id=199 --set eos_token_id=3 --set pad_token_id=3 --set bos_token_id=3 --out " +
                  folder)
                  .code,
              0);
    const Outcome other = check();
    EXPECT_EQ(other.code, 3) << other.out;
    EXPECT_NE(other.err.find("its tokenizer has 260 ids, vocabulary_size is 200"), std::string::npos)
        << other.err;
}
