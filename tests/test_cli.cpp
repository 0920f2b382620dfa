#include <gtest/gtest.h>

#include <cmath>
#include <fstream>

#include "tests/fault_of.h"
#include "tests/temporary_folder.h"
#include "utils/cli.h"
#include "utils/files.h"
#include "utils/log.h"

// A program with one option of every kind.
struct Demo {
    Common common;
    int steps = 4;
    float temperature = 1, ratio = 0;
    double lr = 1e-6;
    int64_t slots = 0;
    bool ignore_eos = false, shuffle = true;
    std::string model, confidence = "tempered", prompt = "hi";
    std::vector<int> stop_ids;
    std::vector<double> band = {0.2, 0.8};
    std::vector<std::string> tasks;
    std::optional<int> length;
    enum class Rule { Static, Dynamic } rule = Rule::Dynamic;
    Options options{"demo", "Shows options."};

    Demo() {
        options.section("Model");
        options.add("--model DIR", &model, "a folder");
        options.section("Decoding rules (all of them)");
        options.add("--steps,-s S", &steps, "steps").range(1, 64);
        options.add("--temperature,--temp T", &temperature, "of the softmax").range(0, INFINITY);
        options.add("--ratio X", &ratio, "a share").range(0, 0.1);
        options.add("--lr X", &lr, "learning rate");
        options.add("--kv-slots N", &slots, "slots");
        options.add("--ignore-eos", &ignore_eos, "go on");
        options.add("--shuffle", &shuffle, "mix");
        options.add("--confidence NAME", &confidence, "which").choices({"tempered", "plain", "filtered"});
        options.add("--prompt TEXT", &prompt, "text");
        options.add("--stop-ids LIST", &stop_ids, "ids").range(0, 1000);
        options.add("--keep-accuracy LO,HI", &band, "band");
        options.add("--task NAME", &tasks, "may be repeated");
        options.add("--norm-length N", &length, "length");
        options.add_choice("--remasking RULE", &rule, {{"static", Rule::Static}, {"dynamic", Rule::Dynamic}},
                           "rule");
        options.check([this](Faults& faults) {
            if (steps > 32 && model.empty()) faults.add("--steps %d: needs a --model", steps);
        });
        options.add_common(common);
    }
    std::string fault(const std::vector<std::string>& arguments) {
        return fault_of(Exit::Usage, [&] { options.parse(arguments); });
    }
};

static std::string config_file(const std::string& text) {
    const std::string path = temporary("cli-test.toml");
    write_file_atomic(path, text);
    return path;
}

TEST(Cli, ReadsEveryKind) {
    Demo d;
    EXPECT_TRUE(d.options.parse({"--model",
                                 "m",
                                 "-s",
                                 "7",
                                 "--temperature=0.5",
                                 "--lr",
                                 "-1e-3",
                                 "--kv_slots",
                                 "-9000000000",
                                 "--ignore_eos",
                                 "--no-shuffle",
                                 "--confidence",
                                 "plain",
                                 "--prompt",
                                 "--steps",
                                 "--stop-ids",
                                 "1, 2 ",
                                 "--stop_ids",
                                 "3",
                                 "--keep-accuracy",
                                 "0.1,1",
                                 "--task",
                                 "a,b",
                                 "--task",
                                 "c",
                                 "--norm-length",
                                 "9",
                                 "--remasking",
                                 "static",
                                 "--seed",
                                 "18446744073709551615"}));
    EXPECT_EQ(d.model, "m");
    EXPECT_EQ(d.steps, 7);
    EXPECT_EQ(d.temperature, 0.5f);
    EXPECT_EQ(d.lr, -1e-3);
    EXPECT_EQ(d.slots, -9000000000);
    EXPECT_TRUE(d.ignore_eos);
    EXPECT_FALSE(d.shuffle);
    EXPECT_EQ(d.confidence, "plain");
    EXPECT_EQ(d.prompt, "--steps");
    EXPECT_EQ(d.stop_ids, (std::vector<int>{1, 2, 3}));
    EXPECT_EQ(d.band, (std::vector<double>{0.1, 1}));
    EXPECT_EQ(d.tasks, (std::vector<std::string>{"a,b", "c"}));
    EXPECT_EQ(d.length, 9);
    EXPECT_EQ(d.rule, Demo::Rule::Static);
    EXPECT_EQ(d.common.seed, UINT64_MAX);
    EXPECT_TRUE(d.options.given("--kv-slots"));
    EXPECT_FALSE(d.options.given("--threads"));
}

