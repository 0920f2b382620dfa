// stochastic_rounding.h -- fp32 to one of its two bf16 neighbours, to the nearer one more often, so that many small
// changes of a bf16 number add up to the right sum on average.
//
// With beta2 = 0.999 a second moment changes by a thousandth per update, less than half of bf16's spacing: rounded to
// nearest it would never move.
#pragma once
#include <bit>

#include "utils/philox.h"

// The random bits for elements 4 quad, ..., 4 quad + 3 of a tensor of n elements in an update: 32 for each. They
// depend on nothing else, so a run can be repeated.
constexpr std::array<uint32_t, 4> rounding_bits(int64_t n, int64_t quad, int64_t update) {
    return philox(uint64_t(n), {uint32_t(quad), uint32_t(uint64_t(quad) >> 32), uint32_t(Stream::Noise),
                                uint32_t(update)});
}

// x with the lower 16 bits of its pattern zero: adds 16 random bits below the last one that stays, then cuts, which
// rounds up as often as x is near the upper neighbour. What is not finite stays.
constexpr float round_stochastically(float x, uint32_t bits16) {
    const uint32_t u = std::bit_cast<uint32_t>(x);
    const bool finite = (u & 0x7f800000u) != 0x7f800000u;
    return finite ? std::bit_cast<float>((u + (bits16 & 0xffffu)) & 0xffff0000u) : x;
}
