#include <gtest/gtest.h>

#include <sstream>

#include "inference/infer_output.h"
#include "inference/pieces.h"
#include "tests/text_engine.h"
#include "utils/json.h"

namespace {

Trajectory trajectory(const std::string& text, const std::string& reason) {
    Trajectory t;
    for (const char c : text) {
        t.output_ids.push_back(uint8_t(c));
        t.step_map.push_back(int(t.output_ids.size()));
        t.logprobs.push_back(-0.5f);
    }
    if (reason == "stop") {
        t.output_ids.push_back(BYTE_IM_END);
        t.step_map.push_back(int(t.output_ids.size()));
        t.logprobs.push_back(-0.25f);
    }
    t.finish_reason = reason;
    t.denoise_steps = t.forward_passes = int(t.output_ids.size());
    return t;
}

const TextModel& bytes() {
    static const TextModel text = load_text_model("bytes", "auto", "", byte_model_config());
    return text;
}

}  // namespace

TEST(InferOutput, AJsonLineHasEveryField) {
    const Prompt prompt{"x7", {1, 2}, "hi"};
    const Json line = answer_json(trajectory("ok", "stop"), {&prompt, 3}, bytes(), 1.5);
    std::vector<std::string> fields;
    for (const auto& [key, value] : line.items()) fields.push_back(key);
    EXPECT_EQ(fields,
              (std::vector<std::string>{"id", "sample", "prompt_ids", "output_ids", "step_map", "logprobs",
                                        "tail_ids", "tail_steps", "text", "finish_reason", "denoise_steps",
                                        "forward_passes", "tokens_per_forward", "entropy", "timings"}));
    EXPECT_EQ(line["id"], "x7");
    EXPECT_EQ(line["sample"], 3);
    EXPECT_EQ(line["text"], "ok");
    EXPECT_EQ(line["timings"]["load_s"], 1.5);
    const TextModel none;
    EXPECT_TRUE(answer_json(trajectory("ok", "stop"), {&prompt, 0}, none, 0)["text"].is_null());
}

TEST(InferOutput, AnswersComeInTheOrderOfTheirPrompts) {
    const Prompt prompts[] = {{"a", {1}, ""}, {"b", {1}, ""}, {Json(), {1}, ""}};
    const std::vector<Asked> asked = {{&prompts[0], 0}, {&prompts[1], 0}, {&prompts[2], 0}, {&prompts[2], 1}};
    Captured out;
    AnswerPrinter printer(out.file(), asked, bytes(), true, 0);
    printer.finish(2, trajectory("three", "stop"));
    EXPECT_EQ(out.text(), "");
    printer.finish(0, trajectory("one", "stop"));
    printer.finish(1, trajectory("two", "length"));
    printer.finish(3, trajectory("cut", "interrupted"));
    std::vector<std::string> texts;
    std::istringstream lines(out.text());
    for (std::string line; std::getline(lines, line);) texts.push_back(Json::parse(line)["text"]);
    EXPECT_EQ(texts, (std::vector<std::string>{"one", "two", "three", "cut"}));
    EXPECT_EQ(printer.n_finished(), 3);
}

TEST(InferOutput, SeveralTextsHaveHeadings) {
    const Prompt prompt{"q", {1}, ""};
    const std::vector<Asked> asked = {{&prompt, 0}, {&prompt, 1}};
    Captured out;
    AnswerPrinter printer(out.file(), asked, bytes(), false, 0);
    printer.finish(0, trajectory("one", "stop"));
    printer.finish(1, trajectory("two", "length"));
    EXPECT_EQ(out.text(), "--- answer \"q\", sample 0\none\n\n--- answer \"q\", sample 1\ntwo\n");
}

// Printed as it becomes final, whole characters only, the stop token never: in the end the same as all at
// once.
TEST(InferOutput, ASingleTextIsStreamed) {
    TextEngine e;
    Request r;
    r.prompt_ids = {'a', 'b', 'c'};
    r.options.gen_length = 40;
    r.options.temperature = 1;
    r.options.stop_ids = {BYTE_IM_END, 'x', 'y', 'z', '0', '1', '2'};
    const Prompt prompt{Json(), r.prompt_ids, ""};
    const std::vector<Asked> asked = {{&prompt, 0}};
    for (uint32_t sequence = 0; sequence < 6; sequence++) {
        r.sequence = sequence;
        Captured out;
        AnswerPrinter printer(out.file(), asked, e.text, false, 0);
        size_t before = 0;
        int grew = 0;
        Callbacks callbacks;
        callbacks.on_reveal = [&](int, const PartialResponse& so_far) {
            printer.reveal(so_far, r.options);
            grew += out.text().size() > before;
            before = out.text().size();
        };
        callbacks.on_finish = [&](int request, const Trajectory& t) { printer.finish(request, t); };
        const Trajectory t = e.engine.generate({&r, 1}, callbacks)[0];
        EXPECT_EQ(out.text(), output_text(*e.text.tokenizer, t.output_ids, t.finish_reason) + "\n");
        if (t.output_ids.size() > 8) {
            EXPECT_GT(grew, 1);
        }
    }
}

TEST(InferOutput, IdsWithoutATokenizer) {
    const TextModel none;
    const Prompt prompt{Json(), {1}, ""};
    const std::vector<Asked> asked = {{&prompt, 0}};
    Captured out;
    AnswerPrinter printer(out.file(), asked, none, false, 0);
    printer.finish(0, trajectory("\x01\x02", "length"));
    EXPECT_EQ(out.text(), "1 2\n");
}
