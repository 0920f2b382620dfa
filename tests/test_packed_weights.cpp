// Copies of small matrices beside a network's weights: which there are, that a network computes the same with them, and that
// generation never sees older weights than there are.
#include <gtest/gtest.h>

#include "inference/engine.h"
#include "model/packed_weights.h"
#include "model/transformer.h"
#include "tests/random_model.h"
#include "train/learner.h"

namespace {

ModelConfig config_of(bool tied) {
    ModelConfig c = random_model_config();
    c.tied = tied;
    return c;
}

}  // namespace

TEST(PackedWeights, AreBesideEveryMatrixThatRowsAreMultipliedWith) {
    for (const bool tied : {false, true}) {
        const ModelConfig c = config_of(tied);
        const RandomModel model(c);
        Arena arena("copies", host_memory());
        PackedWeights packed(*model.ops, c, model.weights, arena);
        arena.allocate();
        packed.renew();
        const Parameters& view = packed.view();
        for (const LayerParameters& p : view.layers) {
            for (const Tensor& t : {p.qkv, p.out, p.gate_up, p.down}) EXPECT_NE(t.packed, nullptr);
            for (const Tensor& t : {p.norm1, p.norm2, p.q_norm, p.k_norm}) EXPECT_EQ(t.packed, nullptr);
        }
        EXPECT_NE(view.lm_head.packed, nullptr);
        EXPECT_EQ(view.lm_head.data, model.weights.lm_head.data);
        EXPECT_EQ(view.embedding.packed != nullptr, tied);
        EXPECT_EQ(view.embedding.data, model.weights.embedding.data);
        EXPECT_EQ(model.weights.lm_head.packed, nullptr) << "training reads the weights themselves";
    }
}

// A device that wants no copies: nothing is planned, and the view is the weights.
TEST(PackedWeights, AreNotPlannedForAGpu) {
    const ModelConfig c = config_of(false);
    const std::unique_ptr<Ops> gpu = make_planned_ops(size_t(1) << 30);
    Arena weight_arena("weights", *gpu), arena("copies", *gpu);
    Parameters weights;
    weights.plan(weight_arena, c, Head::Policy);
    const PackedWeights packed(*gpu, c, weights, arena);
    EXPECT_EQ(arena.bytes(), 0u);
    EXPECT_EQ(packed.view().layers.size(), weights.layers.size());
}

TEST(PackedWeights, GiveANetworkTheSameBits) {
    for (const bool tied : {false, true}) {
        const ModelConfig c = config_of(tied);
        const RandomModel model(c);
        Arena arena("network", host_memory());
        KvCache cache;
        cache.plan(arena, c, 8);
        PackedWeights packed(*model.ops, c, model.weights, arena);
        Transformer with(*model.ops, c, packed.view(), arena, 8, 8, &cache),
            without(*model.ops, c, model.weights, arena, 8, 8, &cache);
        Tensor logits[2];
        for (Tensor& t : logits) arena.add(&t, "logits", 8, c.V);
        arena.allocate();
        packed.renew();
        for (int T = 1; T <= 8; T++) {
            TokenBatch batch;
            for (int t = 0; t < T; t++) {
                batch.add(3 * t + 1, t, t, {.begin = {0, 0, 0}, .end = {0, 0, T}});
                batch.target_row.push_back(t);
            }
            const Tensor a = logits[0].row_range(0, T), b = logits[1].row_range(0, T);
            model.ops->linear_forward(a, with.forward(batch), with.weights().lm_head);
            model.ops->linear_forward(b, without.forward(batch), without.weights().lm_head);
            for (int64_t i = 0; i < a.size(); i++) ASSERT_EQ(a.as<float>()[i], b.as<float>()[i]) << T;
        }
    }
}

// A rollout, an update, a rollout: the second is what an engine made for the new weights says, bit for bit, also where the
// update has used the rollout's memory in between.
TEST(PackedWeights, ARolloutAfterAnUpdateSeesTheNewWeights) {
    const ModelConfig c = config_of(true);
    for (const bool shared : {false, true}) {
        const std::unique_ptr<Ops> ops = make_cpu_ops();
        SharedMemory turns(*ops);
        Memory& memory = shared ? static_cast<Memory&>(turns) : *ops;
        Learner learner(*ops, c, Head::Policy, c.B, {64, 32}, {.lr = 0.05}, {.activations = &memory});
        const EngineLimits limits = {.max_active = 2, .max_rows = 40, .kv_slots = 100};
        Arena rollout("rollout", memory);
        Engine engine(*ops, c, learner.weights, limits, 38, rollout);
        turns.reserve(size_t(8) << 20);
        learner.allocate();
        rollout.allocate();
        learner.initialize(3);

        Request request;
        request.prompt_ids = {1, 2, 3, 4, 5};
        request.options.gen_length = 12;
        request.options.block = c.B;
        const Trajectory before = engine.generate({&request, 1})[0];
        const Sequence s{
            .token = {1, 2, 3, 4, 9, 8, 7, 6},
            .prompt_length = 4,
            .copies = {{.begin = 4, .token = std::vector<int>(4, c.mask_id), .target = {4, 5, 6, 7}}}};
        const std::vector<std::vector<double>> ones = {{1, 1, 1, 1}};
        learner.network->accumulate({&s, 1}, {.pairs = cross_entropy_pairs(ones, 1)});
        learner.step();
        const Trajectory after = engine.generate({&request, 1})[0];

        Arena fresh_arena("fresh", *ops);
        Engine fresh(*ops, c, learner.weights, limits, 38, fresh_arena);
        fresh_arena.allocate();
        const Trajectory want = fresh.generate({&request, 1})[0];
        EXPECT_EQ(after.output_ids, want.output_ids) << "in shared memory: " << shared;
        EXPECT_EQ(after.logprobs, want.logprobs);
        EXPECT_NE(after.logprobs, before.logprobs);
    }
}
