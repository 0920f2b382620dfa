#include "utils/signals.h"

#include <unistd.h>

#include <atomic>
#include <csignal>

static std::atomic<int> received = 0;  // the first signal's number
static_assert(std::atomic<int>::is_always_lock_free, "a signal handler may touch it");

static void on_signal(int number) {
    int none = 0;
    if (!received.compare_exchange_strong(none, number)) _exit(128 + number);
}

// What a mapping of a file answers with where the file has no data any more, or the disk cannot give it.
static void on_bus_error(int number, siginfo_t* info, void*) {
    static const char message[] =
        "error: a model or data file was cut short, or its disk failed, while it was in use; get it again, "
        "and "
        "replace files by renaming, not by writing over them\n";
    if (info->si_code != BUS_ADRERR) {  // an error of this program's, or of the machine's
        signal(number, SIG_DFL);
        return;  // and meets it again
    }
    if (write(STDERR_FILENO, message, sizeof message - 1) < 0) _exit(int(Exit::Runtime));
    _exit(int(Exit::BadFile));
}

void catch_signals() {
    struct sigaction bus = {};
    bus.sa_sigaction = on_bus_error;
    bus.sa_flags = SA_SIGINFO;
    sigemptyset(&bus.sa_mask);
    sigaction(SIGBUS, &bus, nullptr);
    struct sigaction action = {};
    action.sa_handler = on_signal;
    sigemptyset(&action.sa_mask);
    sigaction(SIGINT, &action, nullptr);  // no SA_RESTART: a read of stdin that waits is woken
    sigaction(SIGTERM, &action, nullptr);
    struct sigaction hangup = {};  // the terminal is gone, which under nohup is nobody's concern
    sigaction(SIGHUP, nullptr, &hangup);
    if (hangup.sa_handler != SIG_IGN) sigaction(SIGHUP, &action, nullptr);
}

static void do_nothing(int) {}

void survive_broken_pipes() {
    struct sigaction action = {};
    action.sa_handler = do_nothing;  // not SIG_IGN: commands that a program starts would inherit that
    sigemptyset(&action.sa_mask);
    sigaction(SIGPIPE, &action, nullptr);
}

bool interrupted() { return received.load(std::memory_order_relaxed) != 0; }

bool take_interrupt() {
    int number = SIGINT;
    return received.compare_exchange_strong(number, 0);
}

void throw_if_interrupted(const char* message) {
    if (interrupted()) throw Error(interrupt_code(), message);
}

Exit interrupt_code() {
    const int number = received.load();
    return number == 0 ? Exit::Ok : number == SIGINT ? Exit::Interrupted : Exit::Terminated;
}
