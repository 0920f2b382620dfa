#include <gtest/gtest.h>

#include "inference/chat.h"
#include "tests/temporary_folder.h"
#include "tests/text_engine.h"
#include "utils/files.h"
#include "utils/json.h"

namespace {

constexpr EngineLimits LIMITS = {.max_active = 1, .max_rows = 64, .kv_slots = 120, .keep_last = true};

struct TestChat {
    TextEngine e{LIMITS};
    Captured out;
    ModelConfig config;
    Chat chat;
    explicit TestChat(bool full_attention = false, const std::vector<std::string>& flags = {})
        : config(config_of(full_attention)),
          chat(e.engine, e.text, config, decoding(flags), 0, "", true, out.file()) {}
    static ModelConfig config_of(bool full_attention) {
        ModelConfig c = byte_model_config();
        c.full_attention = full_attention;
        return c;
    }
    // As the command line says it.
    static DecodingFlags decoding(const std::vector<std::string>& flags) {
        DecodingFlags d;
        Options options("test", "A chat.");
        d.options.gen_length = 12;
        d.options.temperature = 1;
        d.stop_ids = {BYTE_IM_END};
        d.declare(options);
        EXPECT_TRUE(options.parse(flags));
        return d;
    }
    // What is logged in answer to a line.
    std::string said(const std::string& line) {
        testing::internal::CaptureStderr();
        chat.take(line);
        return testing::internal::GetCapturedStderr();
    }
};

}  // namespace

TEST(Chat, AnswersAndRemembers) {
    TestChat t;
    EXPECT_TRUE(t.chat.take("hello"));
    ASSERT_EQ(t.chat.messages().size(), 2u);
    EXPECT_EQ(t.chat.messages()[0].content, "hello");
    EXPECT_EQ(t.chat.messages()[1].role, "assistant");
    EXPECT_EQ(t.out.text(), t.chat.messages()[1].content + "\n");
    EXPECT_TRUE(t.chat.take(""));
    EXPECT_EQ(t.chat.messages().size(), 2u);
    t.chat.take("again");
    EXPECT_EQ(t.chat.messages().size(), 4u);
    EXPECT_FALSE(t.chat.take("/bye"));
}

TEST(Chat, UndoRetryClear) {
    TestChat t;
    t.chat.take("/undo");  // nothing there: an error message, no more
    t.chat.take("one");
    const std::string first = t.chat.messages()[1].content;
    t.chat.take("/retry");  // another random stream
    ASSERT_EQ(t.chat.messages().size(), 2u);
    EXPECT_NE(t.chat.messages()[1].content, first);
    t.chat.take("two");
    t.chat.take("/undo");
    EXPECT_EQ(t.chat.messages().size(), 2u);
    t.chat.take("/clear");
    EXPECT_TRUE(t.chat.messages().empty());
    t.chat.take("/retry");
    EXPECT_TRUE(t.chat.messages().empty());
}

TEST(Chat, SettingsAreChecked) {
    TestChat t;
    t.chat.take("/set temperature 0.25");
    EXPECT_EQ(t.chat.options().temperature, 0.25f);
    t.chat.take("/set temperature -1");
    t.chat.take("/set temperature much");
    for (const char* unfinished : {"/set", "/set ", "/set temperature", "/set temperature "})
        EXPECT_TRUE(t.chat.take(unfinished));
    t.chat.take("/nonsense");
    EXPECT_EQ(t.chat.options().temperature, 0.25f);
    t.chat.take("/set remasking sequential");
    EXPECT_EQ(t.chat.options().remasking, Remasking::Sequential);
    t.chat.take("/set steps 9");  // more than the block has
    EXPECT_EQ(t.chat.options().steps, 0);
    EXPECT_TRUE(t.chat.messages().empty());
}

// The names, ranges and words of the command line.
TEST(Chat, SettingsAreTheOptionsOfTheCommandLine) {
    TestChat t;
    const GenerateOptions& o = t.chat.options();
    const auto set = [&](const std::string& what) { t.chat.take("/set " + what); };
    set("top-k 5"), set("max_tokens 7"), set("alg maskgit_plus"), set("denoising-steps 2"), set("seed 9");
    EXPECT_EQ(o.top_k, 5);
    EXPECT_EQ(o.gen_length, 7);
    EXPECT_EQ(o.remasking, Remasking::LowConfidenceStatic);
    EXPECT_EQ(o.steps, 2);
    EXPECT_EQ(o.seed, 9u);
    set("gen_length 2147483647"), set("further_horizon 2147483647"), set("order_temperature 1e30");
    set("temperature 1e30"), set("temperature 1e-39"), set("block 70000"), set("cache most"),
        set("stop_ids 1,9999"), set("device cpu");
    EXPECT_EQ(o.gen_length, 7);
    EXPECT_EQ(o.further_horizon, -1);
    EXPECT_EQ(o.order_temperature, 0);
    EXPECT_EQ(o.temperature, 1);
    EXPECT_EQ(o.block, 4);
    EXPECT_EQ(o.stop_ids, std::vector<int>{BYTE_IM_END});
    set("steps 0"), set("block 8"), set("block 0");
    EXPECT_EQ(o.block, t.e.model.config.B) << "the model's own, as everywhere";
    set("preset sdar-eval"), set("threshold 0.5");
    EXPECT_EQ(o.top_k, 1);
    EXPECT_EQ(o.threshold, 0.5);
    EXPECT_EQ(o.gen_length, 7);
    set("stop_ids 1,2");
    EXPECT_EQ(o.stop_ids, (std::vector<int>{1, 2}));
    set("ignore_eos true");
    EXPECT_TRUE(o.stop_ids.empty());
    set("stop_ids 3");
    EXPECT_EQ(o.stop_ids, std::vector<int>{3}) << "what is said last";
}

