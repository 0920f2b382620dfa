// cpu_device.cpp -- the scheduler behind cpu_device.h: one fiber per CUDA thread, one block at a time.
//
// A block runs on ONE host thread. Its CUDA threads are fibers (user-space stacks) that run until they
// reach a collective (a __syncthreads, a shuffle, an mma ...). The last fiber of the group to arrive
// performs the collective for everybody and puts the others back on the ready queue. If the queue runs
// dry while somebody still waits, the kernel has a divergent barrier: print who waits where, and abort.
//
// This file is always compiled WITHOUT sanitizers; it tells them about the fibers through weak symbols,
// so a normal build, -fsanitize=address and -fsanitize=thread all link against the same object.
#include "kernels/device/cpu_device.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>

extern "C" {  // present only when the program is linked with a sanitizer
void __asan_poison_memory_region(const void*, size_t) __attribute__((weak));
void __asan_unpoison_memory_region(const void*, size_t) __attribute__((weak));
void* __tsan_create_fiber(unsigned) __attribute__((weak));
void __tsan_destroy_fiber(void*) __attribute__((weak));
void* __tsan_get_current_fiber() __attribute__((weak));
void __tsan_switch_to_fiber(void*, unsigned) __attribute__((weak));
void __tsan_acquire(void*) __attribute__((weak));
void __tsan_release(void*) __attribute__((weak));
void __tsan_write_range(void*, size_t) __attribute__((weak));
void __sanitizer_start_switch_fiber(void**, const void*, size_t) __attribute__((weak));
void __sanitizer_finish_switch_fiber(void*, const void**, size_t*) __attribute__((weak));
void cpu_device_switch(void** save_sp, void* load_sp);
}

// Save the callee-saved registers and the stack pointer, load the other's (System V x86-64).
asm(R"(
.text
.globl cpu_device_switch
.type cpu_device_switch,@function
cpu_device_switch:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq  %rsp, (%rdi)
    movq  %rsi, %rsp
    popq  %r15
    popq  %r14
    popq  %r13
    popq  %r12
    popq  %rbx
    popq  %rbp
    ret
.size cpu_device_switch,.-cpu_device_switch
)");

constinit thread_local dim3 threadIdx, blockIdx, blockDim, gridDim;

namespace cpu_device {

constexpr size_t STACK_BYTES = 256 << 10;
constexpr uint64_t CANARY = 0xC0FFEE1234567890ull;
constexpr size_t GUARD_BYTES = 1024;   // behind the dynamic shared memory: a write there is an overrun
constexpr unsigned char GUARD = 0xFE;  // read as numbers: too large to go unnoticed
constexpr int WARPGROUP = 128, NAMED_BARRIERS = 16;
enum class State { Ready, Waiting, Done };

struct Fiber {
    void* sp = nullptr;
    char* stack = nullptr;
    State state = State::Done;
    dim3 tid;
    int linear = 0;
    const char* op = "";
    const char* file = "";
    int line = 0;
    void* tsan = nullptr;
    void* asan_fake = nullptr;
    CopyQueue copies;
    bool waited = true;              // for the kernels before its own
    std::vector<uint32_t> unfenced;  // 16-byte chunks of shared memory its copies wrote since its fence
};

struct Group {  // the lanes of one warp, one warpgroup, the whole block, or those of a named barrier
    int size = 0, alive = 0, arrived = 0;
    const char* op = "";
    const char* file = "";
    int line = 0;
    uint32_t mask = 0;
    char token[2] = {};  // tsan: one happens-before token per barrier generation (even, odd)
    int generation = 0;
    void* args[MAX_BLOCK] = {};
    Fiber* waiting[MAX_BLOCK] = {};
};

struct StaticGuard {  // behind static shared memory of so many bytes
    size_t bytes;
    void* behind;
    size_t bytes_behind;
};

struct Worker {  // everything one host thread needs to run blocks
    Fiber fibers[MAX_BLOCK];
    Fiber main;
    Fiber* ready[MAX_BLOCK + 1];
    int head = 0, tail = 0, num_threads = 0;
    uint64_t block_number = 0;         // of the blocks this host thread has run
    std::vector<StaticGuard> statics;  // that this block has come to
    Fiber* self = nullptr;
    Group block, warps[MAX_BLOCK / 32], warpgroups[MAX_BLOCK / WARPGROUP], named[NAMED_BARRIERS];
    ProductQueue products[MAX_BLOCK / 32];
    std::vector<uint16_t> unfenced_by;  // per 16-byte chunk of shared memory: 1 + the thread, 0: nobody
    void (*entry)(void*) = nullptr;
    void* closure = nullptr;
    char* smem = nullptr;
    size_t smem_bytes = 0;
    char started = 0, finished = 0;  // tsan tokens: main -> fibers, fibers -> main
    uint64_t rng = 0;
    const void* main_stack = nullptr;  // for asan
    size_t main_stack_bytes = 0;