TEST(Cli, DefaultsStayAndLastWins) {
    Demo d;
    EXPECT_TRUE(d.options.parse(
        {"--steps", "3", "--steps", "5", "--prompt", "", "--prompt", "[a, b] {c} # \xc3\xa9\n"}));
    EXPECT_EQ(d.steps, 5);
    EXPECT_EQ(d.prompt, "[a, b] {c} # \xc3\xa9\n");
    EXPECT_EQ(d.band, (std::vector<double>{0.2, 0.8}));
    EXPECT_FALSE(d.length.has_value());
    Demo e;
    EXPECT_TRUE(e.options.parse({"--ignore-eos=false", "--shuffle", "--stop-ids", ""}));
    EXPECT_FALSE(e.ignore_eos);
    EXPECT_TRUE(e.shuffle);
    EXPECT_TRUE(e.stop_ids.empty());
}

TEST(Cli, FaultsOfTheCommandLine) {
    EXPECT_EQ(Demo().fault({"--ratio", "0.1"}), "") << "0.1 as a float is above 0.1 as a double";
    EXPECT_EQ(Demo().fault({"--ratio", "0.11"}), "--ratio 0.11: expected a number from 0 to 0.1");
    EXPECT_EQ(Demo().fault({"--temprature", "1"}),
              "unknown option --temprature; did you mean --temperature?");
    EXPECT_EQ(Demo().fault({"--xyzzy=4"}), "unknown option --xyzzy; --help lists the options");
    EXPECT_EQ(Demo().fault({"word"}), "unexpected argument 'word'; --help shows the usage");
    EXPECT_EQ(Demo().fault({"--steps", "four"}), "--steps four: expected an integer");
    EXPECT_EQ(Demo().fault({"--steps", "4.0"}), "--steps 4.0: expected an integer");
    EXPECT_EQ(Demo().fault({"--steps", "99999999999"}), "--steps 99999999999: expected an integer that fits");
    EXPECT_EQ(Demo().fault({"--steps", "0"}), "--steps 0: expected an integer from 1 to 64");
    EXPECT_EQ(Demo().fault({"--steps", ""}), "--steps '': expected an integer");
    EXPECT_EQ(Demo().fault({"--temperature", "-1"}), "--temperature -1: expected a number 0 or more");
    EXPECT_EQ(Demo().fault({"--temperature", "nan"}), "--temperature nan: expected a number");
    EXPECT_EQ(Demo().fault({"--seed", "-1"}), "--seed -1: expected an integer, 0 or more");
    EXPECT_EQ(Demo().fault({"--stop-ids", "1,x"}), "--stop-ids 1,x: expected an integer");
    EXPECT_EQ(Demo().fault({"--stop-ids", "1,1001"}),
              "--stop-ids 1,1001: expected an integer from 0 to 1000");
    EXPECT_EQ(Demo().fault({"--confidence", "low"}),
              "--confidence low: expected one of tempered, plain, filtered");
    EXPECT_EQ(Demo().fault({"--remasking", "x"}), "--remasking x: expected one of static, dynamic");
    EXPECT_EQ(Demo().fault({"--steps"}), "--steps: needs a value");
    EXPECT_EQ(Demo().fault({"--ignore_eos=perhaps"}), "--ignore_eos=perhaps: expected true or false");
    EXPECT_EQ(Demo().fault({"--steps", "40"}), "--steps 40: needs a --model");
    EXPECT_EQ(Demo().fault({"--steps", "x", "--lr", "y", "--bogus"}).find("--steps x"),
              Demo().fault({"--steps", "x", "--lr", "y", "--bogus"}).find('\n') + 1);
}

