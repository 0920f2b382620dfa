// The `infer` program as it is typed: exit codes, what goes to stdout, what it says about mistakes. Skipped
// where it is not built.
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <fstream>
#include <sstream>

#include "tests/programs.h"
#include "tests/temporary_folder.h"
#include "tests/text_engine.h"
#include "utils/files.h"
#include "utils/json.h"
#include "weights_tools/model_folder.h"

namespace {

class InferProgram : public testing::Test {
  protected:
    // A random byte-tokenizer model in a folder of its own, for all tests.
    static void SetUpTestSuite() {
        folder_ = temporary("model");
        make_folders(folder_);
        const RandomModel model(byte_model_config());
        save_model_folder(folder_, model.weights, model.config, "", DType::F32, *model.ops);
        canvas_folder_ = temporary("canvas");
        make_folders(canvas_folder_);
        ModelConfig c = byte_model_config();
        c.family = Family::Llada, c.full_attention = true, c.qk_norm = false, c.HD = c.C / c.NH;
        const RandomModel canvas(c);
        save_model_folder(canvas_folder_, canvas.weights, canvas.config, "", DType::F32, *canvas.ops);
    }
    void SetUp() override {
        if (!file_exists(program("infer"))) GTEST_SKIP() << program("infer") << " is not built";
    }

    static Outcome run(const std::string& arguments, const std::string& input = "") {
        return run_command(program("infer") + " --threads 1 --device cpu " + arguments, input);
    }
    static Outcome with_canvas(const std::string& arguments, const std::string& input = "") {
        return run("--model " + canvas_folder_ + " " + arguments, input);
    }
    static Outcome with_model(const std::string& arguments, const std::string& input = "") {
        return run("--model " + folder_ + " " + arguments, input);
    }
    static std::string folder_, canvas_folder_;
};
std::string InferProgram::folder_, InferProgram::canvas_folder_;

bool contains(const std::string& text, const std::string& part) {
    return text.find(part) != std::string::npos;
}

}  // namespace

TEST_F(InferProgram, TextGoesToStdoutAndEverythingElseToStderr) {
    const Outcome text = with_model("--prompt abc --gen-length 12"),
                  json = with_model("--prompt abc --gen-length 12 --json");
    EXPECT_EQ(text.code, 0);
    ASSERT_EQ(json_lines(json.out).size(), 1u);
    EXPECT_EQ(text.out, json_lines(json.out)[0]["text"].get<std::string>() + "\n");
    EXPECT_EQ(json_lines(json.out)[0]["prompt_ids"], Json({97, 98, 99}));
    EXPECT_TRUE(contains(text.err, "tokens per forward"));
    EXPECT_EQ(with_model("--prompt abc --gen-length 12 --quiet").err, "");
    // The same prompt from a file, from a pipe, and as ids.
    const std::string file = temporary("prompt.txt");
    write_file_atomic(file, "abc\n");
    EXPECT_EQ(with_model("--file " + file + " --gen-length 12").out, text.out);
    EXPECT_EQ(with_model("--gen-length 12", "abc\n").out, text.out);
    EXPECT_EQ(with_model("--gen-length 12",
                         "\xEF\xBB\xBF"
                         "abc\r\n")
                  .out,
              text.out)
        << "as Windows has it";
    EXPECT_EQ(with_model("--prompt-ids 97,98,99 --gen-length 12").out, text.out);
}

TEST_F(InferProgram, JsonLinesAreAnsweredInTheirOrder) {
    const std::string input =
        "{\"prompt\": \"a much longer prompt than the others have\", \"id\": \"x\"}\n"
        "{\"prompt_ids\": [97, 98, 99]}\n{\"messages\": [{\"role\": \"user\", \"content\": \"hi\"}], \"id\": "
        "[3]}\n";
    const std::string flags = "--input - --json --gen-length 9 --temperature 1 --num-samples 2 --max-active ";
    const Outcome wide = with_model(flags + "8", input), narrow = with_model(flags + "1", input);
    ASSERT_EQ(wide.code, 0) << wide.err;
    const std::vector<Json> a = json_lines(wide.out), b = json_lines(narrow.out);
    ASSERT_EQ(a.size(), 6u);
    ASSERT_EQ(b.size(), 6u);
    for (size_t i = 0; i < 6; i++) {
        EXPECT_EQ(a[i]["sample"], i % 2);
        EXPECT_EQ(a[i]["output_ids"], b[i]["output_ids"]);
        EXPECT_EQ(a[i]["logprobs"], b[i]["logprobs"]);
    }
    EXPECT_EQ(a[0]["id"], "x");
    EXPECT_FALSE(a[2].contains("id"));
    EXPECT_EQ(a[4]["id"], Json({3}));
    EXPECT_NE(a[0]["output_ids"], a[1]["output_ids"]);
}