    ~Worker() {
        if (smem && __asan_unpoison_memory_region)
            __asan_unpoison_memory_region(smem + smem_bytes, GUARD_BYTES);
        free(smem);
        for (Fiber& f : fibers) {
            if (f.stack) munmap(f.stack, STACK_BYTES);
            if (f.tsan) __tsan_destroy_fiber(f.tsan);
        }
    }
    void push(Fiber* f) {
        ready[tail] = f;
        tail = (tail + 1) % (MAX_BLOCK + 1);
    }
    void push_front(Fiber* f) {
        head = (head + MAX_BLOCK) % (MAX_BLOCK + 1);
        ready[head] = f;
    }
    Fiber* pop() {
        Fiber* f = ready[head];
        head = (head + 1) % (MAX_BLOCK + 1);
        return f;
    }
    bool empty() const { return head == tail; }
};

static Worker& worker() {
    static thread_local const std::unique_ptr<Worker> w = std::make_unique<Worker>();
    return *w;
}

Schedule schedule = Schedule::Forward;

static const char* base_name(const char* p) {
    const char* s = strrchr(p, '/');
    return s ? s + 1 : p;
}

[[noreturn]] void fail(const char* what, const char* file, int line) {
    Fiber* f = worker().self;
    fprintf(stderr, "cpu_device: %s\n    at %s:%d, block (%u,%u,%u) thread (%u,%u,%u)\n", what,
            base_name(file), line, blockIdx.x, blockIdx.y, blockIdx.z, f->tid.x, f->tid.y, f->tid.z);
    fflush(stderr);
    abort();
}

[[noreturn]] static void deadlock(Worker& w) {
    fprintf(stderr, "cpu_device: deadlock in block (%u,%u,%u): the threads wait at different places\n",
            blockIdx.x, blockIdx.y, blockIdx.z);
    for (int i = 0; i < w.num_threads;) {  // print runs of threads that are stuck at the same place
        Fiber& f = w.fibers[i];
        int j = i;
        while (j < w.num_threads && w.fibers[j].state == f.state && w.fibers[j].line == f.line &&
               w.fibers[j].op == f.op)
            j++;
        if (f.state == State::Done)
            fprintf(stderr, "    threads %4d..%-4d have returned\n", i, j - 1);
        else
            fprintf(stderr, "    threads %4d..%-4d wait in %s at %s:%d\n", i, j - 1, f.op, base_name(f.file),
                    f.line);
        i = j;
    }
    fflush(stderr);
    abort();
}

static void switch_to(Worker& w, Fiber* next) {
    Fiber* prev = w.self;
    w.self = next;
    threadIdx = next->tid;
    if (__sanitizer_start_switch_fiber) {
        const void* bottom = next == &w.main ? w.main_stack : next->stack;
        size_t bytes = next == &w.main ? w.main_stack_bytes : STACK_BYTES;
        __sanitizer_start_switch_fiber(
            prev->state == State::Done && prev != &w.main ? nullptr : &prev->asan_fake, bottom, bytes);
    }
    if (__tsan_switch_to_fiber) __tsan_switch_to_fiber(next->tsan, 1 /* no happens-before edge */);
    cpu_device_switch(&prev->sp, next->sp);
    if (__sanitizer_finish_switch_fiber) {
        const void* old;
        size_t n;
        __sanitizer_finish_switch_fiber(w.self->asan_fake, &old, &n);
    }
}

static void run_next(Worker& w) {
    if (!w.empty()) return switch_to(w, w.pop());
    for (int i = 0; i < w.num_threads; i++)
        if (w.fibers[i].state == State::Waiting) deadlock(w);
    switch_to(w, &w.main);
}

static void fiber_main() {
    Worker& w = worker();
    if (__sanitizer_finish_switch_fiber) {
        const void* old;
        size_t n;
        __sanitizer_finish_switch_fiber(nullptr, &old, &n);
        if (!w.main_stack) {
            w.main_stack = old;
            w.main_stack_bytes = n;
        }
    }
    if (__tsan_acquire) __tsan_acquire(&w.started);
    w.entry(w.closure);
    Fiber* f = w.self;
    if (*reinterpret_cast<uint64_t*>(f->stack) != CANARY) fail("fiber stack overflow", __FILE__, __LINE__);
    if (!f->copies.open.empty() || !f->copies.groups.empty())
        fail("a thread returned with copies under way", __FILE__, __LINE__);
    const ProductQueue& products = w.products[f->linear / 32];
    if (!products.open.empty() || !products.groups.empty())
        fail("a thread returned with wgmma products under way", __FILE__, __LINE__);
    f->state = State::Done;
    w.block.alive--;
    w.warps[f->linear / 32].alive--;
    w.warpgroups[f->linear / WARPGROUP].alive--;
    if (__tsan_release) {
        __tsan_release(&w.finished);
        __tsan_release(&w.block.token[w.block.generation % 2]);
    }
    run_next(w);
    abort();  // a finished fiber is never resumed
}

static void prepare(Fiber& f) {
    if (!f.stack) {
        f.stack = static_cast<char*>(mmap(nullptr, STACK_BYTES, PROT_READ | PROT_WRITE,
                                          MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));
        if (f.stack == MAP_FAILED) {
            perror("cpu_device: mmap");
            abort();
        }
    }
    *reinterpret_cast<uint64_t*>(f.stack) = CANARY;
    if (__tsan_create_fiber && !f.tsan) f.tsan = __tsan_create_fiber(0);
    // Stagger the stack tops: at equal addresses modulo 4 KB all fibers would share a few cache sets.
    void** sp = reinterpret_cast<void**>(f.stack + STACK_BYTES - f.linear % 128 * 320);
    *--sp = nullptr;                               // keeps rsp 16-byte aligned at fiber_main's entry
    *--sp = reinterpret_cast<void*>(&fiber_main);  // "return address" of the first switch
    for (int i = 0; i < 6; i++) *--sp = nullptr;   // callee-saved registers
    f.sp = sp;
    f.state = State::Ready;
    f.unfenced.clear();
}

// Shared memory of exactly the size asked for, full of NaNs (reading what nobody wrote shows up), then a
// guard.
static void prepare_shared(Worker& w, size_t bytes) {
    if (w.smem_bytes != bytes || !w.smem) {
        if (w.smem && __asan_unpoison_memory_region)
            __asan_unpoison_memory_region(w.smem + w.smem_bytes, GUARD_BYTES);
        free(w.smem);
        if (posix_memalign(reinterpret_cast<void**>(&w.smem), 1024, bytes + GUARD_BYTES)) abort();
        w.smem_bytes = bytes;
        memset(w.smem + bytes, GUARD, GUARD_BYTES);
        if (__asan_poison_memory_region) __asan_poison_memory_region(w.smem + bytes, GUARD_BYTES);
    }
    memset(w.smem, 0xFF, bytes);
}

// Fails if the block has written to what is behind shared memory. AddressSanitizer sees it when it happens.
static void check_guard(dim3 bid, size_t bytes, const void* behind, size_t bytes_behind) {
    for (size_t i = 0; i < bytes_behind && !__asan_poison_memory_region; i++)
        if (static_cast<const unsigned char*>(behind)[i] != GUARD) {
            fprintf(stderr,
                    "cpu_device: block (%u,%u,%u) wrote past %zu bytes of shared memory (%zu bytes past the "
                    "end)\n",
                    bid.x, bid.y, bid.z, bytes, i);
            abort();
        }
}

void run_block(dim3 grid, dim3 block, dim3 bid, size_t smem_bytes, void (*entry)(void*), void* closure) {
    Worker& w = worker();
    gridDim = grid;
    blockDim = block;
    blockIdx = bid;
    const int n = block.x * block.y * block.z;
    w.num_threads = n;
    w.block_number++;
    w.statics.clear();
    w.entry = entry;
    w.closure = closure;
    w.head = w.tail = 0;
    w.block.size = w.block.alive = n;
    w.block.arrived = 0;
    for (int i = 0; i * 32 < n; i++) {
        w.warps[i].size = w.warps[i].alive = std::min(32, n - i * 32);
        w.warps[i].arrived = 0;
        w.products[i] = {};
    }
    for (int i = 0; i * WARPGROUP < n; i++) {
        w.warpgroups[i].size = w.warpgroups[i].alive = std::min(WARPGROUP, n - i * WARPGROUP);
        w.warpgroups[i].arrived = 0;
    }
    w.unfenced_by.assign((smem_bytes + 15) / 16, 0);
    prepare_shared(w, smem_bytes);
    int order[MAX_BLOCK];
    for (int i = 0; i < n; i++) order[i] = schedule == Schedule::Reverse ? n - 1 - i : i;
    if (schedule == Schedule::Random)
        for (int i = n - 1; i > 0; i--) {
            w.rng = w.rng * 6364136223846793005ull + 1442695040888963407ull;
            std::swap(order[i], order[(w.rng >> 33) % (i + 1)]);
        }
    for (int i = 0; i < n; i++) {
        Fiber& f = w.fibers[order[i]];
        f.linear = order[i];
        f.tid = dim3(order[i] % block.x, order[i] / block.x % block.y, order[i] / (block.x * block.y));
        prepare(f);
        w.push(&f);
    }
    if (__tsan_get_current_fiber) w.main.tsan = __tsan_get_current_fiber();
    if (__tsan_release) __tsan_release(&w.started);
    w.self = &w.main;
    switch_to(w, w.pop());
    if (__tsan_acquire) __tsan_acquire(&w.finished);
    for (const Group& g : w.named)
        if (g.arrived)
            fail("a block ended after threads had arrived at a named barrier that others never reached",
                 __FILE__, __LINE__);
    check_guard(bid, smem_bytes, w.smem + smem_bytes, GUARD_BYTES);
    for (const StaticGuard& s : w.statics) check_guard(bid, s.bytes, s.behind, s.bytes_behind);
}

void poison(void* p, size_t bytes) {
    memset(p, 0xFF, bytes);
    if (__tsan_write_range) __tsan_write_range(p, bytes);
}
void poison_once(void* p, size_t bytes, void* behind, size_t bytes_behind, uint64_t& block) {
    Worker& w = worker();
    if (block == w.block_number) return;
    block = w.block_number;
    // Not memset, which sanitizers watch: to them, nobody has written this.
    for (size_t i = 0; i < bytes; i++) static_cast<volatile unsigned char*>(p)[i] = 0xFF;
    if (__asan_poison_memory_region) return __asan_poison_memory_region(behind, bytes_behind);
    for (size_t i = 0; i < bytes_behind; i++) static_cast<volatile unsigned char*>(behind)[i] = GUARD;
    w.statics.push_back({bytes, behind, bytes_behind});
}
void poison_scratch(void* p, size_t bytes, size_t behind) {
    if (__asan_unpoison_memory_region) __asan_unpoison_memory_region(p, bytes);
    if (__asan_poison_memory_region) __asan_poison_memory_region(static_cast<char*>(p) + bytes, behind);
    memset(p, 0xFF, bytes);
}
void finish_pending() {
    for (const CopyQueue::Copy& c : pending()) memcpy(c.dst, c.src, c.bytes);
    pending().clear();
}

void check_launch(dim3 grid, dim3 block, size_t smem, size_t most_smem) {
    const bool taken = grid.x && grid.y && grid.z && grid.x <= INT32_MAX && grid.y <= MAX_GRID_YZ &&
                       grid.z <= MAX_GRID_YZ && block.x && block.y && block.z && block.z <= 64 &&
                       int64_t(block.x) * block.y * block.z <= MAX_BLOCK && smem <= most_smem;
    if (taken) return;
    fprintf(stderr,
            "cpu_device: no device takes a launch of (%u,%u,%u) blocks of (%u,%u,%u) threads with %zu bytes "
            "of shared memory\n",
            grid.x, grid.y, grid.z, block.x, block.y, block.z, smem);
    fflush(stderr);
    abort();
}

void* dynamic_shared() { return worker().smem; }
size_t shared_bytes() { return worker().smem_bytes; }
size_t shared_offset(const void* p, const char* file, int line) {
    const Worker& w = worker();
    const uintptr_t offset = reinterpret_cast<uintptr_t>(p) - reinterpret_cast<uintptr_t>(w.smem);
    if (offset >= w.smem_bytes) fail("an address that is not in dynamic shared memory", file, line);
    return offset;
}
int lane_id() { return worker().self->linear % 32; }
int warp_id() { return worker().self->linear / 32; }
static void copied(Worker& w, void* dst) {
    const uintptr_t offset = reinterpret_cast<uintptr_t>(dst) - reinterpret_cast<uintptr_t>(w.smem);
    if (offset >= w.smem_bytes) return;  // a static array
    uint16_t& by = w.unfenced_by[offset / 16];
    if (by == w.self->linear + 1) return;
    by = uint16_t(w.self->linear + 1);
    w.self->unfenced.push_back(uint32_t(offset / 16));
}
void fence_copies() {
    Worker& w = worker();
    for (const uint32_t chunk : w.self->unfenced)
        if (w.unfenced_by[chunk] == w.self->linear + 1) {
            w.unfenced_by[chunk] = 0;
            // as if written now: a fence that comes after the barrier it should precede is a race
            if (__tsan_write_range) __tsan_write_range(w.smem + size_t(chunk) * 16, 16);
        }
    w.self->unfenced.clear();
}
bool fenced(size_t offset) { return worker().unfenced_by[offset / 16] == 0; }
ProductQueue& product_queue() { return worker().products[worker().self->linear / 32]; }
void CopyQueue::wait(size_t pending) {
    while (groups.size() > pending) {
        for (const Copy& c : groups.front()) {
            memcpy(c.dst, c.src, c.bytes);
            memset(static_cast<char*>(c.dst) + c.bytes, 0, 16 - c.bytes);
            if (__tsan_write_range) __tsan_write_range(c.dst, 16);
            copied(worker(), c.dst);
        }
        groups.erase(groups.begin());
    }
}
CopyQueue& copy_queue() { return worker().self->copies; }
bool& waited_for_kernels() { return worker().self->waited; }

// All threads have come to the group: the first n, where they wait, go on.
static void release(Worker& w, Group& g, int n) {
    g.arrived = 0;
    g.generation++;
    // Released lanes go to the front: a warp runs as far as it can while its stacks are in the cache.
    for (int i = n - 1; i >= 0; i--)
        if (g.waiting[i]) w.push_front(g.waiting[i]);
}

// Waits until `expected` threads have come to the group; the last one performs `combine`. ordered: what each of
// them did before is visible to all of them after.
static void meet(Worker& w, Group& g, int slot, int expected, bool ordered, void* mine,
                 void (*combine)(void**, uint32_t), const char* op, const char* file, int line) {
    Fiber* f = w.self;
    char* token = &g.token[g.generation % 2];
    if (__tsan_release && ordered) __tsan_release(token);
    g.args[slot] = mine;
    if (++g.arrived < expected) {
        f->state = State::Waiting;
        f->op = op;
        f->file = file;
        f->line = line;
        g.waiting[g.arrived - 1] = f;
        run_next(w);
        f->state = State::Ready;
    } else {
        if (__tsan_acquire && ordered) __tsan_acquire(token);
        if (combine) combine(g.args, g.mask);
        if (__tsan_release && ordered) __tsan_release(token);
        release(w, g, expected - 1);
    }
    if (__tsan_acquire && ordered) __tsan_acquire(token);
}

// The one synchronisation primitive. `mask` selects lanes of the warp; for larger groups it is ignored.
void collective(Scope scope, uint32_t mask, void* mine, void (*combine)(void**, uint32_t), const char* op,
                const char* file, int line) {
    Worker& w = worker();
    Fiber* f = w.self;
    Group& g = scope == Scope::Block       ? w.block
               : scope == Scope::Warpgroup ? w.warpgroups[f->linear / WARPGROUP]
                                           : w.warps[f->linear / 32];
    const int slot = scope == Scope::Block       ? f->linear
                     : scope == Scope::Warpgroup ? f->linear % WARPGROUP
                                                 : f->linear % 32;
    int expected = g.size;
    if (scope == Scope::Warp) {
        mask &= (g.size == 32) ? 0xFFFFFFFFu : (1u << g.size) - 1;
        expected = __builtin_popcount(mask);
        if (!(mask >> slot & 1)) fail("a lane that is not in the mask called a warp collective", file, line);
    }
    if (scope == Scope::Warpgroup && g.size < WARPGROUP)
        fail("the block's last warpgroup is not whole: wgmma takes four warps", file, line);
    if (g.alive < expected) fail("a thread returned before a collective that the others reach", file, line);
    if (g.arrived == 0) {
        g.op = op;
        g.file = file;
        g.line = line;
        g.mask = mask;
    } else if (strcmp(g.op, op) || g.mask != mask || g.line != line) {
        fprintf(stderr, "cpu_device: divergent collective: %s at %s:%d meets %s at %s:%d\n", op,
                base_name(file), line, g.op, base_name(g.file), g.line);
        fail("divergent collective", file, line);
    }
    meet(w, g, slot, expected, scope != Scope::Warpgroup, mine, combine, op, file, line);
}

// A named barrier that whole warps, `threads` in all, come to, perhaps at different places.
static Group& named(Worker& w, int id, int threads, const char* file, int line) {
    if (id < 1 || id >= NAMED_BARRIERS)
        fail("a named barrier that is none of 1..15 (0 is __syncthreads)", file, line);
    if (threads <= 0 || threads % 32 || threads > w.num_threads)
        fail("a named barrier of no whole number of the block's warps", file, line);
    Group& g = w.named[id];
    if (g.arrived == 0)
        g.mask = uint32_t(threads);
    else if (g.mask != uint32_t(threads))
        fail("a named barrier whose threads disagree on how many they are", file, line);
    return g;
}
void named_barrier(int id, int threads, const char* file, int line) {
    Worker& w = worker();
    Group& g = named(w, id, threads, file, line);
    meet(w, g, g.arrived, threads, true, nullptr, nullptr, "a named barrier", file, line);
}
void named_barrier_arrive(int id, int threads, const char* file, int line) {
    Worker& w = worker();
    Group& g = named(w, id, threads, file, line);
    if (__tsan_release) __tsan_release(&g.token[g.generation % 2]);
    g.waiting[g.arrived++] = nullptr;
    if (g.arrived == threads) release(w, g, threads);
}

// In this file, which no sanitizer watches: threads that merely issue together are not ordered by it.
void warpgroup_agree(const uint64_t (&values)[4], const char* op, const char* file, int line) {
    struct Args {
        uint64_t values[4];
        const char* file;
        int line;
    } mine{{values[0], values[1], values[2], values[3]}, file, line};
    collective(
        Scope::Warpgroup, 0, &mine,
        [](void** all, uint32_t) {
            const Args& first = *static_cast<const Args*>(all[0]);
            for (int i = 1; i < WARPGROUP; i++)
                for (int v = 0; v < 4; v++)  // memcmp would be watched, wherever it is called
                    if (static_cast<const Args*>(all[i])->values[v] != first.values[v])
                        fail("the threads of a warpgroup pass different descriptors or flags", first.file,
                             first.line);
        },
        op, file, line);
}

}  // namespace cpu_device
