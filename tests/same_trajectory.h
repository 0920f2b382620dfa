// same_trajectory.h -- two generations that came out the same, log-probabilities apart.
#pragma once
#include <gtest/gtest.h>

#include "inference/trajectory.h"

inline void expect_same_tokens(const Trajectory& got, const Trajectory& want, const std::string& what) {
    EXPECT_EQ(got.output_ids, want.output_ids) << what;
    EXPECT_EQ(got.step_map, want.step_map) << what;
    EXPECT_EQ(got.tail_ids, want.tail_ids) << what;
    EXPECT_EQ(got.tail_steps, want.tail_steps) << what;
    EXPECT_EQ(got.finish_reason, want.finish_reason) << what;
    EXPECT_EQ(got.denoise_steps, want.denoise_steps) << what;
}
