// Replay and SFT files: what is read, and one clear line for everything that is wrong with them.
#include <gtest/gtest.h>

#include <cstdio>
#include <fstream>

#include "tests/temporary_folder.h"
#include "train/record.h"
#include "train/sft_example.h"
#include "utils/error.h"
#include "utils/json.h"

namespace {

constexpr RecordLimits LIMITS = {.V = 20, .max_positions = 16, .block = 4, .has_value_model = false};

// A file with this text, until the next one.
std::string file_of(const std::string& text) {
    static const TemporaryFolder folder;
    std::ofstream(folder.file("records.jsonl")) << text;
    return folder.file("records.jsonl");
}

// The message, or "" where the file was accepted.
template <class Read>
std::string fault_of(const std::string& text, const Read& read) {
    try {
        read(file_of(text));
        return "";
    } catch (const Error& e) {
        EXPECT_EQ(e.code, Exit::BadFile);
        EXPECT_EQ(std::string(e.what()).find('\n'), std::string::npos) << "more than one line";
        return e.what();
    }
}
std::string replay_fault(const std::string& text, RecordLimits limits = LIMITS) {
    return fault_of(text, [&](const std::string& path) { read_records(path, limits); });
}
std::string sft_fault(const std::string& text, RecordLimits limits = LIMITS) {
    return fault_of(text, [&](const std::string& path) { read_sft_examples(path, limits); });
}

#define EXPECT_FAULT(fault, ...)                                                                            \
    do {                                                                                                    \
        const std::string message = (fault);                                                                \
        for (const char* part : {__VA_ARGS__}) EXPECT_NE(message.find(part), std::string::npos) << message; \
    } while (0)

// A sound record with one field replaced ("": removed).
std::string record_with(const std::string& field = "", const std::string& value = "") {
    Json json = {{"prompt_ids", {1, 2, 3, 4, 5}},
                 {"response_ids", {6, 7, 8, 9}},
                 {"step_map", {2, 1, 1, 4}},
                 {"tail_ids", {3, -1}},
                 {"reward", 1}};
    json["tail_ids"] = {3, -1, 2};
    json["tail_steps"] = {5, -1, 4};
    if (value.empty())
        json.erase(field);
    else
        json[field] = "@";
    std::string text = json.dump();
    if (!value.empty()) text.replace(text.find("\"@\""), 3, value);
    return text + "\n";
}

}  // namespace

TEST(Record, ReadsWhatItWrites) {
    const std::string text =
        R"({"group": 3, "prompt_ids": [1,2,3], "response_ids": [4,5], "step_map": [1,3], "tail_ids": [9,-1,7], "tail_steps": [2,-1,4],)"
        R"( "reward": 0.5, "old_logprobs": [-1,-2.5], "old_values": [0.25, 1], "token_rewards": [0, -1]})";
    RecordLimits limits = LIMITS;
    limits.has_value_model = true;
    const std::vector<Record> a = read_records(file_of("\n" + text + "\n\n"), limits);
    ASSERT_EQ(a.size(), 1u);
    EXPECT_EQ(a[0].group, 3);
    EXPECT_EQ(a[0].tail_ids, (std::vector<int>{9, NEVER, 7}));
    EXPECT_EQ(a[0].token_rewards, (std::vector<double>{0, -1}));
    EXPECT_EQ(to_json(a[0]), to_json(read_records(file_of(dump(to_json(a[0]))), limits)[0]));
}

TEST(Record, TakesALineOfAGeneration) {
    Trajectory t;
    t.prompt_ids = {1, 2, 3};
    t.output_ids = {4, 5};
    t.step_map = {1, 2};
    t.logprobs = {-0.5f, -1.5f};
    t.tail_ids = {3, 3, 3};
    t.tail_steps = {2, 2, 3};
    Json json = to_json(t);
    json["reward"] = 1;
    const Record r = read_records(file_of(json.dump()), LIMITS)[0];
    EXPECT_EQ(to_json(r), to_json(to_record(t, 1, 0)));
    EXPECT_EQ(r.old_logprobs, (std::vector<double>{-0.5, -1.5}));
    // Of an approximate cache the log-probs are not those of the states that are trained.
    t.cache = "dual";
    Json cached = to_json(t);
    cached["reward"] = 1;
    EXPECT_EQ(cached["logprobs"], json["logprobs"]);
    EXPECT_TRUE(read_records(file_of(cached.dump()), LIMITS)[0].old_logprobs.empty());
    Json guided = json;
    guided["cfg_scale"] = 0;
    EXPECT_EQ(read_records(file_of(guided.dump()), LIMITS)[0].old_logprobs,
              read_records(file_of(json.dump()), LIMITS)[0].old_logprobs);
    guided["cfg_scale"] = 1.5;
    EXPECT_TRUE(read_records(file_of(guided.dump()), LIMITS)[0].old_logprobs.empty());
    EXPECT_TRUE(to_record(t, 1, 0).old_logprobs.empty());
    cached["old_logprobs"] = {-2, -3};  // somebody computed them
    cached.erase("logprobs");
    EXPECT_EQ(read_records(file_of(cached.dump()), LIMITS)[0].old_logprobs, (std::vector<double>{-2, -3}));
    json["response_ids"] = {4, 5};
    EXPECT_FAULT(replay_fault(json.dump()), ":1:", "response_ids", "output_ids");
}

