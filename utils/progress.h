// progress.h -- how far a long loop is: a bar on a terminal, else a plain line every 10 seconds. On stderr.
#pragma once
#include <cstdint>
#include <string>

#include "utils/timer.h"

enum class ProgressStyle { Auto, Bar, Lines, None };
ProgressStyle progress_style(const std::string& name);  // "auto", "bar", "lines", "none"; throws Error(Usage)

class ProgressBar {
  public:
    // Auto: a bar where stderr is a terminal, else lines; nothing when quiet.
    ProgressBar(std::string label, int64_t total, ProgressStyle style = ProgressStyle::Auto);
    ~ProgressBar();
    // `done` of `total` are done; `note` says more ("loss 0.31"). Cheap enough to be called at every step. What was done
    // before the first call (a resumed run's steps) does not count as this bar's speed.
    void update(int64_t done, const std::string& note = "");
    // The last line, with the time it took. Without it (an exception) the bar just goes away.
    void finish(const std::string& note = "");

  private:
    std::string line(int64_t done, const std::string& note) const;
    std::string label_;
    int64_t total_, done_ = 0, first_ = -1;
    ProgressStyle style_;
    Timer timer_;
    double shown_at_ = -1e9, first_at_ = 0;
    bool finished_ = false;
};

std::string format_duration(double seconds);  // "4.2 s", "3:07", "1:02:45"