// Each line is answered as a run of its own answers it, whose flags say what the line says.
TEST_F(InferProgram, LinesHaveOptionsOfTheirOwn) {
    const struct {
        const char *line, *flags;
    } asked[] = {
        {R"({"prompt": "abc", "gen_length": 12, "temperature": 1, "top_k": 5, "block": 8, "steps": 4,
             "remasking": "low_confidence_static", "confidence": "filtered", "seed": 7, "answer": "42"})",
         "--prompt abc --gen-length 12 --temperature 1 --top-k 5 --block 8 --steps 4 --seed 7 "
         "--remasking low_confidence_static --confidence filtered"},
        {R"({"prompt_ids": [97, 98, 99, 100, 101], "max_tokens": 21, "temp": 0.7, "top_p": 0.8, "threshold": 0.02,
             "num_samples": 2, "seed": 9, "stop_ids": [97, 98], "stop": null})",
         "--prompt-ids 97,98,99,100,101 --gen-length 21 --temperature 0.7 --top-p 0.8 --threshold 0.02 "
         "--num-samples 2 --seed 9 --stop-ids 97,98"},
        {R"({"prompt": "a b", "preset": "sdar", "top_k": 3, "gen_length": 9, "ignore_eos": true, "seed": 3})",
         "--prompt 'a b' --preset sdar --top-k 3 --gen-length 9 --ignore-eos --seed 3"},
        {R"({"prompt": "eb", "remasking": "entropy_bounded", "eb_threshold": 8})",
         "--prompt eb --remasking entropy_bounded --eb-threshold 8 --gen-length 30"},
    };
    std::string lines;
    std::vector<Json> alone;
    for (const auto& a : asked) {
        lines += dump(Json::parse(a.line)) + "\n";
        const Outcome r = with_model(std::string("--json ") + a.flags);
        ASSERT_EQ(r.code, 0) << r.err;
        for (const Json& line : json_lines(r.out)) alone.push_back(line);
    }
    const Outcome together = with_model("--input - --json --gen-length 30", lines);
    ASSERT_EQ(together.code, 0) << together.err;
    const std::vector<Json> got = json_lines(together.out);
    ASSERT_EQ(got.size(), alone.size());
    for (size_t i = 0; i < got.size(); i++)
        for (const char* key : {"sample", "prompt_ids", "output_ids", "step_map", "logprobs", "tail_ids",
                                "tail_steps", "finish_reason"})
            EXPECT_EQ(got[i][key], alone[i][key]) << i << " " << key;
    // Its own answers are lines that it takes.
    const Outcome again = with_model("--input - --json --gen-length 30", together.out);
    EXPECT_EQ(again.code, 0) << again.err;
}