// Usage faults are listed with whatever else is wrong; alone, what else is wrong keeps its code.
TEST(Cli, WhatChecksCatchIsListedTogether) {
    const auto message = [](Exit code, const std::vector<Exit>& codes, std::vector<std::string> arguments) {
        Demo d;
        bool all_ran = false;
        d.options.check([&](Faults& faults) {
            for (const Exit c : codes)
                EXPECT_FALSE(faults.attempt([&] { fail(c, "code %d\nand more", int(c)); }));
            EXPECT_TRUE(faults.attempt([] {}));
            all_ran = true;
        });
        const std::string said = fault_of(code, [&] { d.options.parse(arguments); });
        EXPECT_TRUE(all_ran);
        return said;
    };
    EXPECT_EQ(message(Exit::Usage, {Exit::BadFile, Exit::Usage}, {"--steps", "x"}),
              "--steps x: expected an integer\ncode 2\nand more\ncode 3\nand more");
    EXPECT_EQ(message(Exit::BadFile, {Exit::BadFile, Exit::NoMemory}, {}),
              "code 3\nand more\ncode 4\nand more");
    // A configuration is written down where a file that it names is not there yet.
    const std::string dumped = temporary("dumped.toml");
    EXPECT_EQ(message(Exit::Ok, {Exit::BadFile}, {"--dump-config", dumped}), "");
    EXPECT_TRUE(file_exists(dumped));
}

TEST(Cli, OptionsWithoutEffectAreRefusedWhereTheyAreTyped) {
    const auto fault = [](const std::vector<std::string>& arguments) {
        Demo d;
        d.options.check([&](Faults& faults) {
            d.options.refuse_typed(faults, {"--kv-slots", "--ignore-eos", "--stop-ids"}, "is idle",
                                   "--steps");
        });
        return d.fault(arguments);
    };
    EXPECT_EQ(fault({"--kv-slots", "0", "--no-ignore-eos", "--steps", "3"}),
              "--kv-slots: is idle\n--ignore-eos: is idle");
    EXPECT_EQ(fault({"--config", config_file("kv_slots = 3\nstop_ids = [1]\n")}), "");
    // A value that is a fault itself is one fault, and what leaves an option idle must be known.
    EXPECT_EQ(fault({"--kv-slots", "x"}), "--kv-slots x: expected an integer");
    EXPECT_EQ(fault({"--kv-slots", "3", "--steps", "x"}), "--steps x: expected an integer");
}

TEST(Cli, ConfigFile) {
    Demo d;
    const std::string path = config_file(
        "# a comment\r\n"
        "seed = 18446744073709551615\n"
        "model = \"a#b \\\"c\\\" \\u00e9\"   # and one behind\n"
        "\n[rollout]\n"
        "temperature = 1\n"
        "kv_slots = 1_000\n"
        "rollout.keep-accuracy = [0.1,\n   1, # high\n]\n"
        "[training.deep]\n"
        "steps=9\n"
        "lr = 5e-7\n"
        "ignore_eos = true\n"
        "stop_ids = 7\n"
        "task = ['x,y', \"z\"]\n"
        "remasking = 'static'\n"
        "prompt = \"\"\"two\nlines\"\"\"\n");
    EXPECT_TRUE(d.options.parse({"--config", path, "--steps", "11", "--task", "cli"}));
    EXPECT_EQ(d.common.seed, UINT64_MAX);
    EXPECT_EQ(d.model, "a#b \"c\" \xc3\xa9");
    EXPECT_EQ(d.temperature, 1.0f);
    EXPECT_EQ(d.slots, 1000);
    EXPECT_EQ(d.band, (std::vector<double>{0.1, 1}));
    EXPECT_EQ(d.steps, 11) << "the command line beats the file";
    EXPECT_EQ(d.lr, 5e-7);
    EXPECT_TRUE(d.ignore_eos);
    EXPECT_EQ(d.stop_ids, std::vector<int>{7});
    EXPECT_EQ(d.tasks, std::vector<std::string>{"cli"});
    EXPECT_EQ(d.rule, Demo::Rule::Static);
    EXPECT_EQ(d.prompt, "two\nlines");
}

