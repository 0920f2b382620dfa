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

void catch_signals() {
    struct sigaction action = {};
    action.sa_handler = on_signal;
    sigemptyset(&action.sa_mask);
    sigaction(SIGINT, &action, nullptr);  // no SA_RESTART: a read of stdin that waits is woken
    sigaction(SIGTERM, &action, nullptr);
}

bool interrupted() { return received.load(std::memory_order_relaxed) != 0; }

bool take_interrupt() {
    int number = SIGINT;
    return received.compare_exchange_strong(number, 0);
}

Exit interrupt_code() {
    const int number = received.load();
    return number == 0 ? Exit::Ok : number == SIGINT ? Exit::Interrupted : Exit::Terminated;
}
