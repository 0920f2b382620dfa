// The pairs' losses on CUDA against the CPU's: the same functions in double.
#include "tests/cuda_testing.h"
// after the references' scalar
#include "tests/random_pairs.h"

namespace {

struct Gradients {
    std::vector<double> policy, value;
};
Gradients gradients_on(Ops& ops, const std::vector<float>& output, const std::vector<LossPair>& pairs,
                       double clip, double kl_beta) {
    const int64_t N = int64_t(pairs.size());
    const DeviceMatrix x(ops, 1, N, DType::F32, output), dlogprob(ops, 1, N, DType::F32),
        dvalue(ops, 1, N, DType::F32);
    const DeviceRecords<LossPair> on_device(ops, pairs);
    ops.policy_loss_backward(dlogprob, x, on_device, clip, 2 * clip, kl_beta);
    ops.value_loss_backward(dvalue, x, on_device, clip);
    return {dlogprob.read(), dvalue.read()};
}

// The emulation calls the host's exp; a GPU's own may differ in the last bit of a double.
void expect_same(const std::vector<double>& got, const std::vector<double>& want) {
    ASSERT_EQ(got.size(), want.size());
    const double allowed = cuda_device_count() ? 0x1p-23 : 0;
    for (size_t i = 0; i < want.size(); i++) {
        if (std::isnan(want[i])) {
            EXPECT_TRUE(std::isnan(got[i])) << i;
        } else {
            EXPECT_NEAR(got[i], want[i], allowed * std::abs(want[i])) << i;
        }
    }
}

}  // namespace

TEST(CudaPairLoss, GradientsAreTheCpus) {
    const auto cuda = cuda_ops_for_tests(), cpu = make_cpu_ops();
    for (const int N : {1, 31, 127, 128, 129, 1000}) {
        std::vector<float> output;
        std::vector<LossPair> pairs;
        random_pairs(output, pairs, N);
        const Gradients got = gradients_on(*cuda, output, pairs, 0.2, 0.05),
                        want = gradients_on(*cpu, output, pairs, 0.2, 0.05);
        expect_same(got.policy, want.policy);
        expect_same(got.value, want.value);
    }
}

// Where min, max and clamp decide, what is no number, and no pairs at all.
TEST(CudaPairLoss, EdgesAreTheCpus) {
    const auto cuda = cuda_ops_for_tests(), cpu = make_cpu_ops();
    std::vector<float> output;
    std::vector<LossPair> pairs;
    for (const double old : {-12.0, -2.0, 8.0, -12.5, 8.5, -HUGE_VAL, double(NAN)})  // clamped, or just not
        for (const double credit : {-1.0, 0.0, 1.0, double(NAN)})
            for (const int current : {0, 1})
                for (const float x : {-2.0f, NAN}) {
                    output.push_back(x);
                    pairs.push_back({.old = old, .credit = credit, .weight = 0.5, .current = current});
                }
    for (const double clip : {0.0, 0.2}) {  // 0: a ratio of one is at both of its bounds
        const Gradients got = gradients_on(*cuda, output, pairs, clip, 0.1),
                        want = gradients_on(*cpu, output, pairs, clip, 0.1);
        expect_same(got.policy, want.policy);
        expect_same(got.value, want.value);
        EXPECT_TRUE(std::isnan(got.policy[1]));  // a log-prob that is none
    }
    const Tensor none = tensor(nullptr, 1, 0);
    cuda->policy_loss_backward(none, none, records<LossPair>(nullptr, 0), 0.2, 0.2, 0.1);
    cuda->value_loss_backward(none, none, records<LossPair>(nullptr, 0), 0.2);
}

TEST(CudaPairLoss, RefusesOtherSizes) {
    const auto cuda = cuda_ops_for_tests();
    const DeviceMatrix x(*cuda, 1, 4, DType::F32), d(*cuda, 1, 3, DType::F32);
    const DeviceRecords<LossPair> pairs(*cuda, std::vector<LossPair>(4));
    EXPECT_THROW(cuda->policy_loss_backward(d, x, pairs, 0.2, 0.2, 0), Error);
    EXPECT_THROW(cuda->value_loss_backward(x, d, pairs, 0.2), Error);
}