TEST(Cli, OneFileOfConfiguration) {
    const std::string path = config_file("steps = 3\n");
    EXPECT_EQ(Demo().fault({"--config", path, "--config", path}),
              "--config " + path + ": is one of 2 files, and one is read; put them into one");
}

TEST(Cli, AllFaultsOfAConfigTogether) {
    const std::string path = config_file(
        "temprature = 1\n"
        "steps = \"4\"\n"
        "lr = fast\n"
        "ignore_eos = 1\n"
        "steps = 5\n"
        "confidence = 'odd'\n"
        "prompt = 3\n"
        "stop_ids = [1, 'a']\n"
        "model = \"open\n"
        "when = 2024-01-01\n"
        "config = 'x'\n"
        "keep_accuracy = {a = 1}\n"
        "[[table]]\n"
        "kv-slots = 1\n"
        "kv_slots = 1\n"
        "temperature = 2 3\n"
        "shuffle\n");
    Demo d;
    const std::string faults = d.fault({"--config", path, "--threads", "-1"});
    for (const char* expected :
         {":1: unknown key 'temprature'; did you mean temperature?", ":2: steps = \"4\": expected an integer",
          ":3: 'fast' is no value; strings need quotes: \"fast\"",
          ":4: ignore_eos = 1: expected true or false", ":5: key 'steps' is set twice",
          ":6: confidence = \"odd\": expected one of tempered, plain, filtered",
          ":7: prompt = 3: expected a string", ":8: stop_ids = [1, \"a\"]: expected a list, each an integer",
          ":9: the string opened on line 9 is not closed", ":10: '2024-01-01' is no value",
          ":11: unknown key 'config'", ":12: inline tables", ":13: arrays of tables",
          ":15: 'kv_slots' is set twice (line 14)", ":16: unexpected '3' after the value",
          ":17: expected key = value", "--threads -1: expected an integer from 0 to 1024"})
        EXPECT_NE(faults.find(expected), std::string::npos) << expected << "\nnot in\n" << faults;
    EXPECT_EQ(std::count(faults.begin(), faults.end(), '\n'), 16);
    EXPECT_NE(Demo().fault({"--config", "/nowhere.toml"}).find("/nowhere.toml: cannot read"),
              std::string::npos);
    EXPECT_NE(Demo().fault({"--config", "/"}).find("is a folder"), std::string::npos);
}

TEST(Cli, HostileConfig) {
    for (const std::string& text :
         {std::string(100000, '['), "steps = " + std::string(100000, '['), "a" + std::string(1 << 20, '.'),
          "steps = 1" + std::string(1 << 20, '0'), std::string("a\0b = 1", 7), std::string("\xff\xfe"),
          std::string("= 1"), std::string("steps ="), std::string("steps = [1"),
          std::string("model = \"\\ud800\""), std::string("model = \"\\q\""), std::string("model = '''x"),
          std::string("[open"), std::string("steps = 1e"), std::string("steps = -"), std::string("\"\" = 1"),
          std::string("steps = 1__0")})
        EXPECT_NE(Demo().fault({"--config", config_file(text)}), "") << text.substr(0, 40);
    EXPECT_EQ(Demo().fault({"--config", config_file("")}), "");
    EXPECT_EQ(Demo().fault({"--config", config_file("temp = 0.5")}), "") << "an alias";
    EXPECT_EQ(Demo().fault({"--config", config_file("\xef\xbb\xbfsteps = 3")}), "");
}

