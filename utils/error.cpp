#include "utils/error.h"

#include <cstdio>

std::string vformat(const char* fmt, va_list args) {
    va_list again;
    va_copy(again, args);
    const int n = vsnprintf(nullptr, 0, fmt, args);
    std::string text(n > 0 ? size_t(n) : 0, '\0');
    if (n > 0) vsnprintf(text.data(), text.size() + 1, fmt, again);
    va_end(again);
    return text;
}

std::string format(const char* fmt, ...) {
    va_list args;
    va_start(args, fmt);
    std::string text = vformat(fmt, args);
    va_end(args);
    return text;
}

void fail(Exit code, const char* fmt, ...) {
    va_list args;
    va_start(args, fmt);
    const std::string text = vformat(fmt, args);
    va_end(args);
    throw Error(code, text);
}

void check_failed(const char* file, int line, const char* condition, const std::string& message) {
    throw Error(Exit::Runtime, format("%s:%d: CHECK(%s) failed: %s", file, line, condition, message.c_str()));
}
