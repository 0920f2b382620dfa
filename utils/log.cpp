#include "utils/log.h"

#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstdarg>
#include <cstdio>
#include <cstring>
#include <mutex>

#include "utils/error.h"

namespace {
// stderr is one per process, and so is this.
struct LogState {
    std::mutex mutex;
    std::atomic<bool> quiet = false;
    bool status_shown = false;
    FILE* file = nullptr;
};
LogState& state() {
    static LogState instance;
    return instance;
}

void write_line(const char* prefix, const char* fmt, va_list args, bool show) {
    const std::string line = prefix + vformat(fmt, args) + "\n";
    LogState& log = state();
    const std::lock_guard<std::mutex> lock(log.mutex);
    if (log.file) {
        fputs(line.c_str(), log.file);
        fflush(log.file);
    }
    if (!show) return;
    if (log.status_shown) fputs("\r\033[K", stderr);
    log.status_shown = false;
    fputs(line.c_str(), stderr);
}
}  // namespace

void log_info(const char* fmt, ...) {
    va_list args;
    va_start(args, fmt);
    write_line("", fmt, args, !state().quiet);
    va_end(args);
}

void log_warning(const char* fmt, ...) {
    va_list args;
    va_start(args, fmt);
    write_line("warning: ", fmt, args, true);
    va_end(args);
}

void log_error(const char* fmt, ...) {
    va_list args;
    va_start(args, fmt);
    write_line("error: ", fmt, args, true);
    va_end(args);
}

void set_quiet(bool quiet) { state().quiet = quiet; }
bool is_quiet() { return state().quiet; }
bool stderr_is_terminal() { return isatty(2) == 1; }

void log_to_file(const std::string& path) {
    LogState& log = state();
    const std::lock_guard<std::mutex> lock(log.mutex);
    if (log.file) fclose(log.file);
    log.file = nullptr;
    if (path.empty()) return;
    log.file = fopen(path.c_str(), "ae");
    if (!log.file) fail(Exit::Runtime, "%s: cannot open the log: %s", path.c_str(), strerror(errno));
}

void log_status(std::string_view text) {
    if (!stderr_is_terminal()) return;
    LogState& log = state();
    const std::lock_guard<std::mutex> lock(log.mutex);
    if (text.empty() && !log.status_shown) return;
    fprintf(stderr, "\r\033[K%.*s", int(text.size()), text.data());
    fflush(stderr);
    log.status_shown = !text.empty();
}
