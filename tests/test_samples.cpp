// A response as it is shown to people: which token was revealed when.
#include <gtest/gtest.h>

#include "train/samples.h"

TEST(Samples, EveryTokenHasItsStepBelow) {
    const std::vector<std::string> pieces = {"a\n", "bcd", "中", ""};
    TextCodec codec;
    codec.decode = [&](std::span<const int> ids) {
        EXPECT_EQ(ids.size(), 1u);
        return pieces[size_t(ids[0])];
    };
    Response r;
    r.text = "text";
    r.reward = 1;
    r.trajectory.output_ids = {0, 1, 2, 1, 3};
    r.trajectory.step_map = {12, 1, 3, 104, 2};
    r.trajectory.forward_passes = 7;
    Problem p;
    p.prompt = "1+1=";
    EXPECT_EQ(reveal_order(r, p, codec),
              "  1+1=  text (right), 5 tokens in 7 forward passes\n"
              "    a  bcd 中 bcd . \n"
              "    12 1   3  104 2 \n");
    r.reward = 0.5;
    EXPECT_NE(reveal_order(r, p, codec).find("text (wrong)"), std::string::npos);
}
