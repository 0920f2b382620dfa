// How often the host waits for a device during an update: the emulation counts.
#include <gtest/gtest.h>

#include "kernels/cuda_ops.h"
#include "kernels/device/device.h"
#include "tests/random_records.h"
#include "train/learner.h"
#include "train/rl_update.h"

namespace {

struct Networks {
    std::unique_ptr<Ops> ops = make_cuda_ops(0, size_t(1) << 20);
    ModelConfig config = random_family_config(Family::Sdar, 4);
    Learner policy, value;
    TrainingBatch batch;
    RlOptions options;
    int passes;

    explicit Networks(bool old_values, const MicroBatchLimits& limits)
        : policy(*ops, config, Head::Policy, 4, limits, {}, {}),
          value(*ops, config, Head::Value, 4, limits, {}, {}) {
        policy.allocate();
        value.allocate();
        policy.initialize(1);
        value.initialize(2);
        Rng rng(3, Stream::Mask);
        std::vector<Record> records;
        for (int k = 0; k < 40; k++) {
            Record& r = records.emplace_back(random_record(rng, config, 4, 5, 4));
            r.group = k / 2;
            r.reward = k % 2;
            if (old_values) r.old_values.assign(4, 0.1);
        }
        batch = prepare(records, {4, config.mask_id}, options, true, rng);
        passes = int(cut_micro_batches(batch.sequences, 4, limits).size());
    }
    int64_t waits_of_an_update() {
        const int64_t before = cpu_device::waits();
        accumulate(batch, all_responses(batch), *policy.network, value.network.get(), options);
        return cpu_device::waits() - before;
    }
};

}  // namespace

// Outputs come to the host after the last pass, or when those of 16 fill their place on the device; between forward and
// backward only where returns are made of the values of the same pass.
TEST(UpdateWaits, OnceForAllPasses) {
    Networks known(true, {160, 16}), unknown(false, {160, 16});
    ASSERT_GT(known.passes, 5);
    ASSERT_LE(known.passes, 16);
    EXPECT_EQ(known.waits_of_an_update(), 2);                     // one for each network
    EXPECT_EQ(unknown.waits_of_an_update(), unknown.passes + 1);  // one for every pass of the value model

    Networks many(true, {80, 4});
    ASSERT_EQ(many.passes, 40);
    EXPECT_EQ(many.waits_of_an_update(), 2 * 3);
}