TEST(Cli, ATildeIsNoFolder) {
    const std::string why =
        "expected a path without ~, which a shell expands only where a word begins with it";
    EXPECT_EQ(Demo().fault({"--model=~/m"}), "--model ~/m: " + why);
    const std::string config = config_file("model = \"~/m\"");
    EXPECT_EQ(Demo().fault({"--config", config}), config + ":1: model = \"~/m\": " + why);
    EXPECT_EQ(Demo().fault({"--model", "m~/a", "--prompt", "~/ is home"}), "");
}

TEST(Cli, AFileThatIsNoConfigurationIsNotToldLineByLine) {
    std::string prose;
    for (int i = 0; i < 200; i++) prose += "some words, and then more\n";
    const std::string fault = Demo().fault({"--config", config_file(prose)});
    EXPECT_EQ(std::count(fault.begin(), fault.end(), '\n'), 10) << fault;  // between eleven lines
    EXPECT_NE(fault.find(": 190 more lines are at fault"), std::string::npos) << fault;
}

TEST(Cli, DumpedConfigReadsBack) {
    const std::string path = temporary("cli-dump.toml");
    Demo a;
    EXPECT_FALSE(a.options.parse({"--model", "we\"ird\\ # \n\x01\xc3\xa9", "--lr", "0.1", "--temperature",
                                  "0.3333333", "--stop-ids", "4,5", "--task", "x,y", "--no-shuffle", "--seed",
                                  "18446744073709551615", "--remasking", "static", "--keep-accuracy", "",
                                  "--dump-config", path}));
    const std::string text = read_text(path);
    EXPECT_NE(text.find("\n[decoding_rules]\n"), std::string::npos) << text;
    EXPECT_NE(text.find("\n# norm_length = "), std::string::npos) << text;
    EXPECT_EQ(text.find("dump_config"), std::string::npos);
    Demo b;
    EXPECT_TRUE(b.options.parse({"--config", path}));
    EXPECT_EQ(b.options.to_toml(), text);
    EXPECT_EQ(b.model, a.model);
    EXPECT_EQ(b.lr, a.lr);
    EXPECT_EQ(b.temperature, a.temperature);
    EXPECT_EQ(b.tasks, a.tasks);
    EXPECT_EQ(b.common.seed, a.common.seed);
    EXPECT_TRUE(b.band.empty());
    EXPECT_FALSE(b.length.has_value());
}

// What is missing may come later; what is wrong is wrong.
TEST(Cli, AConfigurationIsWrittenOfWhatIsGiven) {
    const auto dump = [](std::vector<std::string> arguments) {
        std::string out;
        int n = 3;
        Common common;
        Options options("tool", "Does things.");
        options.add("--out DIR", &out, "where").required();
        options.add("--number N", &n, "how many");
        options.add_common(common);
        const std::string path = temporary("given.toml");
        arguments.insert(arguments.end(), {"--dump-config", path});
        const std::string fault = fault_of(Exit::Usage, [&] { EXPECT_FALSE(options.parse(arguments)); });
        return fault.empty() ? read_text(path) : fault;
    };
    EXPECT_NE(dump({"--number", "7"}).find("number = 7"), std::string::npos);
    EXPECT_EQ(dump({"--number", "x"}), "--number x: expected an integer");
}

