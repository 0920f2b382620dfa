#include "inference/visual.h"

#include <sys/ioctl.h>
#include <unistd.h>
#include <utf8proc.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <thread>

#include "inference/pieces.h"

int color_of(float probability) {
    // The 256-colour cube: 16 + 36 red + 6 green + blue, each 0..5.
    const float p = std::clamp(probability, 0.0f, 1.0f);
    const int red = p < 0.5f ? 5 : int(std::lround(10 * (1 - p))),
              green = p < 0.5f ? int(std::lround(10 * p)) : 5;
    return 16 + 36 * red + 6 * green;
}

std::vector<Cell> cells_of(const Tokenizer* tokenizer, const PartialResponse& so_far) {
    std::vector<char> known;
    for (const int step : so_far.step) known.push_back(step != NEVER);
    const std::vector<std::string> pieces = pieces_of(tokenizer, so_far.token, known);
    std::vector<Cell> cells;
    for (size_t i = 0; i < pieces.size(); i++) {
        const bool final = int(i) < so_far.n_final;
        if (!known[i]) {
            cells.push_back({"░", 1, -1, false});
            continue;
        }
        const bool special = tokenizer && tokenizer->is_special(so_far.token[i]);
        const int color = special ? -1 : color_of(std::exp(so_far.logprob[i]));
        const std::string& text = pieces[i];
        for (size_t at = 0; at < text.size();) {
            utf8proc_int32_t code = 0;
            const auto n = utf8proc_iterate(reinterpret_cast<const utf8proc_uint8_t*>(text.data()) + at,
                                            utf8proc_ssize_t(text.size() - at), &code);
            const size_t length = n > 0 ? size_t(n) : 1;
            const bool control = code < 32 || code == 127;  // anything that would move the cursor
            const std::string shown = code == '\n'   ? "\n"
                                      : code == '\t' ? " "
                                      : control      ? "·"
                                                     : text.substr(at, length);
            cells.push_back({shown, control ? 1 : std::max(utf8proc_charwidth(code), 0), color, final});
            at += length;
        }
    }
    return cells;
}

std::vector<std::vector<Cell>> wrap(const std::vector<Cell>& cells, int width) {
    std::vector<std::vector<Cell>> lines(1);
    int column = 0;
    for (const Cell& cell : cells) {
        if (cell.text == "\n" || column + cell.width > width) {
            lines.emplace_back();
            column = 0;
        }
        if (cell.text == "\n") continue;
        lines.back().push_back(cell);
        column += cell.width;
    }
    return lines;
}

BlockView::BlockView(FILE* out, const Tokenizer* tokenizer, bool terminal, int width, double frame_s)
    : out_(out), tokenizer_(tokenizer), terminal_(terminal), width_(std::max(width, 8)), frame_s_(frame_s) {}

void BlockView::show(const PartialResponse& so_far) {
    step_++;
    const std::vector<Cell> cells = cells_of(tokenizer_, so_far);
    if (!terminal_) {
        std::string line = format("%4d  ", step_);
        for (const Cell& cell : cells) line += cell.text == "\n" ? "⏎" : cell.text;
        fprintf(out_, "%s\n", line.c_str());
        return;
    }
    draw(wrap(cells, width_));
    fflush(out_);
    if (frame_s_ > 0) std::this_thread::sleep_for(std::chrono::duration<double>(frame_s_));
}

// Redraws from the first line that may still change. The cursor rests at the end of the last line.
void BlockView::draw(const std::vector<std::vector<Cell>>& lines) {
    std::string text;
    if (drawn_ > 1) text += format("\033[%zuA", drawn_ - 1);
    if (drawn_ > 0) text += "\r\033[J";
    const auto settled = [](const std::vector<Cell>& line) {
        return std::all_of(line.begin(), line.end(), [](const Cell& c) { return c.final; });
    };
    drawn_ = 0;
    bool all_before_settled = true;
    for (size_t i = settled_; i < lines.size(); i++) {
        const bool last = i + 1 == lines.size();
        for (const Cell& cell : lines[i])
            text += (cell.color < 0 ? std::string("\033[2m") : format("\033[38;5;%dm", cell.color)) +
                    cell.text + "\033[0m";
        if (!last) text += "\n";
        all_before_settled = all_before_settled && !last && settled(lines[i]);
        if (all_before_settled)
            settled_ = i + 1;
        else
            drawn_++;
    }
    fwrite(text.data(), 1, text.size(), out_);
}

void BlockView::finish() {
    if (terminal_) fputc('\n', out_);
    fflush(out_);
}

int terminal_width() {
    struct winsize size;
    return ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0 ? size.ws_col : 80;
}
