#include <gtest/gtest.h>

#include "inference/decoding_flags.h"
#include "tests/temporary_folder.h"
#include "utils/files.h"

namespace {

struct Program {
    Common common;
    DecodingFlags decoding;
    Options flags{"program", "Generates."};

    explicit Program(const std::vector<std::string>& arguments) {
        decoding.declare(flags);
        flags.add_common(common);
        flags.parse(arguments);
    }
    GenerateOptions options() const { return decoding.options; }
};

}  // namespace

// A run's config.toml holds the preset and every option: what it was resumed with is what it was started with.
TEST(DecodingFlags, AWrittenConfigurationMeansTheSame) {
    for (const std::string& name : preset_names()) {
        const std::vector<std::string> given = {"--preset", name, "--top-k", "7", "--gen-length", "33"};
        std::vector<std::string> writing = given;
        const std::string path = temporary("decoding.toml");
        writing.insert(writing.end(), {"--dump-config", path});
        const Program writer(writing);
        const GenerateOptions a = Program(given).options(), b = Program({"--config", path}).options();
        const RevealRule x = a.reveal_rule(), y = b.reveal_rule();
        EXPECT_EQ(a.top_k, 7);
        EXPECT_EQ(x.block, y.block) << name;
        EXPECT_EQ(x.remasking, y.remasking) << name;
        EXPECT_EQ(x.fallback, y.fallback) << name;
        EXPECT_EQ(x.inclusive, y.inclusive) << name;
        EXPECT_EQ(x.schedule, y.schedule) << name;
        EXPECT_EQ(x.threshold, y.threshold) << name;
        EXPECT_EQ(a.temperature, b.temperature) << name;
        EXPECT_EQ(a.top_k, b.top_k) << name;
        EXPECT_EQ(a.top_p, b.top_p) << name;
        EXPECT_EQ(a.confidence, b.confidence) << name;
        EXPECT_EQ(a.draw, b.draw) << name;
    }
}

// Whatever comes first, and in the file or beside it: an option beats the preset, and the command line's preset the file's.
TEST(DecodingFlags, APresetIsSetBeforeWhatIsGivenBesideIt) {
    const std::string path = temporary("preset.toml");
    const auto options = [&](const std::string& file, std::vector<std::string> arguments) {
        write_file_atomic(path, file);
        arguments.insert(arguments.end(), {"--config", path});
        return Program(arguments).options();
    };
    EXPECT_EQ(options("", {"--top-k", "7", "--preset", "sdar-eval"}).top_k, 7);
    EXPECT_EQ(options("top_k = 7\n", {"--preset", "sdar-eval"}).top_k, 7);
    EXPECT_EQ(options("top_k = 7\npreset = 'sdar-eval'\n", {}).top_k, 7);
    EXPECT_EQ(options("top_k = 7\npreset = 'sdar-eval'\n", {"--top-k", "9"}).top_k, 9);
    const GenerateOptions o = options("preset = 'dream'\n", {"--preset", "sdar-eval"});
    EXPECT_EQ(o.block, 0);
    EXPECT_EQ(o.threshold, 0.95);
}

TEST(DecodingFlags, ARandomOrderIsNotGreedy) {
    const auto greedy = [](std::vector<std::string> arguments) {
        const Program p(arguments);
        return p.decoding.is_greedy(p.flags);
    };
    EXPECT_TRUE(greedy({}));
    EXPECT_TRUE(greedy({"--preset", "llada"}));
    EXPECT_FALSE(greedy({"--remasking", "random"}));
    EXPECT_FALSE(greedy({"--alg", "origin"}));
    EXPECT_FALSE(greedy({"--alg", "maskgit_plus", "--alg-temp", "0.5"}));
    EXPECT_FALSE(greedy({"--preset", "dream"}));
    EXPECT_TRUE(greedy({"--preset", "dream", "--temperature", "0"}));
}
