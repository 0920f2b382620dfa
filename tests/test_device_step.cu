// What a denoising step and an update decide on the device, against the functions of the host that define it.
#include <gtest/gtest.h>

#include "inference/reveal.h"
#include "kernels/cuda_kernels.h"
#include "tests/device_array.h"
#include "train/objective.h"
#include "utils/philox.h"

namespace {

struct Scratch {  // kernels that take a context but no workspace
    cuda::Workspace workspace{nullptr, 0};
    cuda::Context context{nullptr, workspace, nullptr};
};

std::vector<float> normals(size_t n, uint32_t seed, float scale) {
    Rng rng(seed, Stream::Noise, 3);
    std::vector<float> out(n);
    for (float& x : out) x = scale * rng.normal();
    return out;
}
std::vector<double> as_double(const std::vector<float>& x) { return {x.begin(), x.end()}; }

}  // namespace

TEST(DeviceReveal, DecidesAsTheHost) {
    Rng rng(1, Stream::Noise);
    std::vector<RevealBlock> blocks;
    std::vector<Sampled> sampled;
    std::vector<uint8_t> masked;
    for (int round = 0; round < 240; round++) {
        const int rows = 1 + int(rng.below(round % 10 ? 9 : 70));
        blocks.push_back(
            {int(sampled.size()), rows, int(rng.below(uint32_t(rows + 2))), RevealRule(round % 4), 0.5, 1.0});
        for (int i = 0; i < rows; i++) {  // coarse numbers: many ties; some that are none
            sampled.push_back({0, rng.below(12) ? float(rng.below(8)) / 8 : NAN, 0, float(rng.below(6)) / 4});
            masked.push_back(uint8_t(rng.below(4) > 0));
        }
    }
    const DeviceArray<RevealBlock> device_blocks(blocks);
    const DeviceArray<Sampled> device_sampled(sampled);
    const DeviceArray<uint8_t> device_masked(masked);
    const DeviceArray<uint8_t> revealed(std::vector<uint8_t>(masked.size(), 7));
    const DeviceArray<int> n_revealed(std::vector<int>(blocks.size(), -1));
    Scratch scratch;
    cuda::reveal_blocks(scratch.context, revealed.data(), n_revealed.data(), device_sampled.data(),
                        device_masked.data(), device_blocks.data(), int(blocks.size()));
    const std::vector<uint8_t> got = revealed.host();
    const std::vector<int> counts = n_revealed.host();
    for (size_t b = 0; b < blocks.size(); b++) {
        std::vector<char> m;
        std::vector<float> confidence, entropy;
        for (int i = 0; i < blocks[b].rows; i++) {
            const size_t at = size_t(blocks[b].first_row + i);
            m.push_back(char(masked[at]));
            confidence.push_back(sampled[at].confidence);
            entropy.push_back(sampled[at].entropy);
        }
        GenerateOptions options;
        options.remasking = Remasking(int(blocks[b].rule));
        options.threshold = blocks[b].threshold;
        options.eb_threshold = blocks[b].bound;
        const std::vector<int> want = reveal(m, confidence, entropy, blocks[b].n, options);
        std::vector<int> positions;
        for (int i = 0; i < blocks[b].rows; i++)
            if (got[size_t(blocks[b].first_row + i)]) positions.push_back(i);
        EXPECT_EQ(positions, want) << "block " << b;
        EXPECT_EQ(counts[b], int(want.size()));
    }
}

TEST(DeviceLoss, PolicyAgreesWithTheObjective) {
    for (const int n : {1, 7, 300}) {
        std::vector<float> logp_new = normals(size_t(n), 1, 1), logp_old = normals(size_t(n), 2, 1);
        const std::vector<float> advantage = normals(size_t(n), 3, 1), weight = normals(size_t(n), 4, 0.1f);
        logp_old[0] = logp_new[0] + 20;  // beyond the clamp
        if (n > 2) logp_old[1] = logp_new[1] - 20, logp_old[2] = logp_new[2];
        const ObjectiveOptions o{.kl_beta = 0.05, .clip_low = 0.1, .clip_high = 0.3};
        std::vector<double> want(static_cast<size_t>(n));
        const PolicyLoss loss = policy_loss(want, as_double(logp_new), as_double(logp_old),
                                            as_double(advantage), as_double(weight), o);
        const DeviceArray<float> d_new(logp_new), d_old(logp_old), d_advantage(advantage), d_weight(weight),
            gradient(std::vector<float>(size_t(n), NAN));
        const DeviceArray<double> sums(std::vector<double>(2, NAN));
        Scratch scratch;
        cuda::policy_loss(scratch.context, sums.data(), gradient.data(), d_new.data(), d_old.data(),
                          d_advantage.data(), d_weight.data(), n,
                          {.clip_low = 0.1, .clip_high = 0.3, .kl_beta = 0.05});
        EXPECT_NEAR(sums.host()[0], loss.policy, 1e-12 * std::max(1.0, std::abs(loss.policy)));
        EXPECT_NEAR(sums.host()[1], loss.kl, 1e-12 * std::max(1.0, std::abs(loss.kl)));
        const std::vector<float> got = gradient.host();
        for (size_t i = 0; i < got.size(); i++)
            EXPECT_NEAR(double(got[i]), want[i], 1e-7 * std::max(1.0, std::abs(want[i]))) << "pair " << i;
    }
}

TEST(DeviceLoss, ValueAgreesWithTheObjective) {
    for (const int n : {1, 300}) {
        const std::vector<float> value = normals(size_t(n), 1, 0.4f), old = normals(size_t(n), 2, 0.4f),
                                 returns = normals(size_t(n), 3, 0.4f), weight = normals(size_t(n), 4, 0.1f);
        std::vector<double> want(static_cast<size_t>(n));
        const double loss =
            value_loss(want, as_double(value), as_double(old), as_double(returns), as_double(weight), 0.2);
        const DeviceArray<float> d_value(value), d_old(old), d_returns(returns), d_weight(weight),
            gradient(std::vector<float>(size_t(n), NAN));
        const DeviceArray<double> sum(std::vector<double>(1, NAN));
        Scratch scratch;
        cuda::value_loss(scratch.context, sum.data(), gradient.data(), d_value.data(), d_old.data(),
                         d_returns.data(), d_weight.data(), n, 0.2);
        EXPECT_NEAR(sum.host()[0], loss, 1e-12);
        const std::vector<float> got = gradient.host();
        for (size_t i = 0; i < got.size(); i++) EXPECT_NEAR(double(got[i]), want[i], 1e-8) << "pair " << i;
    }
}
