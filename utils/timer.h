// timer.h -- wall-clock time since construction, in seconds.
#pragma once
#include <chrono>

class Timer {
  public:
    double seconds() const { return std::chrono::duration<double>(Clock::now() - start_).count(); }
    // Seconds since the last restart, which this is.
    double restart() {
        const double elapsed = seconds();
        start_ = Clock::now();
        return elapsed;
    }

  private:
    using Clock = std::chrono::steady_clock;
    Clock::time_point start_ = Clock::now();
};
