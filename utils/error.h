// error.h -- one exception type, exit codes, and formatted messages.
//
// Library code never exits: it throws. main() catches once, prints one line and returns the code.
#pragma once
#include <cstdarg>
#include <stdexcept>
#include <string>

// Exit codes of every program.
enum class Exit : int {
    Ok = 0,
    Runtime = 1,      // something failed while running (I/O, CUDA, a loss that is not a number)
    Usage = 2,        // command line or configuration
    BadFile = 3,      // a model or data file is unsound
    NoMemory = 4,     // not enough memory, or no such device
    CheckFailed = 5,  // a check that was asked for came out negative
    Interrupted = 130,
    Terminated = 143,
};

class Error : public std::runtime_error {
  public:
    Error(Exit code, const std::string& message) : std::runtime_error(message), code(code) {}
    Exit code;
};

// printf into a std::string.
std::string format(const char* fmt, ...) __attribute__((format(printf, 1, 2)));

std::string vformat(const char* fmt, va_list args);

// Throws Error(code, message). The message names file, field, value and remedy.
[[noreturn]] void fail(Exit code, const char* fmt, ...) __attribute__((format(printf, 2, 3)));

[[noreturn]] void check_failed(const char* file, int line, const char* condition, const std::string& message);

// Internal invariants: throws Error(Exit::Runtime) with file, line, condition and message.
#define CHECK(condition, ...)                                                                \
    do {                                                                                     \
        if (!(condition)) check_failed(__FILE__, __LINE__, #condition, format(__VA_ARGS__)); \
    } while (0)
