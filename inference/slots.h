// slots.h -- which slots of the KV cache are free: contiguous runs, first fit, neighbours joined again on release.
#pragma once
#include <map>

class SlotAllocator {
  public:
    explicit SlotAllocator(int slots) : slots_(slots), free_(slots) {
        if (slots > 0) runs_[0] = slots;
    }
    // The first slot of a free run of n, now taken; -1 where no run is long enough. n = 0 takes nothing and returns 0.
    int allocate(int n);
    // [begin, begin + n) was taken; becomes free.
    void release(int begin, int n);
    // Lengthens the run [begin, begin + n) to `more` slots if those behind it are free.
    bool extend(int begin, int n, int more);
    int n_free() const { return free_; }

  private:
    int slots_, free_;
    std::map<int, int> runs_;  // free runs: first slot -> length; never adjacent
};