TEST(Record, ScalarAndPerTokenAdvantagesMayMix) {
    const std::string one = R"({"prompt_ids": [1], "response_ids": [4,5], "step_map": [1,2], "advantage": )";
    const std::vector<Record> a = read_records(file_of(one + "0.5}\n" + one + "[1, -1]}\n"), LIMITS);
    EXPECT_EQ(a[0].advantage, (std::vector<double>{0.5}));
    EXPECT_EQ(a[1].advantage, (std::vector<double>{1, -1}));
}

TEST(Record, HostileFields) {
    EXPECT_EQ(replay_fault(record_with("group", "7")), "");
    for (const char* field : {"prompt_ids", "response_ids", "step_map", "reward"})
        EXPECT_FAULT(replay_fault(record_with("group", "7") + record_with(field)), ":2:", field, "missing");
    EXPECT_FAULT(replay_fault(record_with("prompt_ids", "[1, 20]")), ":1:", "prompt_ids'[1] is 20", "19");
    EXPECT_FAULT(replay_fault(record_with("response_ids", "[6, 7, -1, 9]")), "response_ids'[2] is -1");
    EXPECT_FAULT(replay_fault(record_with("response_ids", "[6, 7, 99999999999999999999, 9]")),
                 "response_ids'[2]");
    EXPECT_FAULT(replay_fault(record_with("response_ids", "[6, 7, 1.5, 9]")), "response_ids'[2] is 1.5");
    EXPECT_FAULT(replay_fault(record_with("response_ids", "\"abc\"")), "response_ids", "list");
    EXPECT_FAULT(replay_fault(record_with("step_map", "[2, 0, 1, 4]")), "step_map'[1] is 0", "a step");
    EXPECT_FAULT(replay_fault(record_with("step_map", "[2, 1, 1]")), "step_map", "3 entries, expected 4");
    EXPECT_FAULT(replay_fault(record_with("tail_ids")), "tail_ids", "tail_steps");
    EXPECT_FAULT(replay_fault(record_with("tail_steps", "[5, -1]")), "tail_steps", "2 entries, expected 3");
    EXPECT_FAULT(replay_fault(record_with("tail_steps", "[5, 0, 4]")), "tail_steps'[1] is 0");
    EXPECT_FAULT(replay_fault(record_with("tail_steps", "[5, 5, 4]")), "tail_ids[1] is -1");
    EXPECT_FAULT(replay_fault(record_with("tail_ids", "[3, -1, 20]")), "tail_ids'[2] is 20");
    EXPECT_FAULT(replay_fault(record_with("old_logprobs", "[-1, -1, NaN, -1]")), ":1:");
    EXPECT_FAULT(replay_fault(record_with("old_logprobs", "[-1, -1, 1e999, -1]")), ":1:");
    EXPECT_FAULT(replay_fault(record_with("old_logprobs", "[-1, -1, null, -1]")), "old_logprobs'[2] is null");
    EXPECT_FAULT(replay_fault(record_with("old_logprobs", "[-1, -1]")), "old_logprobs",
                 "2 entries, expected 4");
    EXPECT_FAULT(replay_fault(record_with("reward", "\"good\"")), "reward", "good");
    EXPECT_FAULT(replay_fault(record_with("group", "0.5")), "group", "0.5");
    EXPECT_FAULT(replay_fault(""), "empty");
    EXPECT_FAULT(replay_fault("\n \n"), "empty");
    EXPECT_FAULT(replay_fault("[1, 2]\n"), ":1:", "object");
    EXPECT_FAULT(replay_fault("{\"prompt_ids\": [1,\n"), ":1:");
    EXPECT_FAULT(replay_fault(R"({"prompt_ids": [1], "response_ids": [], "step_map": [], "reward": 1})"),
                 "empty");
}

