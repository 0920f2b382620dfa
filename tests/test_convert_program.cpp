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

TEST(ConvertProgram, SizesAreInMiBWhereTheyAreSmall) {
    const std::string folder = fresh("planned"),
                      cast = program("convert") +
                             " cast inference/default_model --dtype fp32 --dry-run --out " + folder;
    const Outcome text = run_command(cast), json = run_command(cast + " --json");
    const uint64_t bytes = std::filesystem::file_size("inference/default_model/model.safetensors");
    EXPECT_EQ(json.code, 0) << json.err;
    EXPECT_EQ(json_lines(json.out)[0]["model"], folder);
    EXPECT_NEAR(json_lines(json.out)[0]["bytes"].get<double>(), 2.0 * double(bytes), 0.02 * double(bytes))
        << "it is in bf16";
    EXPECT_EQ(text.out, folder + format(": %.1f MiB of weights\n",
                                        json_lines(json.out)[0]["bytes"].get<double>() / (1 << 20)));
    EXPECT_FALSE(file_exists(folder));
}
