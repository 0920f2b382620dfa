#include "utils/progress.h"

#include <algorithm>

#include "utils/error.h"
#include "utils/log.h"

constexpr double BAR_INTERVAL = 0.1;    // seconds between two drawings of the bar
constexpr double LINE_INTERVAL = 10.0;  // and between two plain lines
constexpr int BAR_WIDTH = 24;           // characters

ProgressStyle progress_style(const std::string& name) {
    if (name == "auto") return ProgressStyle::Auto;
    if (name == "bar") return ProgressStyle::Bar;
    if (name == "lines") return ProgressStyle::Lines;
    if (name == "none") return ProgressStyle::None;
    fail(Exit::Usage, "--progress %s: choose auto, bar, lines or none", name.c_str());
}

std::string format_duration(double seconds) {
    if (seconds < 9.95) return format("%.1f s", seconds);
    const long s = long(seconds + 0.5);
    if (s < 60) return format("%ld s", s);
    if (s < 3600) return format("%ld:%02ld", s / 60, s % 60);
    return format("%ld:%02ld:%02ld", s / 3600, s / 60 % 60, s % 60);
}

ProgressBar::ProgressBar(std::string label, int64_t total, ProgressStyle style)
    : label_(std::move(label)), total_(std::max<int64_t>(total, 0)), style_(style) {
    if (style_ == ProgressStyle::Auto)
        style_ = stderr_is_terminal() ? ProgressStyle::Bar : ProgressStyle::Lines;
    if (is_quiet()) style_ = ProgressStyle::None;
    if (style_ == ProgressStyle::Lines)
        shown_at_ = 0;  // the first line comes after 10 s: short loops say nothing
}

ProgressBar::~ProgressBar() {
    if (!finished_) log_status("");
}

std::string ProgressBar::line(int64_t done, const std::string& note) const {
    std::string text = label_ + " ";
    if (style_ == ProgressStyle::Bar && total_ > 0) {
        const int filled = int(std::min(done, total_) * BAR_WIDTH / total_);
        text += "[" + std::string(size_t(filled), '=') + std::string(size_t(BAR_WIDTH - filled), ' ') + "] ";
    }
    text += format("%ld/%ld", long(done), long(total_));
    if (!note.empty()) text += "  " + note;
    if (done > first_ && done < total_)
        text += "  ETA " + format_duration((timer_.seconds() - first_at_) * double(total_ - done) /
                                           double(done - first_));
    return text;
}

void ProgressBar::update(int64_t done, const std::string& note) {
    done_ = done;
    if (style_ == ProgressStyle::None || finished_) return;
    const double now = timer_.seconds();
    if (first_ < 0) first_ = done, first_at_ = now;
    if (now - shown_at_ < (style_ == ProgressStyle::Bar ? BAR_INTERVAL : LINE_INTERVAL)) return;
    shown_at_ = now;
    if (style_ == ProgressStyle::Bar)
        log_status(line(done, note));
    else
        log_info("%s", line(done, note).c_str());
}

void ProgressBar::finish(const std::string& note) {
    if (finished_) return;
    finished_ = true;
    log_status("");
    if (style_ == ProgressStyle::None) return;
    log_info("%s%s%s  %ld/%ld in %s", label_.c_str(), note.empty() ? "" : "  ", note.c_str(), long(done_),
             long(total_), format_duration(timer_.seconds()).c_str());
}
