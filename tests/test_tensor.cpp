#include <gtest/gtest.h>

#include <bit>
#include <cmath>

#include "utils/tensor.h"

TEST(Tensor, ViewsRowsAndColumns) {
    float data[12];
    for (int i = 0; i < 12; i++) data[i] = float(i);
    const Tensor t = tensor(data, 3, 4);
    EXPECT_EQ(t.row<float>(2)[1], 9.0f);
    const Tensor rows = t.row_range(1, 3);
    EXPECT_EQ(rows.rows, 2);
    EXPECT_EQ(rows.row<float>(0)[0], 4.0f);
    EXPECT_TRUE(rows.contiguous());
    const Tensor cols = t.col_range(1, 3);
    EXPECT_EQ(cols.cols, 2);
    EXPECT_EQ(cols.row<float>(1)[1], 6.0f);
    EXPECT_FALSE(cols.contiguous());
    EXPECT_TRUE(cols.row_range(0, 1).contiguous());
    EXPECT_EQ(t.bytes(), 48u);
    EXPECT_TRUE(bool(t));
    EXPECT_FALSE(bool(Tensor{}));
    EXPECT_THROW(t.as<int>(), Error);
    EXPECT_THROW(t.as<Bf16>(), Error);
}

TEST(Tensor, Bf16RoundsToNearestEven) {
    const auto round = [](uint32_t bits) { return to_bf16(std::bit_cast<float>(bits)).bits; };
    EXPECT_EQ(round(0x3f800000), 0x3f80);  // 1
    EXPECT_EQ(round(0x3f808000), 0x3f80);  // half way: to even, down
    EXPECT_EQ(round(0x3f818000), 0x3f82);  // half way: to even, up
    EXPECT_EQ(round(0x3f808001), 0x3f81);
    EXPECT_EQ(round(0x3f817fff), 0x3f81);
    EXPECT_EQ(round(0x80000000), 0x8000);  // -0
    EXPECT_EQ(round(0x7f800000), 0x7f80);  // infinity
    EXPECT_EQ(round(0x7f7fffff), 0x7f80);  // overflows to it
    EXPECT_EQ(round(0x00000001), 0x0000);
    EXPECT_TRUE(std::isnan(to_float(to_bf16(NAN))));
    EXPECT_TRUE(std::isnan(
        to_float(to_bf16(std::bit_cast<float>(0x7f800001)))));  // its payload is in the bits cut off
    EXPECT_TRUE(std::isnan(to_float(to_bf16(std::bit_cast<float>(0xff800001)))));
}

TEST(Tensor, EveryBf16SurvivesTheRoundTrip) {
    for (uint32_t bits = 0; bits < 0x10000; bits++) {
        const float x = to_float({uint16_t(bits)});
        if (std::isnan(x)) continue;
        ASSERT_EQ(to_bf16(x).bits, bits);
    }
}

TEST(Tensor, EveryHalfIsExact) {
    for (uint32_t bits = 0; bits < 0x8000; bits++) {
        const int exponent = int(bits >> 10), fraction = int(bits & 1023);
        const float x = half_to_float(uint16_t(bits)), negative = half_to_float(uint16_t(bits | 0x8000));
        if (exponent == 31) {
            ASSERT_TRUE(fraction ? std::isnan(x) : x == INFINITY);
            continue;
        }
        const double expected =
            exponent ? std::ldexp(1024 + fraction, exponent - 25) : std::ldexp(fraction, -24);
        ASSERT_EQ(double(x), expected) << bits;
        ASSERT_EQ(double(negative), -expected);
        ASSERT_EQ(std::signbit(negative), true);
    }
}
