// Memory in training is what was planned: activations, gradients and optimizer state live in arenas made at the start. After
// it an update maps nothing, makes nothing the size of an activation, and leaves nothing behind: what it does make are the
// lists of its batch. And the program's peak is what --dry-run says.
#include <gtest/gtest.h>
#include <malloc.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>
#include <cstdlib>
#include <new>

#include "inference/engine.h"
#include "tests/programs.h"
#include "tests/random_model.h"
#include "tests/random_records.h"
#include "tests/temporary_folder.h"
#include "tokenizer/byte_tokenizer.h"
#include "train/learner.h"
#include "train/rl_update.h"
#include "utils/files.h"
#include "utils/json.h"
#include "weights_tools/init_folder.h"

#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
// ---- every allocation of this program, watched while `watching`: the heap's by operator new, an arena's by mmap

namespace {
std::atomic<bool> watching{false};
std::atomic<size_t> largest{0}, mapped{0};
std::atomic<int64_t> alive{0};  // bytes on the heap

void* heap(size_t bytes, size_t alignment) {
    if (watching)
        for (size_t was = largest; bytes > was && !largest.compare_exchange_weak(was, bytes);) {
        }
    void* block = nullptr;
    if (posix_memalign(&block, std::max(alignment, sizeof(void*)), std::max<size_t>(bytes, 1)))
        throw std::bad_alloc();
    alive += int64_t(malloc_usable_size(block));
    return block;
}

void give_back(void* block) {
    alive -= int64_t(malloc_usable_size(block));
    free(block);
}
}  // namespace

void* operator new(size_t bytes) { return heap(bytes, alignof(std::max_align_t)); }
void* operator new(size_t bytes, std::align_val_t alignment) { return heap(bytes, size_t(alignment)); }
void operator delete(void* block) noexcept { give_back(block); }
void operator delete(void* block, size_t) noexcept { give_back(block); }
void operator delete(void* block, std::align_val_t) noexcept { give_back(block); }
void operator delete(void* block, size_t, std::align_val_t) noexcept { give_back(block); }

extern "C" void* mmap(void* at, size_t bytes, int protection, int flags, int file, off_t offset) noexcept {
    if (watching) mapped += bytes;
    return reinterpret_cast<void*>(syscall(SYS_mmap, at, bytes, protection, flags, file, offset));
}
#endif

namespace {

// Records of a batch, about `tokens` tokens in training.
std::vector<Record> records_of(const ModelConfig& c, int block, int n, uint64_t seed) {
    Rng rng(seed, Stream::Task);
    std::vector<Record> out;
    for (int i = 0; i < n; i++) {
        out.push_back(random_record(rng, c, block, 5, 24));
        out.back().group = i / 2;
        out.back().reward = double(i % 2);
    }
    return out;
}

}  // namespace

#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
TEST(PlannedMemory, UpdatesAllocateNothingButTheListsOfTheirBatch) {
    const ModelConfig c = random_family_config(Family::Sdar, 4);
    const std::unique_ptr<Ops> ops = make_cpu_ops();
    const MicroBatchLimits limits = {2048, 512};
    Learner policy(*ops, c, Head::Policy, 4, limits, {}), value(*ops, c, Head::Value, 4, limits, {});
    policy.allocate();
    value.allocate();
    initialize(policy.weights, c, 1);
    Rng rng(1, Stream::Mask);
    RlOptions o;
    o.keep.all = true;
    int64_t tokens = 0;
    const auto update = [&](int n, uint64_t seed) {
        const std::vector<Record> records = records_of(c, 4, n, seed);
        TrainingBatch batch = prepare(records, {4, c.mask_id}, o, true, rng);
        evaluate_old(batch, *policy.network, value.network.get());
        const int64_t before = policy.network->tokens_forwarded();
        accumulate(batch, all_responses(batch), *policy.network, value.network.get(), o);
        tokens = policy.network->tokens_forwarded() - before;
        policy.step();
        value.step();
    };
    update(2, 1);  // starts everything up
    update(17, 2);
    const int64_t before = alive;
    watching = true;
    update(17, 2);
    watching = false;
    EXPECT_EQ(alive, before) << "an update leaves something behind";
    EXPECT_GT(tokens, 1000) << "one pass near the limit";
    EXPECT_EQ(mapped, 0u) << "an arena";
    // What a batch is made of (24 bytes of spans per token, in vectors that double) is not counted; the smallest
    // activation of every token is.
    EXPECT_LT(largest, size_t(tokens) * size_t(c.kv_width()) * sizeof(float));
    EXPECT_GT(largest, 0u) << "nothing was watched";
}

TEST(PlannedMemory, GenerationMapsNothingAndLeavesNothingBehind) {
    const ModelConfig c = random_family_config(Family::Sdar, 4);
    const RandomModel model(c);
    Arena arena("engine", *model.ops);
    Engine engine(*model.ops, c, model.weights, {.max_active = 4, .max_rows = 64, .kv_slots = 200}, c.V,
                  arena);
    arena.allocate();
    std::vector<Request> requests(6);
    for (Request& r : requests) {
        r.prompt_ids = {1, 2, 3, 4, 5, 6, 7};
        r.options.gen_length = 20;
        r.options.block = 4;
    }
    engine.generate(requests);  // starts everything up
    const int64_t before = alive;
    watching = true;
    EXPECT_EQ(engine.generate(requests).size(), requests.size());
    watching = false;
    EXPECT_EQ(alive, before);
    EXPECT_EQ(mapped, 0u) << "packed copies of weights are in the plan too";
}
#endif

TEST(PlannedMemory, PeakOfAnUpdateIsWhatDryRunSays) {
    if (SANITIZED) GTEST_SKIP() << "a sanitizer's own memory counts";
    const TemporaryFolder folder;
    const ModelConfig c =
        init_config("tiny", {BYTE_VOCABULARY, BYTE_MASK, {BYTE_IM_END, BYTE_END_OF_TEXT}}, {});
    make_folders(folder.file("policy"));
    init_folder(folder.file("policy"), c, 1, DType::F32, [](uint64_t) {});
    ASSERT_EQ(run_command(program("convert") + " value-init " + folder.file("policy") + " --out " +
                          folder.file("critic"))
                  .code,
              0);
    std::string lines;
    for (const Record& r : records_of(c, 4, 30, 3)) lines += dump(to_json(r)) + "\n";
    write_file_atomic(folder.file("records.jsonl"), lines);
    const std::string base = program("train_tracerl") + " --device cpu --threads 1 --progress none --model " +
                             folder.file("policy") + " --replay " + folder.file("records.jsonl") +
                             " --keep-accuracy all --value-model " + folder.file("critic");
    const Outcome plan = run_command(base + " --dry-run"), real = run_command(base);
    ASSERT_EQ(plan.code, 0);
    ASSERT_EQ(real.code, 0);
    const size_t sum = plan.out.rfind("sum");
    ASSERT_NE(sum, std::string::npos) << plan.out;
    const double planned = std::atof(plan.out.c_str() + sum + 3);
    const Json memory = parse_json(real.out, "stdout").at("memory");
    EXPECT_NEAR(memory.at("planned_mib").get<double>(), planned, 0.06);
    EXPECT_GT(planned, 100);
    // The libraries of a program that could use a GPU are large, and nobody's plan.
    const double used =
        memory.at("host_peak_mib").get<double>() - memory.at("host_program_mib").get<double>();
    EXPECT_GT(memory.at("host_program_mib").get<double>(), 1);
    EXPECT_NEAR(used, planned, 0.05 * planned + 32);
}
