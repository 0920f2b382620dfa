// Chat templates against what the models' own Jinja programs render (chat_templates.jsonl, made with
// transformers 4.57).
#include <gtest/gtest.h>

#include <cstdlib>

#include "tests/fault_of.h"
#include "tests/temporary_folder.h"
#include "tokenizer/byte_tokenizer.h"
#include "tokenizer/chat_template.h"
#include "tokenizer/encode_file.h"
#include "utils/error.h"
#include "utils/files.h"
#include "utils/json.h"

namespace {

const char* QWEN3 = "../shared/data/tokenizer/qwen3-sdar";

// The byte tokenizer with other special tokens after it.
Tokenizer byte_tokenizer_with(const std::vector<std::string>& contents) {
    TokenizerDefinition d = byte_tokenizer_definition();
    d.name = "test";
    d.added.clear();
    d.bytes.resize(256);
    for (const std::string& content : contents) {
        d.added.push_back({int(d.bytes.size()), content, true, false});
        d.bytes.push_back(content);
    }
    return Tokenizer(d);
}

Tokenizer every_token() {
    return byte_tokenizer_with(
        {"<|im_start|>", "<|im_end|>", "<think>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"});
}

TEST(ChatTemplate, RendersWhatTheOriginalsRender) {
    const Tokenizer tokenizer = every_token();
    int n = 0;
    read_jsonl("tests/chat_templates.jsonl", [&](const Json& line, const std::string& where) {
        const ChatTemplate chat = choose_chat_template(line["template"], "", tokenizer);
        const ChatOptions options{.thinking = line["enable_thinking"],
                                  .generation_prompt = line["add_generation_prompt"]};
        EXPECT_EQ(chat_text(chat, parse_messages(line["messages"], where), options),
                  line["text"].get<std::string>())
            << where;
        n++;
    });
    EXPECT_GT(n, 90);
}

TEST(ChatTemplate, RawIsWhatWasSaid) {
    const std::vector<Message> messages = {{.role = "user", .content = "3+4="},
                                           {.role = "assistant", .content = "7"}};
    EXPECT_EQ(chat_text({}, messages, {}), "3+4=7");
}

// What is trained is what the template renders behind the prompt.
TEST(ChatTemplate, AnAnswerIsTheRestOfItsConversation) {
    const Tokenizer tokenizer = every_token();
    const ChatTemplate qwen3 = choose_chat_template("qwen3", "", tokenizer),
                       qwen25 = choose_chat_template("qwen2.5", "", tokenizer);
    const Message user = {.role = "user", .content = "2+2?"};
    const Json call = Json::array({{{"name", "add"}, {"arguments", {{"a", 2}, {"b", 2}}}}});
    const auto rest = [&](const ChatTemplate& chat, const Message& answer) {
        const std::string all =
            chat_text(chat, {user, answer}, {.thinking = true, .generation_prompt = false});
        const std::string prompt = chat_text(chat, {user}, {});
        EXPECT_TRUE(all.starts_with(prompt)) << all;
        return all.substr(prompt.size());
    };
    const std::string end = "<|im_end|>\n";
    for (const std::string content : {"", "4", "\n4"})
        for (const Json& calls : {Json::array(), call}) {
            const Message thought = {
                .role = "assistant", .content = content, .reasoning = "\nhm\n", .tool_calls = calls};
            EXPECT_EQ(answer_text(qwen3, thought, true, "f:1") + end, rest(qwen3, thought));
            const Message plain = {.role = "assistant", .content = content, .tool_calls = calls};
            EXPECT_EQ(answer_text(qwen25, plain, false, "f:1") + end, rest(qwen25, plain));
        }
    // Without a thought Qwen3 is not taught an empty one.
    EXPECT_EQ(answer_text(qwen3, {.role = "assistant", .content = "4"}, true, "f:1"), "4");

    const Message thought = {.role = "assistant", .content = "4", .reasoning = "hm"};
    const Message calls = {.role = "assistant", .content = "4", .tool_calls = call};
    const ChatTemplate llada = choose_chat_template("llada", "", tokenizer);
    const auto fault = [&](const ChatTemplate& chat, const Message& answer, bool thinking) {
        return fault_of(Exit::BadFile, [&] { answer_text(chat, answer, thinking, "f:1"); });
    };
    EXPECT_EQ(fault(qwen3, thought, false),
              "f:1: reasoning_content: --thinking off leaves no place for it; use --thinking on");
    for (const ChatTemplate& chat : {qwen25, llada, ChatTemplate{}})
        EXPECT_NE(fault(chat, thought, true).find("f:1: reasoning_content: only the template qwen3"),
                  std::string::npos);
    for (const ChatTemplate& chat : {llada, ChatTemplate{}})
        EXPECT_NE(fault(chat, calls, true).find("f:1: tool_calls"), std::string::npos);
}

// A model writes marks such as <think> as one token; what ends a turn or stands for a mask it cannot say in words.
TEST(ChatTemplate, MarksThatAreNotSpecialAreAnAnswersTokens) {
    TokenizerDefinition d = byte_tokenizer_definition();
    const int think = int(d.bytes.size());
    d.added.push_back({think, "<think>", false, false});
    d.bytes.push_back("<think>");
    const Tokenizer tokenizer(d);
    std::vector<int> want = {think, 'a'};
    for (const char c : std::string("<|im_end|>")) want.push_back(uint8_t(c));
    want.push_back(think);
    EXPECT_EQ(encode_answer(tokenizer, "<think>a<|im_end|><think>"), want);
    EXPECT_EQ(encode_answer(tokenizer, ""), std::vector<int>());
}

TEST(ChatTemplate, IsChosenByFamilyThenByTokens) {
    const Tokenizer all = every_token(), bytes(byte_tokenizer_definition());
    const auto kind = [](const char* family, const Tokenizer& t) {
        return choose_chat_template("auto", family, t).kind;
    };
    EXPECT_EQ(kind("sdar", all), ChatTemplate::Qwen3);
    EXPECT_EQ(kind("Dream", all), ChatTemplate::Qwen25);
    EXPECT_EQ(kind("llada", all), ChatTemplate::Llada);
    EXPECT_EQ(kind("", all), ChatTemplate::Qwen3);
    EXPECT_EQ(kind("", byte_tokenizer_with({"<|im_start|>", "<|im_end|>"})), ChatTemplate::Qwen25);
    EXPECT_EQ(kind("", byte_tokenizer_with({"<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"})),
              ChatTemplate::Llada);
    EXPECT_EQ(kind("llada", byte_tokenizer_with({"<s>"})), ChatTemplate::Raw);
    EXPECT_EQ(kind("sdar", bytes), ChatTemplate::Raw);
    EXPECT_EQ(choose_chat_template("qwen3", "", bytes).kind, ChatTemplate::Qwen3);
    EXPECT_EQ(end_of_turn(choose_chat_template("qwen3", "", bytes), bytes), BYTE_IM_END);
    EXPECT_EQ(end_of_turn({}, bytes), NO_TOKEN);
}

TEST(ChatTemplate, FaultsAreNamed) {
    const Tokenizer bytes(byte_tokenizer_definition());
    EXPECT_NE(fault_of(Exit::Usage, [&] { choose_chat_template("chatml", "", bytes); }).find("'chatml'"),
              std::string::npos);
    EXPECT_NE(
        fault_of(Exit::Usage, [&] { choose_chat_template("llada", "", bytes); }).find("<|start_header_id|>"),
        std::string::npos);
    const auto parse = [&](const char* text) {
        return fault_of(Exit::BadFile, [&] { parse_messages(Json::parse(text), "f.jsonl:3"); });
    };
    EXPECT_NE(parse("5").find("f.jsonl:3: messages is not an array"), std::string::npos);
    EXPECT_NE(parse(R"([{"role": "user", "content": "a"}, 7])").find("messages[1]"), std::string::npos);
    EXPECT_NE(parse(R"([{"role": "robot", "content": "a"}])").find("'robot'"), std::string::npos);
    EXPECT_NE(parse(R"([{"role": "user"}])").find("content"), std::string::npos);
    EXPECT_NE(parse(R"([{"role": "user", "content": 5}])").find("content"), std::string::npos);
    EXPECT_NE(parse(R"([{"role": "assistant", "tool_calls": [{"name": "f"}]}])").find("tool call"),
              std::string::npos);
    EXPECT_NE(parse(R"([{"role": "user", "content": "", "tool_calls": [1]}])").find("tool_calls"),
              std::string::npos);
}

TEST(ChatTemplate, ToolsAreRefusedWhereTheyWouldBeLeftOut) {
    const std::string messages = R"({"messages": [{"role": "user", "content": "a"}])";
    for (const char* none : {"}", R"(, "tools": null})", R"(, "tools": []})"})
        EXPECT_EQ(messages_of(Json::parse(messages + none), "f:1").size(), 1u);
    const Json line = Json::parse(messages + R"(, "tools": [{"type": "function"}]})");
    EXPECT_NE(
        fault_of(Exit::BadFile, [&] { messages_of(line, "f:1"); }).find("f:1: 'tools' are not supported"),
        std::string::npos);
    const TemporaryFolder folder;
    write_file_atomic(folder.file("lines.jsonl"), dump(line) + "\n");
    const Tokenizer bytes(byte_tokenizer_definition());
    EXPECT_NE(fault_of(Exit::BadFile, [&] { encode_jsonl(folder.file("lines.jsonl"), bytes, {}, stdout); })
                  .find("lines.jsonl:1: 'tools'"),
              std::string::npos);
}

TEST(EncodeChat, WhatIsSaidCannotEndItsTurn) {
    const Tokenizer bytes(byte_tokenizer_definition());
    const ChatTemplate chat = choose_chat_template("qwen3", "", bytes);
    const std::vector<Message> messages = {{.role = "user", .content = "<|im_end|>"}};
    const auto ends = [&](bool parse) {
        const auto ids = encode_chat(bytes, chat, messages, {.parse_special = parse});
        EXPECT_EQ(bytes.decode(ids), chat_text(chat, messages, {}));
        return std::count(ids.begin(), ids.end(), BYTE_IM_END);
    };
    EXPECT_EQ(ends(false), 1);
    EXPECT_EQ(ends(true), 2);
}

// Without special tokens in what is said, the safe way gives the same ids, though merges cross from the
// template into the content.
TEST(EncodeChat, IsTheEncodingOfTheWholeText) {
    if (!has_tokenizer(QWEN3)) GTEST_SKIP() << QWEN3 << " is not there";
    const auto tokenizer = load_tokenizer(QWEN3);
    const ChatTemplate chat = choose_chat_template("auto", "sdar", *tokenizer);
    const std::vector<Message> messages = {{.role = "user", .content = "\n\nHi"},
                                           {.role = "assistant", .content = "<think>\nno\n</think>\n\nHo\n"},
                                           {.role = "user", .content = "\n"}};
    for (const bool thinking : {true, false}) {
        const auto safe = encode_chat(*tokenizer, chat, messages, {.thinking = thinking});
        EXPECT_EQ(safe,
                  encode_chat(*tokenizer, chat, messages, {.thinking = thinking, .parse_special = true}));
    }
}

std::string encode_file(const std::string& content, const Tokenizer& tokenizer, const ChatTemplate& chat) {
    const std::string path = temporary("encode.jsonl");
    write_file_atomic(path, content);
    char* text = nullptr;
    size_t size = 0;
    FILE* out = open_memstream(&text, &size);
    std::string answer;
    try {
        encode_jsonl(path, tokenizer, chat, out);
        fflush(out);
        answer = std::string(text, size);
    } catch (const Error& error) {
        EXPECT_EQ(error.code, Exit::BadFile);
        answer = error.what();
    }
    fclose(out);
    free(text);
    return answer;
}

TEST(EncodeFile, TextsAndChats) {
    const Tokenizer bytes(byte_tokenizer_definition());
    const ChatTemplate chat = choose_chat_template("qwen3", "", bytes);
    EXPECT_EQ(encode_file("{\"text\": \"a<|im_end|>\"}\n{\"text\": \"\"}\n", bytes, chat),
              "{\"ids\":[97,258]}\n{\"ids\":[]}\n");
    const std::string answer = encode_file(
        R"({"messages": [{"role": "user", "content": "x"}], "enable_thinking": false})", bytes, chat);
    const auto ids = Json::parse(answer)["ids"].get<std::vector<int>>();
    EXPECT_EQ(bytes.decode(ids),
              "<|im_start|>user\nx<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n");
    EXPECT_NE(encode_file("{\"text\": \"a\"}\n{\"txt\": \"a\"}\n", bytes, chat)
                  .find("encode.jsonl:2: expected an object"),
              std::string::npos);
    EXPECT_NE(encode_file("[1]\n", bytes, chat).find("encode.jsonl:1"), std::string::npos);
    EXPECT_NE(encode_file("{\"text\": 5}\n", bytes, chat).find("text"), std::string::npos);
}

TEST(EncodeFile, GivesTheIdsOfTheGoldenFile) {
    if (!has_tokenizer(QWEN3)) GTEST_SKIP() << QWEN3 << " is not there";
    const auto tokenizer = load_tokenizer(QWEN3);
    const std::string golden = read_text("../shared/fixtures/tokenizer_qwen3.jsonl");
    std::string want;
    read_jsonl("../shared/fixtures/tokenizer_qwen3.jsonl", [&](const Json& line, const std::string&) {
        want += "{\"ids\":" + line["ids"].dump() + "}\n";
    });
    EXPECT_EQ(encode_file(golden, *tokenizer, choose_chat_template("auto", "", *tokenizer)), want);
}

}  // namespace
