#include "inference/slots.h"

#include "utils/error.h"

int SlotAllocator::allocate(int n) {
    if (n == 0) return 0;
    for (auto run = runs_.begin(); run != runs_.end(); ++run) {
        const auto [begin, length] = *run;
        if (length < n) continue;
        runs_.erase(run);
        if (length > n) runs_[begin + n] = length - n;
        free_ -= n;
        return begin;
    }
    return -1;
}

void SlotAllocator::release(int begin, int n) {
    if (n == 0) return;
    CHECK(begin >= 0 && begin + n <= slots_, "slots [%d, %d) of %d", begin, begin + n, slots_);
    auto next = runs_.lower_bound(begin);
    CHECK(next == runs_.end() || begin + n <= next->first, "slots [%d, %d) are free already", begin,
          begin + n);
    free_ += n;
    if (next != runs_.end() && next->first == begin + n) {
        n += next->second;
        next = runs_.erase(next);
    }
    if (next != runs_.begin()) {
        auto previous = std::prev(next);
        CHECK(previous->first + previous->second <= begin, "slots [%d, %d) are free already", begin,
              begin + n);
        if (previous->first + previous->second == begin) {
            previous->second += n;
            return;
        }
    }
    runs_[begin] = n;
}

bool SlotAllocator::extend(int begin, int n, int more) {
    if (more <= n) return true;
    const auto behind = runs_.find(begin + n);
    if (behind == runs_.end() || behind->second < more - n) return false;
    const int left = behind->second - (more - n);
    runs_.erase(behind);
    if (left > 0) runs_[begin + more] = left;
    free_ -= more - n;
    return true;
}
