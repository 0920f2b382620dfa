// Examples for supervised fine-tuning: text, conversations and ids in; what is wrong with a file in one line
// out.
#include <gtest/gtest.h>

#include <fstream>

#include "tests/temporary_folder.h"
#include "tokenizer/byte_tokenizer.h"
#include "train/sft_data.h"
#include "utils/error.h"

namespace {

constexpr RecordLimits LIMITS = {
    .V = BYTE_VOCABULARY, .max_positions = 64, .block = 4, .has_value_model = false};

TextModel bytes(const std::string& chat = "raw") {
    TextModel text;
    text.tokenizer = load_tokenizer("bytes");
    text.chat = choose_chat_template(chat, "", *text.tokenizer);
    text.eos_ids = {BYTE_END_OF_TEXT};
    text.n_ids = BYTE_TOKENS;
    return text;
}

SftData read(const std::string& lines, const SftDataOptions& options = {}, const TextModel& text = bytes(),
             RecordLimits limits = LIMITS) {
    const TemporaryFolder folder;
    std::ofstream(folder.file("data.jsonl")) << lines;
    return read_sft_data(folder.file("data.jsonl"), text, options, limits);
}

std::string fault(const std::string& lines, const SftDataOptions& options = {},
                  const TextModel& text = bytes()) {
    try {
        read(lines, options, text);
        return "";
    } catch (const Error& e) {
        EXPECT_EQ(e.code, Exit::BadFile);
        return e.what();
    }
}

}  // namespace

TEST(SftData, TextEndsWithTheEndOfText) {
    const SftExample e = read(R"({"prompt": "ab", "response": "c"})").examples[0];
    EXPECT_EQ(e.prompt_ids, (std::vector<int>{'a', 'b'}));
    EXPECT_EQ(e.response_ids, (std::vector<int>{'c', BYTE_END_OF_TEXT}));
    const SftExample other =
        read(R"({"q": "ab", "a": "c"})", {.prompt_field = "q", .response_field = "a", .pad_tokens = 2})
            .examples[0];
    EXPECT_EQ(other.response_ids,
              (std::vector<int>{'c', BYTE_END_OF_TEXT, BYTE_END_OF_TEXT, BYTE_END_OF_TEXT}));
}

TEST(SftData, ConversationsTrainTheLastAnswer) {
    const TextModel text = bytes("qwen2.5");
    const SftExample e =
        read(R"({"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "yo"}]})",
             {}, text, {.V = BYTE_VOCABULARY, .max_positions = 512, .block = 4, .has_value_model = false})
            .examples[0];
    EXPECT_EQ(e.response_ids, (std::vector<int>{'y', 'o', BYTE_IM_END}));
    const std::string prompt = text.tokenizer->decode(e.prompt_ids);
    EXPECT_NE(prompt.find("hi<|im_end|>"), std::string::npos) << prompt;
    EXPECT_TRUE(prompt.ends_with("<|im_start|>assistant\n")) << prompt;
    EXPECT_NE(fault(R"({"messages": [{"role": "user", "content": "hi"}]})", {}, text).find("assistant"),
              std::string::npos);
}

TEST(SftData, AnAnswersMarksAndCallsAreTrained) {
    TokenizerDefinition d = byte_tokenizer_definition();
    const int think = int(d.bytes.size());
    d.added.push_back({think, "<think>", false, false});
    d.bytes.push_back("<think>");
    TextModel text = bytes("qwen2.5");
    text.tokenizer = std::make_unique<Tokenizer>(d);
    const RecordLimits limits = {
        .V = BYTE_VOCABULARY, .max_positions = 512, .block = 4, .has_value_model = false};
    EXPECT_EQ(read(R"({"prompt": "a", "response": "<think>b"})", {}, text, limits).examples[0].response_ids,
              (std::vector<int>{think, 'b', BYTE_IM_END}));
    const auto line = [](const std::string& fields) {
        return R"({"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", )" + fields + "}]}";
    };
    const std::string call = R"("tool_calls": [{"name": "f", "arguments": {"x": 1}}])";
    const SftExample e = read(line(R"("content": "yo", )" + call), {}, text, limits).examples[0];
    EXPECT_EQ(text.tokenizer->decode(e.response_ids),
              "yo\n<tool_call>\n{\"name\": \"f\", \"arguments\": {\"x\": 1}}\n</tool_call><|im_end|>");
    EXPECT_GT(read(line(call), {}, text, limits).examples[0].response_ids.size(), 40u);  // no content
    EXPECT_NE(fault(R"({"messages": [], "tools": [1]})", {}, text).find("'tools'"), std::string::npos);
    EXPECT_NE(fault(line(R"("content": "yo", "reasoning_content": "hm")"), {}, text)
                  .find(":1: messages[1]: reasoning_content"),
              std::string::npos);
}

TEST(SftData, IdsAreTakenAsTheyAre) {
    const SftDataOptions trace = {.pad_tokens = 1, .needs_step_map = true};
    const SftExample e =
        read(R"({"prompt_ids": [1], "output_ids": [2, 3], "step_map": [2, 1], "text": "x"})", trace)
            .examples[0];
    EXPECT_EQ(e.response_ids, (std::vector<int>{2, 3, BYTE_END_OF_TEXT}));
    EXPECT_EQ(e.step_map, (std::vector<int>{2, 1, 3}));
    EXPECT_EQ(read(R"({"prompt_ids": [], "response_ids": [2]})").examples[0].response_ids,
              (std::vector<int>{2}));
}