TEST(Chat, BlanksAroundASettingAreNoPartOfIt) {
    TestChat t;
    for (const char* line :
         {"/set temperature 0.5 ", "/set\ttemperature\t0.5\t", "/set  temperature \t 0.5 \t "}) {
        t.chat.take("/set temperature 1");
        EXPECT_EQ(t.said(line), "");
        EXPECT_EQ(t.chat.options().temperature, 0.5f) << line;
    }
    t.chat.take("/set\tremasking sequential ");
    EXPECT_EQ(t.chat.options().remasking, Remasking::Sequential);
    EXPECT_FALSE(t.chat.take("/bye\t"));
}

TEST(Chat, MistakesInASettingAreNamed) {
    TestChat t;
    for (const char* line : {"/set temprature 1", "/set temprature", "/set Temperature 1"})
        EXPECT_NE(t.said(line).find("there is no such setting; did you mean temperature?"), std::string::npos)
            << line;
    EXPECT_NE(t.said("/set max_token 9").find("did you mean max_tokens?"), std::string::npos);
    EXPECT_NE(t.said("/set colour red").find("/set colour: there is no such setting; /show"),
              std::string::npos);
    for (const char* line : {"/set", "/set ", "/set temperature", "/set temperature \t"})
        EXPECT_NE(t.said(line).find("/set NAME VALUE;"), std::string::npos) << line;
    const std::string fault = t.said("/set temperature " + std::string(5000, 'x'));
    EXPECT_NE(fault.find("/set temperature " + std::string(60, 'x') + ": expected a number"),
              std::string::npos)
        << fault;
}

// By the name it was typed with, and no flag is spoken of but those that there is no setting for.
TEST(Chat, FaultsSpeakOfSettings) {
    TestChat t;
    EXPECT_NE(t.said("/set denoising-steps 9").find(" /set denoising-steps 9: 1 to the block length, 4\n"),
              std::string::npos);
    EXPECT_NE(t.said("/set stop_ids 1,9999").find(" /set stop_ids 1,9999: ids run from 0 to "),
              std::string::npos);
    t.chat.take("/set steps 3");
    EXPECT_NE(t.said("/set block 2").find(" /set block 2: steps 3: 1 to the block length, 2\n"),
              std::string::npos);
    t.chat.take("/set steps 0");
    const std::string dream = t.said("/set preset dream");
    EXPECT_NE(dream.find(" /set preset dream: reveal_schedule timesteps (which preset dream has): "),
              std::string::npos)
        << dream;
    EXPECT_NE(dream.find(" /set preset dream: block 65536: "), std::string::npos) << dream;
    for (const char* line : {"/set cache none", "/set cache prefix", "/set cfg_scale 1", "/set alg origin"}) {
        const std::string fault = t.said(line);
        EXPECT_NE(fault.find(line + std::string(": ")), std::string::npos) << fault;
        EXPECT_EQ(fault.find("--"), std::string::npos) << fault;
    }
    t.chat.take("/set gen_length 500");
    EXPECT_NE(t.said("hello").find("start again with --kv-slots"), std::string::npos);
}

// More positions than the model has, in a cache that would hold them.
TEST(Chat, AnAnswerThatIsTooLongSpeaksOfSettings) {
    TextEngine e({.max_active = 1, .max_rows = 64, .kv_slots = 1000, .keep_last = true});
    Captured out;
    DecodingFlags decoding;
    decoding.options.gen_length = 300;
    Chat chat(e.engine, e.text, e.model.config, decoding, 0, "", true, out.file());
    testing::internal::CaptureStderr();
    chat.take("hello");
    const std::string fault = testing::internal::GetCapturedStderr();
    EXPECT_NE(fault.find(" a prompt of "), std::string::npos) << fault;
    EXPECT_NE(fault.find(" and gen_length 300 take "), std::string::npos) << fault;
    EXPECT_EQ(fault.find("request"), std::string::npos) << fault;
}

