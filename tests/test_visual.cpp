#include <gtest/gtest.h>

#include "inference/trace_page.h"
#include "inference/visual.h"
#include "tests/text_engine.h"
#include "utils/json.h"

namespace {

const TextModel& bytes() {
    static const TextModel text = load_text_model("bytes", "auto", "", byte_model_config());
    return text;
}

struct State {
    std::vector<int> token, step;
    std::vector<float> logprob;
    int n_final = 0;
    // '_' is a mask.
    explicit State(const std::string& text) {
        for (const char c : text) {
            token.push_back(uint8_t(c));
            step.push_back(c == '_' ? NEVER : 1);
            logprob.push_back(-0.1f);
        }
        n_final = int(std::min(text.find('_'), text.size()));
    }
    PartialResponse view() const { return {token, step, logprob, n_final}; }
};

std::string text_of(const std::vector<Cell>& line) {
    std::string out;
    for (const Cell& cell : line) out += cell.text;
    return out;
}

// A terminal of few sequences: moves up, returns, clears below, ignores colours.
std::vector<std::string> screen(const std::string& written) {
    std::vector<std::string> lines(1);
    size_t row = 0;
    for (size_t i = 0; i < written.size(); i++) {
        const char c = written[i];
        if (c == '\033') {
            const size_t end = written.find_first_of("mAJ", i);
            if (written[end] == 'A') row -= size_t(std::stoi(written.substr(i + 2)));
            if (written[end] == 'J') {
                lines.resize(row + 1);
                lines[row].clear();
            }
            i = end;
        } else if (c == '\n') {
            if (++row == lines.size()) lines.emplace_back();
        } else if (c != '\r') {
            lines[row] += c;
        }
    }
    return lines;
}

}  // namespace

TEST(Visual, MasksTokensAndWhatIsFinal) {
    const State state("a_\nb");
    const std::vector<Cell> cells = cells_of(bytes().tokenizer.get(), state.view());
    ASSERT_EQ(cells.size(), 4u);
    EXPECT_EQ(cells[0].text, "a");
    EXPECT_TRUE(cells[0].final);
    EXPECT_EQ(cells[1].text, "░");
    EXPECT_EQ(cells[1].color, -1);
    EXPECT_FALSE(cells[2].final);
    EXPECT_EQ(cells[3].text, "b");
    const State control("\033[2J");  // escape sequences of a model do not reach the terminal
    EXPECT_EQ(text_of(cells_of(bytes().tokenizer.get(), control.view())), "·[2J");
}

TEST(Visual, LinesAreCutAtTheWidth) {
    const State state("abcdefg\nhi");
    const auto lines = wrap(cells_of(bytes().tokenizer.get(), state.view()), 3);
    std::vector<std::string> texts;
    for (const auto& line : lines) texts.push_back(text_of(line));
    EXPECT_EQ(texts, (std::vector<std::string>{"abc", "def", "g", "hi"}));
    const State wide("日本");
    EXPECT_EQ(wrap(cells_of(bytes().tokenizer.get(), wide.view()), 3).size(), 2u);  // two columns each
}

TEST(Visual, ColoursRunFromRedToGreen) {
    EXPECT_EQ(color_of(0), 16 + 36 * 5);
    EXPECT_EQ(color_of(1), 16 + 6 * 5);
    EXPECT_EQ(color_of(0.5f), 16 + 36 * 5 + 6 * 5);
}

// Frame after frame the screen shows the whole text, whatever was drawn before.
TEST(Visual, RedrawingLeavesTheTextOnTheScreen) {
    Captured out;
    BlockView view(out.file(), bytes().tokenizer.get(), true, 8, 0);
    for (const char* frame : {"____", "a__d", "abcd____", "abcdef__", "abcdefgh____", "abcdefgh\nj__",
                              "abcdefgh\njkl____", "abcdefgh\njklmnop"})
        view.show(State(frame).view());
    view.finish();
    EXPECT_EQ(screen(out.text()), (std::vector<std::string>{"abcdefgh", "jklmnop", ""}));
}

TEST(Visual, WithoutATerminalEveryStepIsALine) {
    Captured out;
    BlockView view(out.file(), bytes().tokenizer.get(), false, 80, 0);
    view.show(State("a__d").view());
    view.show(State("ab\nd").view());
    view.finish();
    EXPECT_EQ(out.text(), "   1  a░░d\n   2  ab⏎d\n");
}

TEST(TracePage, HoldsTheTraceAndNothingThatEndsItsScript) {
    Trajectory t;
    t.prompt_ids = {'h', 'i'};
    t.output_ids = {'<', '/', 's', BYTE_IM_END};
    t.step_map = {2, 1, 1, 3};
    t.logprobs = {-1, -2, -3, -4};
    t.tail_ids = {NEVER, 'x'};
    t.tail_steps = {NEVER, 3};
    t.finish_reason = "stop";
    const Prompt prompt{Json(), t.prompt_ids, "</script><script>alert(1)//\xE2\x80\xA8"};
    const Json trace = trace_json(t, {&prompt, 0}, bytes(), 4, false);
    EXPECT_EQ(trace["pieces"], Json({"<", "/", "s", "<|im_end|>", "", "x"}));
    EXPECT_EQ(trace["step_map"], Json({2, 1, 1, 3, -1, 3}));
    EXPECT_EQ(trace["is_special"], Json({false, false, false, true, false, false}));
    EXPECT_EQ(trace["blocks"], Json({0, 0, 1, 1, 1, 1}));  // positions 2 to 7 in blocks of 4
    EXPECT_EQ(trace["n_output"], 4);
    EXPECT_TRUE(trace["logprobs"][4].is_null());
    const std::string page = trace_page(Json::array({trace}), "a <model> & more");
    EXPECT_EQ(page.find("</script>"), page.rfind("</script>"));
    EXPECT_EQ(page.find("\xE2\x80\xA8"), std::string::npos);
    EXPECT_NE(page.find("a &lt;model&gt; &amp; more"), std::string::npos);
    // The data between "traces = " and the next line is the JSON itself again.
    const size_t begin = page.find("const traces = ") + 15;
    EXPECT_EQ(Json::parse(page.substr(begin, page.find(";\n", begin) - begin)), Json::array({trace}));
}