TEST(Cli, Commands) {
    const auto parse = [](const std::vector<std::string>& arguments, std::string& seen) {
        Common common;
        std::string dir, out;
        Options options("tool", "Does things.");
        Options& check = options.command("check", "Looks.");
        check.add("DIR", &dir, "the folder").required();
        Options& init = options.command("init", "Makes.");
        init.add("--out DIR", &out, "where").required();
        options.add_common(common);
        try {
            options.parse(arguments);
            seen = options.chosen() + ":" + dir + ":" + out + ":" + std::to_string(common.seed);
        } catch (const Error& e) {
            seen = e.what();
        }
    };
    std::string seen;
    parse({"check", "x", "--seed", "3"}, seen);
    EXPECT_EQ(seen, "check:x::3");
    parse({"--seed", "3", "init", "--out", "y"}, seen);
    EXPECT_EQ(seen, "init::y:3");
    parse({"check"}, seen);
    EXPECT_EQ(seen, "DIR is missing");
    parse({"init", "--out", "y", "z"}, seen);
    EXPECT_EQ(seen, "unexpected argument 'z'; --help shows the usage");
    parse({"init"}, seen);
    EXPECT_EQ(seen, "--out is missing");
    parse({}, seen);
    EXPECT_EQ(seen, "say which command; --help lists them");
    parse({"chekc", "x"}, seen);
    EXPECT_NE(seen.find("unexpected argument 'chekc'; did you mean the command check?"), std::string::npos)
        << seen;
    parse({"check", "x", "my.toml"}, seen);
    EXPECT_EQ(seen, "unexpected argument 'my.toml'; did you mean --config my.toml?");
    parse({"check", "x", "--config", config_file("seed = 5\n")}, seen);
    EXPECT_EQ(seen, "check:x::5");
}

TEST(Cli, HelpShowsNamesMetavarsAndDefaults) {
    Demo d;
    testing::internal::CaptureStdout();
    EXPECT_FALSE(d.options.parse({"--steps", "x", "--help"}));
    const std::string help = testing::internal::GetCapturedStdout();
    for (const char* expected :
         {"mix (on; off: --no-shuffle)", "Usage: demo [OPTION]...",
          "Decoding rules (all of them):", "  --steps, -s S", "steps (4)", "(0.2,0.8)",
          "rule: static, dynamic (dynamic)", "(dynamic)", "--keep-accuracy LO,HI", "--dry-run"})
        EXPECT_NE(help.find(expected), std::string::npos) << expected << "\nnot in\n" << help;
    EXPECT_EQ(help.find("kv_slots"), std::string::npos);
}

TEST(Cli, RunMainTurnsExceptionsIntoCodes) {
    const auto code_of = [](const std::vector<std::string>& arguments,
                            std::function<Exit(const Options&)> run, std::string& said) {
        std::vector<std::string> words = {"./prog"};
        words.insert(words.end(), arguments.begin(), arguments.end());
        std::vector<char*> argv;
        for (std::string& word : words) argv.push_back(word.data());
        argv.push_back(nullptr);
        Common common;
        testing::internal::CaptureStderr();
        const int code = run_main(
            int(words.size()), argv.data(), "Tests.", common, [](Options&) {}, run);
        said = testing::internal::GetCapturedStderr();
        return code;
    };
    std::string said;
    const auto ok = [](const Options&) { return Exit::Ok; };
    EXPECT_EQ(code_of({}, ok, said), 0);
    EXPECT_EQ(said, "");
    EXPECT_EQ(code_of({"--bogus"}, ok, said), 2);
    EXPECT_EQ(said, "error: unknown option --bogus; --help lists the options\n");
    EXPECT_EQ(code_of({"--threads", "x", "--seed", "y"}, ok, said), 2);
    EXPECT_EQ(said,
              "error: --seed y: expected an integer, 0 or more\nerror: --threads x: expected an integer\n");
    EXPECT_EQ(code_of(
                  {}, [](const Options&) -> Exit { fail(Exit::BadFile, "x: bad"); }, said),
              3);
    EXPECT_EQ(said, "error: x: bad\n");
    EXPECT_EQ(code_of(
                  {}, [](const Options&) -> Exit { throw std::bad_alloc(); }, said),
              4);
    EXPECT_EQ(code_of(
                  {}, [](const Options&) -> Exit { throw std::runtime_error("odd"); }, said),
              1);
    EXPECT_EQ(said, "error: odd\n");
    EXPECT_EQ(code_of(
                  {}, [](const Options&) { return Exit::CheckFailed; }, said),
              5);
    EXPECT_EQ(code_of(
                  {"--quiet"},
                  [](const Options&) {
                      log_info("chatter");
                      return Exit::Ok;
                  },
                  said),
              0);
    EXPECT_EQ(said, "");
    set_quiet(false);
}
