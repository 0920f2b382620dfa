#include <gtest/gtest.h>

#include <cstring>

#include "utils/arena.h"

TEST(Arena, PlansThenAllocatesZeros) {
    Arena arena("weights", host_memory());
    Tensor a, b, c;
    arena.add(&a, "a", 3, 5);
    arena.add(&b, "b", 1, 7, DType::BF16);
    arena.add(&c, "c", 2, 2, DType::I32);
    EXPECT_EQ(arena.bytes(), 3u * 256);  // each starts on a multiple of 256 bytes
    EXPECT_EQ(a.data, nullptr);
    arena.allocate();
    for (const Tensor* t : {&a, &b, &c}) {
        EXPECT_EQ(reinterpret_cast<uintptr_t>(t->data) % 256, 0u);
        for (size_t i = 0; i < t->bytes(); i++) ASSERT_EQ(static_cast<char*>(t->data)[i], 0);
    }
    memset(a.data, 1, a.bytes());
    memset(c.data, 2, c.bytes());
    EXPECT_EQ(b.as<Bf16>()[6].bits, 0) << "tensors overlap";
    EXPECT_EQ(a.rows, 3);
    EXPECT_EQ(a.stride, 5);
    EXPECT_EQ(b.dtype, DType::BF16);
}

TEST(Arena, MisuseThrows) {
    Arena arena("x", host_memory());
    Tensor a;
    arena.add(&a, "a", 1, 1);
    arena.allocate();
    EXPECT_THROW(arena.add(&a, "late", 1, 1), Error);
    EXPECT_THROW(arena.allocate(), Error);
}

TEST(Arena, EmptyOnesAreFine) {
    Arena arena("empty", host_memory());
    arena.allocate();
    Arena zero("zero", host_memory());
    Tensor t;
    zero.add(&t, "t", 0, 8);
    zero.allocate();
    EXPECT_EQ(zero.bytes(), 0u);
}

TEST(Arena, TooLargeSaysSo) {
    Arena arena("huge", host_memory());
    Tensor t;
    arena.add(&t, "t", int64_t(1) << 30, int64_t(1) << 22);  // 16 PiB
    EXPECT_EQ(arena.bytes(), size_t(1) << 54);
    try {
        arena.allocate();
        FAIL();
    } catch (const Error& e) {
        EXPECT_EQ(e.code, Exit::NoMemory);
        EXPECT_NE(std::string(e.what()).find("MiB"), std::string::npos);
    }
}

TEST(Arena, KnowsWhatMemoryThereIs) {
    EXPECT_GT(available_host_memory(), size_t(16) << 20);
    EXPECT_LT(available_host_memory(), size_t(1) << 50);
}

TEST(SharedMemory, LiesInOneBlockAndSaysWhoLostIt) {
    SharedMemory shared(host_memory());
    Arena small("small", shared), large("large", shared);
    Tensor a, b;
    small.add(&a, "a", 1, 8);
    large.add(&b, "b", 100, 8);
    shared.reserve(large.bytes());
    small.allocate();
    large.allocate();
    EXPECT_EQ(a.data, b.data);
    EXPECT_TRUE(large.claim());
    EXPECT_FALSE(large.claim());
    EXPECT_TRUE(small.claim());
    EXPECT_TRUE(large.claim());
    Arena alone("alone", host_memory());
    EXPECT_FALSE(alone.claim());
    Arena larger("larger", shared);
    Tensor c;
    larger.add(&c, "c", 200, 8);
    EXPECT_THROW(larger.allocate(), Error);  // planned after the block
}

TEST(Arena, PrintsItsPlan) {
    Arena arena("weights", host_memory());
    Tensor t;
    arena.add(&t, "layers.0.q", 1024, 512, DType::BF16);
    char* text = nullptr;
    size_t size = 0;
    FILE* out = open_memstream(&text, &size);
    arena.print(out);
    fclose(out);
    const std::string plan(text, size);
    free(text);
    EXPECT_NE(plan.find("layers.0.q"), std::string::npos);
    EXPECT_NE(plan.find("(1024, 512) BF16 1.00 MiB"), std::string::npos) << plan;
}