// A trace is of the whole last block: its tokens behind the stop were seen.
TEST(SftData, TracesHaveTheirTail) {
    const std::string line =
        R"({"prompt_ids": [1], "output_ids": [2, 3], "step_map": [2, 1], "tail_ids": [4, -1], "tail_steps": [1, -1]})";
    const auto tail = [&](const SftDataOptions& o) { return read(line, o).examples[0].tail_ids; };
    EXPECT_EQ(tail({.needs_step_map = true}), (std::vector<int>{4, -1}));
    EXPECT_EQ(read(line, {.needs_step_map = true}).examples[0].tail_steps, (std::vector<int>{1, -1}));
    EXPECT_TRUE(tail({.pad_tokens = 1, .needs_step_map = true}).empty());  // they stand in its place
    EXPECT_TRUE(tail({}).empty());                                         // noise has no trace
    EXPECT_NE(fault(R"({"prompt_ids": [1], "output_ids": [2], "step_map": [2], "tail_ids": [4]})",
                    {.needs_step_map = true})
                  .find(":1: fields 'tail_ids' and 'tail_steps'"),
              std::string::npos);
    // Under full attention it takes positions.
    RecordLimits full = LIMITS;
    full.block = 0, full.max_positions = 5;
    EXPECT_EQ(read(line, {.needs_step_map = true}, bytes(), full).examples.size(), 1u);
    full.max_positions = 4;
    EXPECT_THROW(read(line, {.needs_step_map = true}, bytes(), full), Error);
}

TEST(SftData, LeavesOutWhatIsTooLong) {
    const auto line = [](int n) {
        return "{\"prompt\": \"\", \"response\": \"" + std::string(size_t(n), 'x') + "\"}\n";
    };
    const SftData data =
        read(line(10) + line(60) + line(61));  // with the end token and the rest of a block: 64 positions
    EXPECT_EQ(data.examples.size(), 2u);
    EXPECT_EQ(data.too_long, 1);
    EXPECT_EQ(read(line(10) + line(20), {.max_length = 11}).examples.size(), 1u);
    EXPECT_NE(fault(line(100)).find("all 1 examples"), std::string::npos);
}

// Full attention: what a response leaves of its canvas is masked, so that the number of masks says nothing of its length.
TEST(SftData, ACanvasHasTheSameLengthForAll) {
    const RecordLimits full = {
        .V = BYTE_VOCABULARY, .max_positions = 32, .block = 0, .has_value_model = false};
    const auto canvas = [&](const std::string& line, RecordLimits limits) {
        return read(line, {.pad_tokens = 1, .canvas = 20}, bytes(), limits).examples.at(0).canvas;
    };
    const std::string line = R"({"prompt": "abc", "response": "de"})";
    EXPECT_EQ(canvas(line, full), 20 - 4);  // two letters, the end, one more
    EXPECT_EQ(canvas(R"({"prompt": "", "response": "0123456789012345678901"})", full), 0);
    EXPECT_EQ(canvas(line, LIMITS), 0);  // a block model has none
    const SftData data =
        read(line + "\n" + R"({"prompt": "0123456789012", "response": "d"})", {.canvas = 20}, bytes(), full);
    EXPECT_EQ(data.examples.size(), 1u);
    EXPECT_EQ(data.too_long, 1);  // 13 + 20 > 32
}

TEST(SftData, Hostile) {
    const std::string good = "{\"prompt\": \"a\", \"response\": \"b\"}\n";
    for (const auto& [lines, parts] : std::vector<std::pair<std::string, std::vector<std::string>>>{
             {good + "{\"prompt\": \"a\"}\n", {":2:", "response", "missing"}},
             {good + "{\"prompt\": 3, \"response\": \"b\"}\n", {":2:", "prompt", "3"}},
             {good + "[1]\n", {":2:", "object"}},
             {good + "{\"prompt\": \"a\n", {":2:"}},
             {"{\"prompt_ids\": [264], \"response_ids\": [1]}", {":1:", "prompt_ids", "264"}},
             {"{\"prompt_ids\": [1], \"response_ids\": []}", {":1:", "empty"}},
             {"{\"prompt_ids\": [1], \"response_ids\": [1, 2], \"step_map\": [1]}",
              {":1:", "step_map", "expected 2"}},
             {"{\"prompt_ids\": [1], \"response_ids\": [1], \"step_map\": [0]}", {":1:", "step_map", "0"}},
             {"", {"empty"}}})
        for (const std::string& part : parts)
            EXPECT_NE(fault(lines).find(part), std::string::npos) << fault(lines);
    EXPECT_NE(fault(good, {.needs_step_map = true}).find("step_map"), std::string::npos);
    TextModel ids_only = bytes();
    ids_only.tokenizer.reset();
    EXPECT_NE(fault(good, {}, ids_only).find("--tokenizer"), std::string::npos);
}
