// philox.h -- counter-based random numbers (Philox4x32-10; Salmon et al., "Parallel random numbers: as easy as 1, 2, 3").
//
// A number is a pure function of its key and counter, so a sample does not depend on who shares its batch.
#pragma once
#include <array>
#include <cstddef>
#include <cstdint>

constexpr std::array<uint32_t, 4> philox(uint64_t key, std::array<uint32_t, 4> counter) {
    uint32_t k0 = uint32_t(key), k1 = uint32_t(key >> 32);
    for (int round = 0; round < 10; round++) {
        const uint64_t a = uint64_t(0xD2511F53) * counter[0], b = uint64_t(0xCD9E8D57) * counter[2];
        counter = {uint32_t(b >> 32) ^ counter[1] ^ k0, uint32_t(b), uint32_t(a >> 32) ^ counter[3] ^ k1,
                   uint32_t(a)};
        k0 += 0x9E3779B9;
        k1 += 0xBB67AE85;
    }
    return counter;
}

// Uniform in [0, 1) with 24 bits; exact in fp32.
constexpr float uniform(uint32_t bits) { return float(bits >> 8) * 0x1p-24f; }
// The same with 53 bits; exact in double.
constexpr double uniform(uint32_t high, uint32_t low) {
    return double((uint64_t(high) << 32 | low) >> 11) * 0x1p-53;
}

// The purposes that share a seed; each has a stream of its own.
enum class Stream : uint32_t { Sample = 0, Init = 1, Shuffle = 2, Mask = 3, Task = 4, Noise = 5 };

// A sequential generator over one stream, for everything that is not per token: data, masks, initial weights.
class Rng {
  public:
    Rng(uint64_t seed, Stream stream, uint32_t substream = 0)
        : seed_(seed), stream_(stream), substream_(substream) {}
    uint32_t next() {
        if (left_ == 0) {
            block_ =
                philox(seed_, {uint32_t(counter_), uint32_t(counter_ >> 32), uint32_t(stream_), substream_});
            counter_++;
            left_ = 4;
        }
        return block_[std::size_t(4 - left_--)];
    }
    float uniform() { return ::uniform(next()); }
    // Unbiased integer in [0, n).
    uint32_t below(uint32_t n) {
        const uint32_t limit = uint32_t(-n) % n;  // 2^32 mod n values at the bottom would be too likely
        for (;;) {
            const uint64_t product = uint64_t(next()) * n;
            if (uint32_t(product) >= limit) return uint32_t(product >> 32);
        }
    }
    float normal();  // Box-Muller

  private:
    uint64_t seed_, counter_ = 0;
    Stream stream_;
    uint32_t substream_;
    std::array<uint32_t, 4> block_{};
    int left_ = 0;
};