TEST_F(InferProgram, MistakesInALineAreNamedWithIt) {
    const std::pair<const char*, const char*> faults[] = {
        {R"("temperature": "hot")", ":2: field 'temperature' is \"hot\", expected a number"},
        {R"("temperature": -1)", ":2: field 'temperature' is -1, expected a number from 0 to 1000000"},
        {R"("top_p": 0)", ":2: field 'top_p' is 0, expected a number from 1e-06 to 1"},
        {R"("threshold": 2)", ":2: field 'threshold' is 2, expected a number from 0 to 1"},
        {R"("top_k": 1.5)", ":2: field 'top_k' is 1.5, expected an integer"},
        {R"("max_tokens": 0)", ":2: field 'max_tokens' is 0, expected an integer from 1 to 16777216"},
        {R"("steps": 9, "block": 8)", ":2: steps 9: 1 to the block length, 8"},
        {R"("stop_ids": [1, 999])", ":2: stop_ids 999: ids run from 0 to "},
        {R"("stop_ids": [1, "a"])", ":2: field 'stop_ids' is [1, \"a\"], expected a list, each an integer"},
        {R"("stop_ids": {})", ":2: field 'stop_ids' is \"{}\", expected a list, each an integer"},
        {R"("seed": -1)", ":2: field 'seed' is -1, expected an integer, 0 or more"},
        {R"("remasking": "best")",
         ":2: field 'remasking' is \"best\", expected one of low_confidence_static, "},
        {R"("preset": 1)", ":2: field 'preset' is 1, expected one of sdar, "},
        {R"("draw": "lots")", ":2: field 'draw' is \"lots\", expected one of inverse, gumbel"},
        {R"("eps": 1)", ":2: field 'eps' is 1, expected a number from 0 to 0.999999"},
        {R"("alg_temp": -1)", ":2: field 'alg_temp' is -1, expected a number from 0 to 1000000"},
        {R"("num_samples": 0)", ":2: field 'num_samples' is 0, expected an integer from 1 to 1048576"},
        {R"("ignore_eos": 1)", ":2: field 'ignore_eos' is 1, expected true or false"},
        {R"("seed": 18446744073709551615, "temperature": 1, "top_k": 5.0, "block": 0)", ""},
        {R"("cfg_scale": 2)", ":2: cfg_scale 2: it takes a full-attention model"},
        {R"("reveal-schedule": "timesteps")", ":2: reveal-schedule timesteps (which preset dream has): "},
        {R"("infill": true)", ":2: infill: a gap must see what comes after it"},
        {R"("gen_length": 300)",
         ":2: a prompt of 1 and gen_length 300 take 304 positions, the model has 256"},
        {R"("ignore_eos": true, "stop_ids": [1])", ":2: 'ignore_eos' and 'stop_ids' exclude each other"},
        {R"("ignore_eos": true, "stop-ids": [1])", ":2: 'ignore_eos' and 'stop-ids' exclude each other"},
        {R"("gen_length": 8, "max_tokens": 8)", ":2: 'gen_length' and 'max_tokens' are the same option"},
        {R"("temperature": 1e-39)", ":2: temperature 1e-39: 0 (greedy), or 1e-06 and more"},
        {R"("Temprature": 1)", ":2: unknown key 'Temprature'; did you mean 'temperature'?"},
        {R"("temperature": 1, "top-k": 1)", ""},  // as on the command line
        {R"("top_k": 5)", ":2: top_k: has no effect at temperature 0, which is greedy; raise that"},
        {R"("temp": 0, "top_p": 0.9)", ":2: top_p: has no effect at temp 0, which is greedy"},
        {R"("preset": "sdar", "temperature": 0, "draw": "gumbel")", ":2: draw: has no effect at temperature"},
        {R"("remasking": "sequential", "threshold": 0.5)", ":2: threshold: is for remasking low_confidence_"},
        {R"("alg_temp": 1)", ":2: alg_temp: is for remasking low_confidence_static, "},
        {R"("eb-threshold": 1)", ":2: eb-threshold: is for remasking entropy_bounded; add that"},
        {R"("further_horizon": 1)", ":2: further_horizon: is for cache prefix; add that"},
        {R"("num_samples": 2)", ":2: num_samples 2: at temperature 0 or top_k 1 they would all be the same"},
        {R"("num_samples": 2, "remasking": "random", "top_k": null)", ""},
        {R"("topk": 1)", ":2: unknown key 'topk'; did you mean 'top_k'?"},
        {R"("max_token": 1)", ":2: unknown key 'max_token'; did you mean 'max_tokens'?"},
        {R"("Max_Tokens": 1)", ":2: unknown key 'Max_Tokens'; did you mean 'max_tokens'?"},
        {R"("confidence_treshold": 1)",
         ":2: unknown key 'confidence_treshold'; did you mean 'confidence_threshold'?"},
        {R"("kv_slot": 64)", ":2: unknown key 'kv_slot'; did you mean 'kv_slots'?"},
        {R"("max_batch": 1)",
         ":2: 'max_batch' is the same for all lines; give it on the command line (--max-active)"},
        {R"("thinking": false)",
         ":2: 'thinking' is the same for all lines; give it on the command line (--thinking)"},
        {R"("chat_template": "raw")",
         ":2: 'chat_template' is the same for all lines; give it on the command line (--chat-template)"},
        {R"("n": 3, "N": 3, "max": 1, "block_size": 2, "thought": "x", "kv": 1)", ""},
        {R"("thread": "a forum's", "thinking": "First, ...")", ""},  // a data set's
        {R"("step": 1, "stop": "x", "present": 1, "answer": 3, "reward": -1, "input": "", "model": "x")",
         ""}};
    for (const auto& [fields, message] : faults) {
        const Outcome r =
            with_model("--input - --gen-length 4 --dry-run",
                       std::string("{\"prompt\": \"b\"}\n{\"prompt\": \"a\", ") + fields + "}\n");
        EXPECT_EQ(r.code, *message ? 3 : 0) << fields << r.err;
        EXPECT_TRUE(contains(r.err, message)) << fields << ": " << r.err;
        if (*message) {
            EXPECT_EQ(std::count(r.err.begin(), r.err.end(), '\n'), 1) << r.err;
        }
    }
}

// Those of all lines, of every kind, before anything is answered; and all of one line's.
TEST_F(InferProgram, FaultyLinesAreNamedTogether) {
    const std::string faulty =
        "{\"prompt\": \"a\"}\n{\"prompt\": \"a\"\n\n{\"text\": \"a\"}\n{\"prompt\": \"a\", \"max_tokens\": "
        "300}\n"
        "{\"prompt\": \"a\", \"top_k\": 5, \"steps\": 9, \"block\": 8}\n{\"prompt_ids\": [1, 999]}\n";
    std::string input = faulty;
    Outcome r = with_model("--input - --json --gen-length 4", input);
    EXPECT_EQ(r.code, 3);
    EXPECT_EQ(r.out, "");
    EXPECT_EQ(std::count(r.err.begin(), r.err.end(), '\n'), 6) << r.err;
    for (const char* part :
         {"stdin:2:", "stdin:4: give one of", "stdin:5: a prompt of 1 and max_tokens 300 take 304",
          "stdin:6: top_k: has no effect", "stdin:6: steps 9: 1 to", "stdin:7: field 'prompt_ids'"})
        EXPECT_TRUE(contains(r.err, part)) << part << "\n" << r.err;
    for (int i = 0; i < 9; i++) input += faulty;
    r = with_model("--input - --json --gen-length 4", input);
    EXPECT_EQ(r.code, 3);
    EXPECT_TRUE(contains(r.err, "stdin:14: field 'prompt_ids'")) << r.err;
    EXPECT_TRUE(contains(r.err, "stdin: 40 more are at fault\n")) << r.err;
    EXPECT_EQ(std::count(r.err.begin(), r.err.end(), '\n'), 13) << r.err;
    // What only shows when the cache is planned; a line's samples are one line.
    r = with_model("--input - --gen-length 100 --kv-slots 64 --temperature 1 --num-samples 3",
                   "{\"prompt\": \"a\"}\n{\"prompt\": \"b\", \"gen_length\": 8}\n{\"prompt\": \"c\"}\n");
    EXPECT_EQ(r.code, 4);
    EXPECT_EQ(std::count(r.err.begin(), r.err.end(), '\n'), 2) << r.err;
    for (const char* part : {"stdin:1: a prompt of 1 and --gen-length 100 take", "stdin:3: "})
        EXPECT_TRUE(contains(r.err, part)) << r.err;
}

// An option on the command line that no line is answered by is told, and no fault: the next file may be another.
TEST_F(InferProgram, OptionsThatNoLineIsAnsweredByAreTold) {
    const auto said = [&](const std::string& flags, const std::string& lines) {
        const Outcome r = with_model("--input - --gen-length 4 --dry-run --json " + flags, lines);
        EXPECT_EQ(r.code, 0) << r.err;
        return r.err;
    };
    const std::string plain = R"({"prompt": "a"})", hot = R"({"prompt": "b", "temperature": 1})",
                      own = R"({"prompt": "c", "temperature": 1, "top_k": 5, "seed": 1})";
    EXPECT_EQ(
        said("--top-k 5", plain + "\n" + own + "\n"),
        "warning: --top-k: has no effect at --temperature 0, which is greedy; raise that (so it is for all "
        "lines of /dev/stdin)\n")
        << "one line is greedy, the other has its own";
    EXPECT_EQ(said("--top-k 5 --seed 3", own),
              "warning: --top-k: every line of /dev/stdin has its own\n"
              "warning: --seed: every line of /dev/stdin has its own\n");
    EXPECT_EQ(
        said("--num-samples 2 --threshold 0.5", plain),
        "warning: --num-samples 2: at --temperature 0 or --top-k 1 they would all be the same (so it is for "
        "all lines of /dev/stdin)\n");
    EXPECT_EQ(said("--top-k 5 --seed 3 --num-samples 2", plain + "\n" + hot + "\n" + own + "\n"), "");
    const std::string system = said("--system s", R"({"messages": [{"role": "user", "content": "a"}]})");
    EXPECT_TRUE(contains(system, "warning: --system: stands in front of a 'prompt'")) << system;
    EXPECT_EQ(said("--system s", plain), "");
}

// What a line may change is not judged by the command line alone; a file is a file, whatever its name.
TEST_F(InferProgram, LinesMayGiveAnOptionItsMeaning) {
    Outcome r = with_model("--input - --gen-length 4 --num-samples 2 --top-k 5 --dry-run",
                           "{\"prompt\": \"b\", \"temperature\": 1}\n");
    EXPECT_EQ(r.code, 0) << r.err;
    const std::string ignoring = "--ignore-eos --gen-length 4 --json ";
    const Json whole = json_lines(with_model(ignoring + "--prompt b").out)[0];
    r = with_model(ignoring + "--input -",
                   "{\"prompt\": \"b\", \"stop_ids\": [" + dump(whole["output_ids"][1]) + "]}\n");
    ASSERT_EQ(r.code, 0) << r.err;
    EXPECT_EQ(whole["finish_reason"], "length");
    EXPECT_EQ(json_lines(r.out)[0]["finish_reason"], "stop");
    r = with_canvas("--input - --infill --gen-length 4 --dry-run",
                    "{\"prompt\": \"b\", \"infill\": false}\n");
    EXPECT_EQ(r.code, 0) << r.err;
    r = with_canvas("--input - --infill", "{\"prompt_ids\": [263], \"max_tokens\": 4}\n");
    EXPECT_TRUE(contains(r.err, ":1: max_tokens: a text with gaps is taken as it is with infill")) << r.err;
    r = with_model("--file - --gen-length 4");
    EXPECT_EQ(r.code, 3) << r.err;
    EXPECT_TRUE(contains(r.err, "-: ")) << r.err;
}

TEST_F(InferProgram, MistakesAreNamedTogether) {
    Outcome r = with_model("--prompt a --threshold 2 --top-p 0 --steps 9");
    EXPECT_EQ(r.code, 2);
    for (const char* part : {"--threshold 2", "--top-p 0", "--steps 9"})
        EXPECT_TRUE(contains(r.err, part)) << r.err;
    r = with_model("--prompt a --file b");
    EXPECT_EQ(r.code, 2);
    EXPECT_EQ(with_model("--prompt a --cache exact --gen-length 8").code, 0);
    EXPECT_EQ(with_model("--prompt a --cache none --gen-length 8").code, 2);
    EXPECT_EQ(with_model("").code, 2);  // nothing to answer
    EXPECT_EQ(run("--model /nonexistent --prompt a").code, 3);
    EXPECT_EQ(with_model("--prompt-ids 1,2,999").code, 2);
    r = with_model("--input - --json", "{\"prompt\": \"a\"}\n{\"text\": \"b\"}\n");
    EXPECT_EQ(r.code, 3);
    EXPECT_TRUE(contains(r.err, ":2: give one of 'prompt', 'messages' and 'prompt_ids'")) << r.err;
    EXPECT_EQ(r.out, "");
    r = with_model("--prompt aaaa --gen-length 300 --kv-slots 64");
    EXPECT_EQ(r.code, 2);  // more than the model's 256 positions
    r = with_model("--prompt aaaa --gen-length 100 --kv-slots 64");
    EXPECT_EQ(r.code, 4);
    EXPECT_TRUE(contains(r.err, "64")) << r.err;
}

// Those of the command line, of the model, of the prompt and of the files to write, one line each.
TEST_F(InferProgram, FaultsOfEveryKindAreListedTogether) {
    const auto lines = [](const Outcome& r) { return std::count(r.err.begin(), r.err.end(), '\n'); };
    Outcome r = with_model(
        "--prompt-ids 1,999 --temperature -1 --gen-length 0 --steps 9 --cache none --trace-html "
        "no_folder/t.html "
        "--device gpu --thinking maybe");
    EXPECT_EQ(r.code, 2);
    EXPECT_EQ(lines(r), 7) << r.err;
    for (const char* part : {"--temperature -1", "--gen-length 0", "--steps 9", "--cache none",
                             "no_folder/t.html: cannot write", "--device gpu", "--thinking maybe"})
        EXPECT_TRUE(contains(r.err, part)) << part << "\n" << r.err;
    r = run("--model no_model --tokenizer no_tokenizer --file no_prompt --top-p 2 --logits no_folder/l");
    EXPECT_EQ(r.code, 2);
    for (const char* part : {"no_model", "no_prompt", "--top-p 2", "no_folder/l: cannot write"})
        EXPECT_TRUE(contains(r.err, part)) << part << "\n" << r.err;
    r = with_model("--tokenizer no_tokenizer --prompt a --block 9 --steps 10 --stop-ids 999");
    EXPECT_EQ(r.code, 2);
    for (const char* part : {"no_tokenizer", "--steps 10", "--stop-ids 999"})
        EXPECT_TRUE(contains(r.err, part)) << part << "\n" << r.err;
    // None of them is a usage fault: the first one's code.
    r = run("--model no_model --file no_prompt");
    EXPECT_EQ(r.code, 3);
    EXPECT_EQ(lines(r), 2) << r.err;
}

TEST_F(InferProgram, FlagsWithoutEffectAreRefused) {
    const struct {
        const char *arguments, *fault;
    } cases[] = {
        {"--prompt a --infill --logits l", "--infill: --logits generates nothing"},
        {"--prompt a --logits l --trace-html t", "--trace-html: --logits generates nothing"},
        {"--prompt a --logits l --num-samples 2 --temperature 1", "--num-samples: --logits"},
        {"--prompt a --logits l --cfg-scale 1", "--cfg-scale: --logits generates nothing"},
        {"--prompt a --logits l --remasking factor", "--remasking: --logits generates nothing"},
        {"--encode e --visual", "--visual: --encode generates nothing"},
        {"--encode e --block 8", "--block: --encode generates nothing"},
        {"--prompt a --num-samples 2", "--num-samples 2: at --temperature 0"},
        {"--prompt a --temp 1e-39 --draw gumbel", "--temperature 1e-39: 0 (greedy), or 1e-06 and more"},
        {"--prompt a --top-k 5", "--top-k: has no effect at --temperature 0"},
        {"--prompt a --preset jetengine --temperature 0 --top-p 0.9", "--top-p: has no effect"},
        {"--prompt a --remasking sequential --threshold 0.5", "--threshold: is for --remasking"},
        {"--prompt a --eb-threshold 0.5", "--eb-threshold: is for --remasking entropy_bounded"},
        {"--prompt a --draw gumbel", "--draw: has no effect at --temperature 0"},
        {"--prompt a --eps 0.1", "--eps: is for --reveal-schedule timesteps"},
        {"--prompt a --order-temperature 0.5",
         "--order-temperature: is for --remasking low_confidence_static,"},
        {"--prompt a --remasking random --alg-temp 1",
         "--order-temperature: is for --remasking low_confidence_static,"},
        {"--prompt a --remasking origin --reveal-schedule even",
         "--reveal-schedule: --remasking origin has its"},
        {"--prompt a --remasking origin", "--remasking origin: is for full-attention models"},
        {"--prompt a --preset dream", "--reveal-schedule timesteps (which --preset dream has)"},
        {"--prompt a --preset dream", "--block 65536: the whole canvas"},
        {"--prompt a --cfg-scale 1", "--cfg-scale 1: it takes a full-attention model"},
        {"--prompt-ids 1 --system s", "--system: stands in front of a text"},
        {"--chat --trace-html t", "--trace-html: is for single answers"},
    };
    for (const auto& c : cases) {
        const Outcome r = with_model(c.arguments);
        EXPECT_EQ(r.code, 2) << c.arguments << r.err;
        EXPECT_TRUE(contains(r.err, c.fault)) << c.arguments << "\n" << r.err;
        for (const char* file : {"l", "t"}) EXPECT_FALSE(file_exists(file));
    }
}

// It holds every option, those that are empty too: they are no second prompt.
TEST_F(InferProgram, AWrittenConfigurationCanBeRun) {
    const std::string path = temporary("infer.toml");
    ASSERT_EQ(run("--gen-length 5 --dump-config " + path).code, 0);
    const Outcome written = with_model("--prompt a --config " + path);
    EXPECT_EQ(written.code, 0) << written.err;
    EXPECT_EQ(written.out, with_model("--prompt a --gen-length 5").out);
    EXPECT_EQ(with_model("--prompt-ids 1 --config " + path).code, 0);
    EXPECT_TRUE(contains(with_model("--prompt '' --prompt-ids 1").err, "exclude each other"));
    const Outcome named = run("--model no_model --encode no_texts --dump-config -");
    EXPECT_EQ(named.code, 0) << named.err;
    EXPECT_TRUE(contains(run("--encode no_texts --dump-config -").out, "no_texts"));
}

// Before a token is drawn; and a run that fails leaves no file, nor spoils the one that was there.
TEST_F(InferProgram, FilesThatCannotBeWrittenFailFirst) {
    const std::string page = temporary("kept.html"), folder = temporary("is_a_folder");
    make_folders(folder);
    const std::string work = "--prompt abc --gen-length 200 --num-samples 1000 --temperature 1 --trace-html ";
    for (const std::string& path : {std::string("no_folder/trace.html"), folder}) {
        const Outcome r = with_model(work + path);
        EXPECT_EQ(r.code, 1);
        EXPECT_EQ(r.out, "");
        EXPECT_TRUE(contains(r.err, path)) << r.err;
    }
    EXPECT_EQ(with_model("--prompt-ids 999 --trace-html " + page).code, 2);
    EXPECT_FALSE(file_exists(page));
    write_file_atomic(page, "before");
    EXPECT_EQ(with_model("--prompt-ids 999 --trace-html " + page).code, 2);
    EXPECT_EQ(read_text(page), "before");
}

// Their numbers must not go to the files that are opened first.
TEST_F(InferProgram, StandardStreamsThatAreClosed) {
    const std::string asked = "--prompt abc --gen-length 12 ";
    EXPECT_EQ(with_model(asked + "<&-").out, with_model(asked).out);
    EXPECT_TRUE(contains(with_model("--gen-length 12 <&-").err, "say what to answer"));
    const Outcome mute = with_model(asked + ">&-");
    EXPECT_EQ(mute.code, 1);
    EXPECT_TRUE(contains(mute.err, "cannot write to stdout")) << mute.err;
    EXPECT_EQ(with_model(asked + "2>&-").out, with_model(asked).out);
}

TEST_F(InferProgram, APlanOfLogitsWritesNone) {
    const std::string file = temporary("planned.safetensors");
    const Outcome r = with_model("--prompt abc --dry-run --json --logits " + file);
    ASSERT_EQ(r.code, 0) << r.err;
    EXPECT_GT(json_lines(r.out)[0]["bytes"]["logits"], 0);
    EXPECT_FALSE(file_exists(file));
}

TEST_F(InferProgram, DryRunPrintsThePlan) {
    const Outcome r =
        with_model("--prompt abc --dry-run --json --num-samples 3 --temperature 1 --gen-length 12");
    ASSERT_EQ(r.code, 0) << r.err;
    const Json plan = json_lines(r.out)[0];
    EXPECT_EQ(plan["max_active"], 3);
    EXPECT_EQ(plan["kv_slots"], 3 * 16);
    EXPECT_GT(plan["bytes"]["weights"], 0);
    EXPECT_EQ(plan["bytes_total"],
              plan["bytes"]["weights"].get<int64_t>() + plan["bytes"]["engine"].get<int64_t>());
    const std::string tensors = with_model("--prompt abc --gen-length 12 --dry-run").out;
    for (const char* part : {"layer 0 keys", "layer 1 gate up, packed", "lm head, packed"})
        EXPECT_TRUE(contains(tensors, part)) << part << " in:\n" << tensors;
}

TEST_F(InferProgram, PresetsAndFlagsOverThem) {
    const std::string flags = "--prompt abc --gen-length 16 --json --seed 5 ";
    const auto ids = [&](const std::string& more) {
        return json_lines(with_model(flags + more).out)[0]["output_ids"];
    };
    EXPECT_EQ(ids("--preset sdar"), ids("--temperature 1 --confidence filtered --threshold 0.85"));
    EXPECT_EQ(ids("--preset sdar --temperature 0"), ids("--threshold 0.85"));
    EXPECT_NE(ids("--preset sdar"), ids(""));
    EXPECT_EQ(ids("--preset llada"), ids("--remasking low_confidence"));
    EXPECT_EQ(ids("--preset llada --temperature 1"),
              ids("--alg maskgit_plus --temperature 1 --draw gumbel --confidence plain"));
    EXPECT_NE(ids("--preset llada --temperature 1"), ids("--preset llada --temperature 1 --draw inverse"));
    // At temperature 0 a random order is another answer every time.
    EXPECT_EQ(with_model("--prompt a --remasking random --num-samples 2 --gen-length 4").code, 0);
    EXPECT_EQ(with_model("--prompt a --preset nonesuch").code, 2);
}

// The block of the command line's preset is not the line's; a block that the command line gave is.
TEST_F(InferProgram, ALineWithAnotherPresetHasThatOnesBlock) {
    const std::string asked = "--gen-length 40 --json ";  // longer than the model's own block
    const auto answer = [](const Outcome& r) {
        return r.code == 0 ? json_lines(r.out)[0] : Json{{"step_map", r.err}, {"logprobs", 0}};
    };
    for (const char* block : {"", "--block 2 "}) {
        const Json alone = answer(with_canvas(asked + block + "--preset llada --prompt abc")),
                   line = answer(with_canvas(asked + block + "--preset dream --input -",
                                             R"({"prompt": "abc", "preset": "llada"})"));
        EXPECT_EQ(line["step_map"], alone["step_map"]) << block;
        EXPECT_EQ(line["logprobs"], alone["logprobs"]) << block;
    }
}

// Approximate caches of a full-attention model: for all lines, for one, by a preset; and who has none of them.
TEST_F(InferProgram, CachesOfACanvas) {
    const char* const flags[] = {"", "--cache prefix", "--cache prefix --further-horizon 2", "--cache dual"};
    const char* const fields[] = {R"("cache": null)", R"("cache": "prefix")",
                                  R"("cache": "prefix", "further-horizon": 2)", R"("cache": "dual")"};
    std::string lines;
    std::vector<Json> alone;
    for (size_t i = 0; i < 4; i++) {
        lines += std::string(R"({"prompt": "abc", )") + fields[i] + "}\n";
        const Outcome r =
            with_canvas(std::string("--prompt abc --json --gen-length 12 --block 4 ") + flags[i]);
        ASSERT_EQ(r.code, 0) << r.err;
        alone.push_back(json_lines(r.out)[0]);
        EXPECT_EQ(alone[i].value("cache", ""), i == 0 ? "" : i == 3 ? "dual" : "prefix");
        for (size_t j = 0; j < i; j++) EXPECT_NE(alone[i]["logprobs"], alone[j]["logprobs"]) << i << j;
    }
    const Outcome together = with_canvas("--input - --json --gen-length 12 --block 4", lines);
    ASSERT_EQ(together.code, 0) << together.err;
    const std::vector<Json> got = json_lines(together.out);
    for (size_t i = 0; i < 4; i++)
        for (const char* key : {"output_ids", "logprobs", "forward_passes"})
            EXPECT_EQ(got[i][key], alone[i][key]) << i << key;

    const std::string asked = "--prompt abc --json --gen-length 12 --block 4 ";
    const auto answer = [&](const std::string& more) { return json_lines(with_canvas(asked + more).out)[0]; };
    EXPECT_EQ(answer("--preset fast-dllm")["logprobs"], answer("--cache dual")["logprobs"]);
    EXPECT_EQ(answer("--preset fast-dllm --cache none")["logprobs"], alone[0]["logprobs"]);

    const std::pair<Outcome, const char*> refused[] = {
        {with_canvas(asked + "--cache exact"), "use --cache none"},
        {with_canvas(asked + "--further-horizon 2"), "--further-horizon: is for --cache prefix"},
        {with_canvas(asked + "--cache dual --further-horizon 2"), "--further-horizon: is for --cache prefix"},
        {with_model(asked + "--cache prefix"), "use --cache exact"},
        {with_model(asked + "--preset fast-dllm"), "--preset fast-dllm"}};
    for (const auto& [outcome, why] : refused) {
        EXPECT_EQ(outcome.code, 2) << why;
        EXPECT_TRUE(contains(outcome.err, why)) << outcome.err;
    }
    EXPECT_EQ(with_model(asked + "--preset fast-dllm --cache exact").code, 0);

    // A pass has room for what opens a block, and beside it for the blocks of all others.
    const auto plan = [&](const char* more) {
        return json_lines(with_canvas(std::string("--prompt abc --json --dry-run --block 4 --gen-length 200 "
                                                  "--temperature 1 --num-samples 16 ") +
                                      more)
                              .out)[0];
    };
    for (const char* more : {"", "--cache dual"}) {
        EXPECT_EQ(plan(more)["kv_slots"], 16 * 203);
        EXPECT_EQ(plan(more)["max_rows"], *more ? 1024 + 15 * 4 : 1024);
    }
}

TEST_F(InferProgram, GuidanceHasRoomForItsSecondCanvas) {
    const Outcome one = with_canvas("--prompt abc --json --gen-length 12 --block 4 --cfg-scale 0.7");
    ASSERT_EQ(one.code, 0) << one.err;
    EXPECT_TRUE(contains(one.out, R"("cfg_scale":0.7,)")) << one.out;
    // A chat may fill all positions that the model has.
    const int positions = read_model_config(canvas_folder_).max_positions;
    const Outcome chat =
        with_canvas(format("--chat --block 4 --cfg-scale 1 --gen-length %d", positions / 2 + 8), "hello\n");
    EXPECT_FALSE(contains(chat.err, "the cache holds")) << chat.err;
    EXPECT_TRUE(contains(chat.err, format("%d tokens", positions / 2 + 8))) << chat.err;
}

TEST_F(InferProgram, LinesToEncodeMayComeThroughAPipe) {
    EXPECT_EQ(run("--encode - --tokenizer bytes", "{\"text\": \"ab\"}\n").out, "{\"ids\":[97,98]}\n");
}

TEST_F(InferProgram, ATraceIsWritten) {
    const std::string page = temporary("trace.html");
    ASSERT_EQ(with_model("--prompt abc --gen-length 8 --trace-html " + page).code, 0);
    EXPECT_TRUE(contains(read_text(page), "<!doctype html>"));
}

TEST_F(InferProgram, AnInterruptPrintsWhatIsThereAndExits130) {
    const std::string out = temporary("interrupted.json"), err = temporary("interrupted.err");
    const pid_t child = fork();
    if (child == 0) {
        (void)!freopen(out.c_str(), "w", stdout);
        (void)!freopen(err.c_str(), "w", stderr);
        // Enough work for seconds: thousands of samples, that do not end in step.
        execl(program("infer").c_str(), "infer", "--model", folder_.c_str(), "--prompt", "abc",
              "--gen-length", "200", "--num-samples", "20000", "--temperature", "1", "--json", "--threads",
              "1", "--device", "cpu", nullptr);
        _exit(127);
    }
    for (int i = 0; i < 1000 && (!file_exists(out) || read_text(out).empty()); i++) usleep(20000);
    kill(child, SIGINT);
    int status = 0;
    waitpid(child, &status, 0);
    ASSERT_TRUE(WIFEXITED(status));
    EXPECT_EQ(WEXITSTATUS(status), 130);
    EXPECT_FALSE(contains(read_text(err), "20000/20000")) << "what was never begun is not done";
    int n = 0, cut = 0;
    for (const Json& line : json_lines(read_text(out))) {
        n++;
        cut += line["finish_reason"] == "interrupted";
    }
    EXPECT_GT(n, 0);
    EXPECT_LT(n, 20000);
    EXPECT_GT(cut, 0);  // those in flight, 16 at most; those that never began are left out
    EXPECT_LE(cut, 16);
}

// What a newcomer types first: the model that comes along answers its sample prompt, and says what it is.
TEST_F(InferProgram, TheModelThatComesAlongAnswersItsSamplePrompt) {
    if (!file_exists("inference/default_model/model.safetensors")) GTEST_SKIP() << "it is not here";
    const Outcome r = run("--block 8");
    ASSERT_EQ(r.code, 0) << r.err;
    EXPECT_TRUE(contains(r.err, "inference/default_model")) << r.err;
    EXPECT_TRUE(contains(r.err, "347+586=")) << r.err;
    // Where nothing comes of it nothing is said of it.
    EXPECT_EQ(run("--promt x").err, "error: unknown option --promt; did you mean --prompt?\n");
    EXPECT_TRUE(r.out.ends_with("933\n")) << r.out;
}