TEST(Record, TooLong) {
    const auto record = [](int prompt) {
        Json json = {{"response_ids", {1, 2}}, {"step_map", {1, 2}}, {"reward", 0}};
        json["prompt_ids"] = std::vector<int>(size_t(prompt), 1);
        return json.dump();
    };
    EXPECT_EQ(replay_fault(record(14)), "");
    EXPECT_FAULT(replay_fault(record(15)), "20 positions", "16");  // the last block ends at 20
    EXPECT_FAULT(
        replay_fault(
            R"({"prompt_ids": [1,2], "response_ids": [3], "step_map": [1], "tail_ids": [4,4], "tail_steps": [1,1], "reward": 1})"),
        "tail_ids", "2 entries", "only 1");
    // Of a canvas the tail may be as long as it likes, within the positions.
    RecordLimits canvas = LIMITS;
    canvas.block = 0;
    const auto with_tail = [](int tail) {
        Json json = {{"response_ids", {1, 2}}, {"step_map", {1, 2}}, {"reward", 0}};
        json["prompt_ids"] = std::vector<int>(4, 1);
        json["tail_ids"] = json["tail_steps"] = std::vector<int>(size_t(tail), 3);
        return json.dump();
    };
    EXPECT_EQ(replay_fault(with_tail(10), canvas), "");
    EXPECT_FAULT(replay_fault(with_tail(11), canvas), "17 positions", "16");
}

TEST(Record, BlocksFollowEachOther) {
    // Blocks of 4: positions 5..7 and 8; the tail is in the second one.
    EXPECT_FAULT(replay_fault(record_with("step_map", "[2, 1, 4, 4]")), "step_map'[3] is 4", "step 4",
                 "--block");
    EXPECT_FAULT(replay_fault(record_with("tail_steps", "[5, -1, 2]")), "tail_steps'[2] is 2");
    RecordLimits canvas = LIMITS;
    canvas.block = 0;
    EXPECT_EQ(replay_fault(record_with("step_map", "[9, 1, 4, 2]"), canvas), "");
}

TEST(Record, SignalsAreTheSameInAllRecords) {
    RecordLimits value = LIMITS;
    value.has_value_model = true;
    const std::string reward = record_with("group", "7"), both = record_with("advantage", "0.5"),
                      tokens = record_with("token_rewards", "[0,0,1,1]");
    EXPECT_FAULT(replay_fault(both + reward), ":2:", "advantage");
    EXPECT_FAULT(replay_fault(both + both, value), ":1:", "advantage", "value model");
    EXPECT_FAULT(replay_fault(tokens), ":1:", "token_rewards", "--value-model");
    EXPECT_FAULT(replay_fault(tokens + reward, value), ":2:", "token_rewards");
    EXPECT_EQ(replay_fault(both + both), "");
    EXPECT_EQ(replay_fault(tokens + tokens, value), "");
}

TEST(SftExample, Hostile) {
    const auto line = [](const std::string& copies, const std::string& prompt = "[1,2,3,4,5]") {
        return "{\"prompt_ids\": " + prompt + ", \"response_ids\": [6,7,8,9], \"copies\": " + copies + "}\n";
    };
    EXPECT_EQ(sft_fault(line(R"([{"masked": [0, 2]}, {"masked": [3], "weight": 0.5}])")), "");
    EXPECT_FAULT(sft_fault(line("[]")), "copies");
    EXPECT_FAULT(sft_fault(line("[3]")), "copies[0]", "object");
    EXPECT_FAULT(sft_fault(line(R"([{"masked": [0]}, {"masked": [2, 3]}])")), ":1: copies[1]", "index 3",
                 "block of 4");
    EXPECT_FAULT(sft_fault(line(R"([{"masked": [0, 1], "targets": [3]}])")), "same block");
    EXPECT_FAULT(sft_fault(line(R"([{"masked": [4]}])")), "masked'[0] is 4");
    EXPECT_FAULT(sft_fault(line(R"([{"masked": [1, 1]}])")), "index 1 twice");
    EXPECT_FAULT(sft_fault(line(R"([{"weight": 1}])")), "trains nothing");
    EXPECT_FAULT(sft_fault(line(R"([{"masked": [1], "causal": true}])")), "causal");
    EXPECT_FAULT(sft_fault(line(R"([{"targets": [0], "causal": true}])", "[]")), "prompt is empty");
    EXPECT_FAULT(sft_fault(line(R"([{"masked": [1], "weight": "x"}])")), "weight");
    EXPECT_FAULT(sft_fault(line(R"([{"masked": [1]}])", "[20]")), "prompt_ids'[0] is 20");
    EXPECT_FAULT(sft_fault("{\"prompt_ids\": [1], \"response_ids\": [], \"copies\": []}"), "response_ids",
                 "empty");
    EXPECT_FAULT(sft_fault(""), "empty");
}