// A setting without effect is set, since the next one may give it its effect; but it is said.
TEST(Chat, ASettingWithoutEffectIsSaid) {
    TestChat t;
    EXPECT_EQ(t.said("/set top_k 5"), "");
    EXPECT_EQ(t.said("/set temp 0"), "");
    EXPECT_EQ(t.said("/set top-p 0.9"),
              "top-p: has no effect at temperature 0, which is greedy; raise that\n");
    EXPECT_EQ(t.chat.options().top_p, 0.9f);
    EXPECT_NE(t.said("/set eb_threshold 1").find("eb_threshold: is for remasking entropy_bounded; add that"),
              std::string::npos);
    EXPECT_EQ(t.said("/set remasking entropy_bounded"), "");
    EXPECT_EQ(t.said("/set eb_threshold 2"), "");
}

// The block that a preset brings along goes with it; one that was set, or given on the command line, is there again.
TEST(Chat, ABlockGoesWithItsPreset) {
    TestChat given(true, {"--block", "8"}), without(true, {"--preset", "dream"});
    const auto block = [](TestChat& t, const std::string& preset) {
        t.chat.take("/set preset " + preset);
        return t.chat.options().block;
    };
    for (int i = 0; i < 2; i++) {
        EXPECT_EQ(block(given, "dream"), WHOLE_CANVAS);
        EXPECT_EQ(block(given, "dream"), WHOLE_CANVAS);
        EXPECT_EQ(block(given, "llada"), 8);
        EXPECT_EQ(block(without, "llada"), without.config.B) << "the model's own";
        EXPECT_EQ(block(without, "dream"), WHOLE_CANVAS);
    }
    without.chat.take("/set block 2");
    EXPECT_EQ(block(without, "llada"), 2);
    without.chat.take("/set block 65536");
    EXPECT_EQ(block(without, "sdar"), WHOLE_CANVAS) << "it was said";
    TestChat said(true, {"--preset", "dream", "--block", "65536"}), set(true, {"--preset", "dream"});
    set.chat.take("/set block 65536");
    for (TestChat* t : {&said, &set})
        EXPECT_EQ(block(*t, "llada"), WHOLE_CANVAS) << "though dream has the same";
}

TEST(Chat, ShowNamesThePresetOfTheCommandLine) {
    TestChat t(false, {"--preset", "sdar"});
    const std::string shown = t.said("/show");
    EXPECT_NE(shown.find("preset=sdar "), std::string::npos) << shown;
    EXPECT_NE(shown.find("block=4 "), std::string::npos) << shown;
    EXPECT_EQ(t.chat.options().threshold, 0.85);
}

TEST(Chat, WhatDoesNotFitTheCacheIsNotSaid) {
    TestChat t;
    t.chat.take(std::string(150, 'a'));
    EXPECT_TRUE(t.chat.messages().empty());
    t.chat.take("short");
    EXPECT_EQ(t.chat.messages().size(), 2u);
}

TEST(Chat, SavesAndLoads) {
    const std::string path = temporary("chat.json");
    TestChat a, b;
    a.chat.take("/system be brief");
    a.chat.take("hi \"there\"");
    a.chat.take("/save " + path);
    b.chat.take("/load " + path);
    ASSERT_EQ(b.chat.messages().size(), 2u);
    EXPECT_EQ(b.chat.messages()[0].content, "hi \"there\"");
    EXPECT_EQ(read_json(path)["messages"][0]["content"], "be brief");
    for (const std::string fault :
         {"{}", R"({"messages": [], "tools": [{"type": "function"}]})"}) {  // tools would be left out
        write_file_atomic(path, fault);
        b.chat.take("/load " + path);
        EXPECT_EQ(b.chat.messages().size(), 2u);
    }
    // Thoughts and calls of a loaded conversation are saved again.
    const std::string whole =
        R"({"messages":[{"role":"user","content":"2+2?"},{"role":"assistant","content":"","reasoning_content":"hm",)"
        R"("tool_calls":[{"name":"add","arguments":{"a":2,"b":2}}]},{"role":"tool","content":"4"}]})"
        "\n";
    write_file_atomic(path, whole);
    b.chat.take("/load " + path);
    b.chat.take("/save " + path);
    EXPECT_EQ(read_text(path), whole);
}

TEST(Chat, AnInterruptEndsTheAnswerOnly) {
    TestChat t;
    int passes = 0;
    t.chat.should_stop = [&] { return passes++ == 6; };
    EXPECT_TRUE(t.chat.take("hello"));
    ASSERT_EQ(t.chat.messages().size(), 2u);
    t.chat.take("go on");
    EXPECT_EQ(t.chat.messages().size(), 4u);
}

TEST(ChatLoop, ReadsLinesAndBlocksOfLines) {
    TestChat t;
    std::string typed =
        "one\r\n\"\"\"\ntwo\nlines\n\"\"\"\n\"\"\"three\"\"\"\n/undo\nlast";  // no newline at the end
    FILE* in = fmemopen(typed.data(), typed.size(), "r");
    chat_loop(t.chat, in, "");
    fclose(in);
    std::vector<std::string> said;
    for (const Message& m : t.chat.messages())
        if (m.role == "user") said.push_back(m.content);
    EXPECT_EQ(said, (std::vector<std::string>{"one", "two\nlines", "last"}));
}
