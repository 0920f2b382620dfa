// log.h -- what a program tells its user while it works. Everything goes to stderr: stdout is for results.
//
// A program on a terminal may show one transient status line (the progress bar); messages clear it first.
#pragma once
#include <string>
#include <string_view>

// One line each: info is dropped when quiet; "warning: ..." and "error: ..." are shown also then.
void log_info(const char* fmt, ...) __attribute__((format(printf, 1, 2)));
void log_warning(const char* fmt, ...) __attribute__((format(printf, 1, 2)));
void log_error(const char* fmt, ...) __attribute__((format(printf, 1, 2)));

void set_quiet(bool quiet);
bool is_quiet();
bool stderr_is_terminal();

// Every line logged from now on is also appended to this file (a run folder's main.log); "" ends that.
// Throws Error(Runtime) where the file cannot be opened.
void log_to_file(const std::string& path);

// The transient last line of a terminal; "" takes it away. Does nothing where stderr is not a terminal.
void log_status(std::string_view text);
