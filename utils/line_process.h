// line_process.h -- a shell command that is asked and answers line by line.
#pragma once
#include <sys/types.h>

#include <functional>
#include <string>
#include <string_view>

class LineProcess {
  public:
    enum class End {
        Enough,       // on_line was content
        TimedOut,     // no line came for so long
        Exited,       // the command ended, or closed its output
        Interrupted,  // should_stop
    };

    // Runs `sh -c command` in a process group of its own, so that Ctrl-C reaches only its parent. What it
    // writes to stderr goes to stderr. Throws Error(Runtime) where no process can be made.
    explicit LineProcess(const std::string& command);
    ~LineProcess();  // kills the group
    LineProcess(const LineProcess&) = delete;
    LineProcess& operator=(const LineProcess&) = delete;

    // Writes `input` while it reads lines, and hands each (without its end) to on_line until that returns
    // false. `timeout_s` is the longest wait for the next line.
    End exchange(std::string_view input, const std::function<bool(std::string_view line)>& on_line,
                 double timeout_s, const std::function<bool()>& should_stop);

  private:
    pid_t pid_ = -1;
    int fd_ = -1;  // a socket to its stdin and stdout
    std::string received_;
};
