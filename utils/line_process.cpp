#include "utils/line_process.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "utils/error.h"
#include "utils/timer.h"

namespace {

constexpr size_t LONGEST_LINE = size_t(64) << 20;  // bytes; what has no end in them is no answer
constexpr int POLL_MS = 100;                       // how often should_stop is asked

}  // namespace

LineProcess::LineProcess(const std::string& command) {
    int ends[2];
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends))
        fail(Exit::Runtime, "'%s': no socket for it (%s)", command.c_str(), strerror(errno));
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, ends[1], STDIN_FILENO);
    posix_spawn_file_actions_adddup2(&actions, ends[1], STDOUT_FILENO);
    posix_spawnattr_t attributes;
    posix_spawnattr_init(&attributes);
    posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETPGROUP);
    posix_spawnattr_setpgroup(&attributes, 0);
    const char* argv[] = {"sh", "-c", command.c_str(), nullptr};
    const int error = posix_spawn(&pid_, "/bin/sh", &actions, &attributes, const_cast<char**>(argv), environ);
    posix_spawn_file_actions_destroy(&actions);
    posix_spawnattr_destroy(&attributes);
    close(ends[1]);
    fd_ = ends[0];
    if (error) {
        close(fd_);
        fail(Exit::Runtime, "'%s' cannot be started (%s)", command.c_str(), strerror(error));
    }
    fcntl(fd_, F_SETFL, O_NONBLOCK);
}

LineProcess::~LineProcess() {
    close(fd_);
    kill(-pid_, SIGKILL);
    while (waitpid(pid_, nullptr, 0) < 0 && errno == EINTR) {
    }
}

LineProcess::End LineProcess::exchange(std::string_view input,
                                       const std::function<bool(std::string_view line)>& on_line,
                                       double timeout_s, const std::function<bool()>& should_stop) {
    Timer since_last_line;
    for (;;) {
        for (size_t end; (end = received_.find('\n')) != std::string::npos;) {
            const std::string line = received_.substr(0, end);
            received_.erase(0, end + 1);
            since_last_line.restart();
            if (!on_line(line)) return End::Enough;
        }
        if (should_stop && should_stop()) return End::Interrupted;
        if (since_last_line.seconds() >= timeout_s) return End::TimedOut;
        pollfd ready = {fd_, short(input.empty() ? POLLIN : POLLIN | POLLOUT), 0};
        if (poll(&ready, 1, POLL_MS) <= 0) continue;
        if (!input.empty() && (ready.revents & POLLOUT)) {
            const ssize_t n = send(fd_, input.data(), input.size(), MSG_NOSIGNAL);
            if (n > 0) input.remove_prefix(size_t(n));
            // an end that does not read may still have something to say
            if (n < 0 && errno != EAGAIN && errno != EINTR) input = {};
        }
        if (ready.revents & (POLLIN | POLLHUP | POLLERR)) {
            char bytes[1 << 16];
            const ssize_t n = recv(fd_, bytes, sizeof bytes, 0);
            if (n > 0) received_.append(bytes, size_t(n));
            const bool gone = n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR);
            if (gone || received_.size() > LONGEST_LINE) return End::Exited;
        }
    }
}
