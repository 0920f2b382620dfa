// The engine against a recomputation that has no cache, no packing and no batch; and against itself.
#include <gtest/gtest.h>

#include <algorithm>

#include "tests/small_engine.h"

namespace {

ModelConfig autoregressive_config() {
    ModelConfig c = random_model_config(1);
    c.shift = true;
    c.mask_id = -1;
    return c;
}

ModelConfig config_named(const std::string& name) {
    if (name == "Autoregressive") return autoregressive_config();
    return name == "Blocks" ? random_model_config() : canvas_config(name == "ShiftedCanvas");
}

// Prompts of every length modulo the block, limits inside blocks, every rule, some with stop ids.
std::vector<Request> mixed_requests(const ModelConfig& config) {
    std::vector<Request> out;
    uint32_t sequence = 0;
    const bool autoregressive = config.shift && !config.full_attention;
    for (const int block : {1, 3, 8}) {
        if (autoregressive && block != 1) continue;
        for (const int prompt : {1, 7, 8})
            for (const auto& [name, rule] : remasking_names()) {
                if (rule == Remasking::Origin && !config.full_attention) continue;
                if (name != name_of(rule)) continue;  // another name of it
                Request r = request_of(prompt, block, 5 + int(sequence % 5), sequence);
                r.options.remasking = rule;
                r.options.steps = 1 + int(sequence) % block;
                r.options.eb_threshold = 1.5;
                r.options.order_temperature = sequence % 2 ? 0.5f : 0;
                if (config.full_attention && sequence % 5 < 2)
                    r.options.schedule = RevealSchedule::Timesteps, r.options.eps = 0.1f;
                if (config.full_attention && sequence % 7 == 2) {
                    r.options.block = WHOLE_CANVAS;
                    r.options.steps = 3;
                }
                if (config.full_attention && sequence % 4 == 1) r.options.cfg_scale = 0.5f;
                if (sequence % 3 == 0) r.options.stop_ids = {0, 1, 2, 3, 4, 5, 6, 7};
                sequence++;
                out.push_back(r);
            }
    }
    return out;
}

// Prompts, blocks and options of random draws at a temperature, with members of groups.
std::vector<Request> sampled_requests(const ModelConfig& config) {
    std::vector<Request> out = mixed_requests(config);
    for (size_t i = 0; i < out.size(); i++) {
        out[i].options.temperature = 0.5f + 0.1f * float(i % 8);
        out[i].options.top_k = int(i % 3) * 4;
        out[i].options.top_p = i % 2 ? 0.9f : 1.0f;
        if (i % 4) out[i].prompt_ids = out[i - i % 4].prompt_ids;
    }
    return out;
}

class EngineOn : public testing::TestWithParam<const char*> {};

}  // namespace

TEST_P(EngineOn, EqualsARecomputationWithoutCache) {
    const RandomModel model(config_named(GetParam()));
    NaiveGeneration naive(model);
    TestEngine e(model, LIMITS);
    const std::vector<Request> requests = mixed_requests(model.config);
    const std::vector<Trajectory> got = e.engine.generate(requests);
    int stopped = 0, with_tail = 0;
    for (size_t i = 0; i < requests.size(); i++) {
        const Trajectory want = naive.generate(requests[i]);
        expect_same(got[i], want, format("request %zu", i), false);
        ASSERT_EQ(got[i].logprobs.size(), want.logprobs.size());
        for (size_t k = 0; k < want.logprobs.size(); k++)
            EXPECT_NEAR(got[i].logprobs[k], want.logprobs[k], 1e-4);
        EXPECT_NEAR(got[i].entropy, want.entropy, 1e-4);
        stopped += want.finish_reason == "stop";
        with_tail += !want.tail_ids.empty();
    }
    EXPECT_GT(stopped, 0);
    EXPECT_EQ(with_tail > 0, model.config.full_attention || !model.config.shift);
}

TEST_P(EngineOn, ASampleDoesNotDependOnItsBatch) {
    const RandomModel model(config_named(GetParam()));
    const std::vector<Request> requests = sampled_requests(model.config);
    TestEngine together(model, {.max_active = 100, .max_rows = 2048, .kv_slots = 4096});
    TestEngine few(model, {.max_active = 3, .max_rows = 40, .kv_slots = 80});
    const std::vector<Trajectory> got = together.engine.generate(requests);
    const std::vector<Trajectory> narrow = few.engine.generate(requests);
    TestEngine alone(model, {.max_active = 1, .max_rows = 64, .kv_slots = 64});
    for (size_t i = 0; i < requests.size(); i++) {
        if (i % 3 == 0)
            expect_same(alone.engine.generate({&requests[i], 1})[0], got[i], format("alone, request %zu", i));
        expect_same(narrow[i], got[i], format("in a narrow engine, request %zu", i));
    }
    // The streams are real: not every sequence of a group came out the same.
    EXPECT_NE(got[0].output_ids, got[1].output_ids);
}

TEST_P(EngineOn, FusedCommitEqualsSeparateCommit) {
    const RandomModel model(config_named(GetParam()));
    const std::vector<Request> requests = sampled_requests(model.config);
    EngineLimits separate = LIMITS;
    separate.fuse_commit = false;
    TestEngine a(model, LIMITS), b(model, separate);
    const auto fused = a.engine.generate(requests), apart = b.engine.generate(requests);
    int64_t fused_passes = 0, apart_passes = 0;
    for (size_t i = 0; i < requests.size(); i++) {
        expect_same(fused[i], apart[i], format("request %zu", i));
        fused_passes += fused[i].forward_passes;
        apart_passes += apart[i].forward_passes;
    }
    const bool blocks = !model.config.full_attention && !model.config.shift;
    EXPECT_EQ(fused_passes < apart_passes, blocks);
}

INSTANTIATE_TEST_SUITE_P(Models, EngineOn,
                         testing::Values("Blocks", "Canvas", "ShiftedCanvas", "Autoregressive"),
                         [](const auto& info) { return std::string(info.param); });

TEST(Engine, InfillingSeesWhatComesAfterAGap) {
    const RandomModel model(canvas_config(false));
    TestEngine e(model, LIMITS);
    Request r = request_of(14, 4, 1);
    r.options.infill = true;
    for (const size_t i : {3u, 4u, 9u}) r.prompt_ids[i] = model.config.mask_id;
    const Trajectory t = e.engine.generate({&r, 1})[0];
    EXPECT_EQ(t.finish_reason, "length");
    // The last gap was filled from everything else as it now stands.
    std::vector<int> ids = t.output_ids;
    ids[9] = model.config.mask_id;
    EXPECT_EQ(t.step_map[9], t.denoise_steps);
    NaiveGeneration naive(model);
    EXPECT_EQ(naive.candidate(naive.look(r, ids, 8, 12, 0), 9, r.options).token, t.output_ids[9]);
    Request later = r;  // another text behind the gap, another probability
    for (int i = 10; i < 14; i++) later.prompt_ids[size_t(i)] = (r.prompt_ids[size_t(i)] + 11) % 38;
    EXPECT_NE(e.engine.generate({&later, 1})[0].logprobs[9], t.logprobs[9]);
    r.prompt_ids.assign(5, 1);
    EXPECT_THROW(e.engine.generate({&r, 1}), Error);  // no gap
    const RandomModel blocks(random_model_config());
    TestEngine b(blocks, LIMITS);
    r.prompt_ids[2] = blocks.config.mask_id;
    EXPECT_THROW(b.engine.generate({&r, 1}), Error);  // a block model does not see what comes after
}

TEST(Engine, ARandomOrderIsASequencesOwn) {
    const RandomModel model(canvas_config(false));
    TestEngine e(model, LIMITS);
    for (const Remasking rule : {Remasking::Random, Remasking::Origin}) {
        std::vector<Request> requests;
        for (const uint32_t sequence : {0u, 1u, 0u}) {
            requests.push_back(request_of(5, WHOLE_CANVAS, 16, sequence));
            requests.back().prompt_ids = requests[0].prompt_ids;
            requests.back().options.remasking = rule;
        }
        requests.push_back(requests[0]);
        requests.back().options.seed++;
        const auto got = e.engine.generate(requests);
        EXPECT_EQ(got[0].step_map, got[2].step_map);
        EXPECT_NE(got[0].step_map, got[1].step_map);  // though greedy
        EXPECT_NE(got[0].step_map, got[3].step_map);
    }
}

TEST(Engine, PassesAreCounted) {
    const RandomModel model(random_model_config());
    TestEngine e(model, LIMITS);
    Request r = request_of(9, 4, 11);  // blocks [8, 12), [12, 16), [16, 20), one of them begun by the prompt
    r.options.remasking = Remasking::Sequential;
    const Trajectory t = e.engine.generate({&r, 1})[0];
    // One pass per reveal step: the prefill rides in the first, every commit in a later one, the last block
    // has none.
    EXPECT_EQ(t.denoise_steps, 11);
    EXPECT_EQ(t.forward_passes, 11);
    EXPECT_EQ(e.engine.forward_passes(), 11);
    EXPECT_EQ(e.engine.forwarded_rows(), 8 + 11 * 4 + 2 * 4);
    EXPECT_DOUBLE_EQ(tokens_per_forward(t), 1.0);
}

TEST(Engine, AGroupForwardsItsPromptOnce) {
    const RandomModel model(random_model_config());
    std::vector<Request> requests;
    for (uint32_t i = 0; i < 5; i++) {
        requests.push_back(request_of(18, 4, 4));
        requests.back().sequence = i;
        requests.back().options.temperature = 1;
        requests.back().options.remasking = Remasking::Sequential;
        requests.back().prompt_ids.back() = int(i);  // tails differ, whole blocks are equal
    }
    // 16 shared slots and 8 of its own each.
    TestEngine e(model, {.max_active = 5, .max_rows = 256, .kv_slots = 16 + 5 * 8});
    int most = 0;
    Callbacks callbacks;
    callbacks.on_reveal = [&](int, const PartialResponse& p) { most = std::max(most, int(p.token.size())); };
    const auto got = e.engine.generate(requests, callbacks);
    EXPECT_EQ(e.engine.forward_passes(), 4);                     // all five ran together
    EXPECT_EQ(e.engine.forwarded_rows(), 16 + 5 * (4 * 4 + 4));  // four denoising passes and a commit each
    for (size_t i = 0; i < 5; i++) {
        TestEngine alone(model, LIMITS);
        expect_same(alone.engine.generate({&requests[i], 1})[0], got[i], format("member %zu", i));
    }
}

TEST(Engine, WaitingRequestsStartAsSoonAsThereIsRoom) {
    const RandomModel model(random_model_config());
    std::vector<Request> requests;
    for (uint32_t i = 0; i < 6; i++) {
        requests.push_back(request_of(4, 4, i == 0 ? 24 : 8, i));
        requests.back().options.remasking = Remasking::Sequential;
    }
    // One long response of 24 steps; two short ones at a time fit beside it: 12 slots each, twice 8 steps.
    TestEngine e(model, {.max_active = 3, .max_rows = 64, .kv_slots = 28 + 2 * 12});
    std::vector<int> order;
    Callbacks callbacks;
    callbacks.on_finish = [&](int request, const Trajectory&) { order.push_back(request); };
    e.engine.generate(requests, callbacks);
    EXPECT_EQ(e.engine.forward_passes(), 24);
    EXPECT_EQ(order, (Ids{1, 2, 3, 4, 0, 5}));
    // Every slot is free again: the same call gives the same.
    order.clear();
    e.engine.generate(requests, callbacks);
    EXPECT_EQ(order, (Ids{1, 2, 3, 4, 0, 5}));
}

TEST(Engine, ALongPromptIsPrefilledInSeveralPasses) {
    const RandomModel model(random_model_config());
    Request r = request_of(50, 4, 8);
    TestEngine wide(model, LIMITS), narrow(model, {.max_active = 2, .max_rows = 11, .kv_slots = 64});
    const Trajectory a = wide.engine.generate({&r, 1})[0], b = narrow.engine.generate({&r, 1})[0];
    expect_same(a, b, "prefilled in blocks");
    EXPECT_EQ(b.forward_passes,
              a.forward_passes + 6);  // 48 rows at 8 a pass; the first denoising step rides in none of them
    // Several in one pass: what another has taken of it is not there any more.
    std::vector<Request> requests;
    for (uint32_t i = 0; i < 3; i++) requests.push_back(request_of(21 + 4 * int(i), 4, 8, i));
    TestEngine all(model, LIMITS), few(model, {.max_active = 3, .max_rows = 36, .kv_slots = 120});
    const std::vector<Trajectory> want = all.engine.generate(requests), got = few.engine.generate(requests);
    for (size_t i = 0; i < want.size(); i++) expect_same(want[i], got[i], "prefilled beside others");
}

// Three sequences of four steps, two of which fit a pass: who was left out comes first, so that all end after six passes. If
// the same two always came first, the third would then need four alone.
TEST(Engine, WhoIsLeftOutOfAPassIsFirstInTheNext) {
    const RandomModel model(random_model_config());
    std::vector<Request> requests;
    for (uint32_t i = 0; i < 3; i++) {
        requests.push_back(request_of(0, 4, 4, i));
        requests.back().options.steps = 4;
        requests.back().options.remasking = Remasking::LowConfidenceStatic;
    }
    TestEngine e(model, {.max_active = 3, .max_rows = 8, .kv_slots = 64});
    e.engine.generate(requests);
    EXPECT_EQ(e.engine.forward_passes(), 6);
}

TEST(Engine, WhatCannotFitIsRefusedWithItsNumbers) {
    const RandomModel model(random_model_config());
    TestEngine e(model, {.max_active = 2, .max_rows = 6, .kv_slots = 64});
    const auto message = [&](const Request& r, Exit code) -> std::string {
        const Request good = request_of(4, 2, 4);
        int finished = 0;
        Callbacks callbacks;
        callbacks.on_finish = [&](int, const Trajectory&) { finished++; };
        try {
            e.engine.generate(std::vector{good, r}, callbacks);
        } catch (const Error& error) {
            EXPECT_EQ(error.code, code);
            EXPECT_EQ(finished, 0);
            return error.what();
        }
        return "accepted";
    };
    const auto contains = [](const std::string& text, const std::string& part) {
        return text.find(part) != std::string::npos;
    };
    EXPECT_TRUE(contains(message(request_of(30, 2, 60), Exit::NoMemory), "take 90 slots, the cache has 64"));
    EXPECT_TRUE(contains(message(request_of(4, 4, 8), Exit::NoMemory), "8 rows, the limit is 6"));
    EXPECT_TRUE(contains(message(request_of(200, 2, 60), Exit::Usage), "260 positions, the model has 256"));
    check_request(request_of(200, 2, 56), model.config);  // all of them
    EXPECT_TRUE(
        contains(message(request_of(4, 2, INT32_MAX), Exit::Usage), "--gen-length 2147483647 is too long"));
    Request bad = request_of(4, 2, 8);
    bad.prompt_ids[2] = 40;
    EXPECT_TRUE(contains(message(bad, Exit::Usage), "request 1: prompt id 40"));
    bad = request_of(4, 2, 0);
    bad.options.top_p = 2;
    EXPECT_TRUE(contains(message(bad, Exit::Usage), "--gen-length 0"));
    EXPECT_TRUE(contains(message(bad, Exit::Usage), "--top-p 2"));
}

TEST(Engine, AnInterruptKeepsWhatIsThereAndTheNextCallRuns) {
    const RandomModel model(random_model_config());
    std::vector<Request> requests;
    for (uint32_t i = 0; i < 4; i++) {
        requests.push_back(request_of(6, 4, 16, i));
        requests.back().options.remasking = Remasking::Sequential;
    }
    TestEngine e(model, {.max_active = 2, .max_rows = 64, .kv_slots = 64});
    const auto whole = e.engine.generate(requests);
    int passes = 0;
    Callbacks callbacks;
    callbacks.should_stop = [&] { return passes++ == 7; };
    const auto cut = e.engine.generate(requests, callbacks);
    for (size_t i = 0; i < 4; i++) {
        EXPECT_EQ(cut[i].finish_reason, "interrupted");
        EXPECT_EQ(cut[i].prompt_ids, requests[i].prompt_ids);
        EXPECT_EQ(cut[i].output_ids.size(), i < 2 ? 7u : 0u);
        EXPECT_EQ(cut[i].denoise_steps, i < 2 ? 7 : 0);
        EXPECT_TRUE(
            std::equal(cut[i].output_ids.begin(), cut[i].output_ids.end(), whole[i].output_ids.begin()));
    }
    const auto again = e.engine.generate(requests);
    for (size_t i = 0; i < 4; i++) expect_same(again[i], whole[i], "after an interrupt");
}

TEST(Engine, AnExceptionInACallbackLeavesTheEngineUsable) {
    const RandomModel model(random_model_config());
    const Request r = request_of(6, 4, 40);
    TestEngine e(model, {.max_active = 2, .max_rows = 64, .kv_slots = 48});  // room for one
    Callbacks callbacks;
    callbacks.on_reveal = [](int, const PartialResponse&) { throw std::runtime_error("no"); };
    EXPECT_THROW(e.engine.generate({&r, 1}, callbacks), std::runtime_error);
    EXPECT_EQ(e.engine.generate({&r, 1})[0].finish_reason, "length");
}

// With keep_last the slots of one sequence outlive it, not those of all.
TEST(Engine, KeptSlotsAreGivenBackForTheNextToBeKept) {
    const RandomModel model(random_model_config());
    TestEngine e(model,
                 {.max_active = 1, .max_rows = 64, .kv_slots = 72, .keep_last = true});  // room for three
    for (uint32_t i = 0; i < 8; i++) {
        const Request r = request_of(12, 4, 12, i);
        EXPECT_EQ(e.engine.generate({&r, 1})[0].finish_reason, "length");
    }
    // All that one kept is room again, in one piece but for those of the last.
    const Request large = request_of(12, 4, 34, 9);
    EXPECT_EQ(e.engine.generate({&large, 1})[0].finish_reason, "length");
}

// The table of positions grows with the texts: a longer text before, which has made it larger, changes nothing.
TEST(Engine, PositionsBeyondTheFirstTable) {
    ModelConfig c = random_model_config();
    c.max_positions = 2048;
    const RandomModel model(c);
    const EngineLimits limits = {.max_active = 1, .max_rows = 2048, .kv_slots = 2048};
    const Request longer = request_of(1500, 4, 4, 1);
    for (const int length : {1020, 1025, 1400}) {  // their first pass ends at positions 1024, 1028 and 1404
        const Request r = request_of(length, 4, 7);
        TestEngine first(model, limits), later(model, limits);
        later.engine.generate({&longer, 1});
        expect_same(first.engine.generate({&r, 1})[0], later.engine.generate({&r, 1})[0],
                    format("%d tokens", length));
    }
}

TEST(Engine, WeightsMayChangeBetweenCalls) {
    RandomModel model(random_model_config());
    const Request r = request_of(9, 4, 16);
    TestEngine e(model, LIMITS);
    const Trajectory before = e.engine.generate({&r, 1})[0];
    const RandomModel other(random_model_config(), 2);
    std::vector<float> saved;
    std::vector<Tensor> theirs;
    other.weights.for_each_stored([&](const std::string&, const Tensor& t) { theirs.push_back(t); });
    size_t i = 0;
    model.weights.for_each_stored(
        [&](const std::string&, const Tensor& t) { model.ops->upload(t, theirs[i++].data); });
    TestEngine fresh(other, LIMITS);
    const Trajectory after = e.engine.generate({&r, 1})[0];
    expect_same(after, fresh.engine.generate({&r, 1})[0], "new weights, old engine");
    EXPECT_NE(after.output_ids, before.output_ids);
}

TEST(Engine, ProgressOnlyGrows) {
    const RandomModel model(random_model_config());
    const Request r = request_of(6, 4, 23);
    TestEngine e(model, LIMITS);
    Ids seen;
    Callbacks callbacks;
    callbacks.on_reveal = [&](int, const PartialResponse& p) {
        ASSERT_GE(p.n_final, int(seen.size()));
        for (size_t i = 0; i < seen.size(); i++) EXPECT_EQ(p.token[i], seen[i]);
        seen.assign(p.token.begin(), p.token.begin() + p.n_final);
    };
    const Trajectory t = e.engine.generate({&r, 1}, callbacks)[0];
    EXPECT_EQ(seen, t.output_ids);
}

TEST(Engine, AChatReusesTheKeysOfItsLastTurn) {
    for (const ModelConfig& config : {random_model_config(), autoregressive_config()}) {
        const RandomModel model(config);
        const int B = config.B;
        EngineLimits limits = {.max_active = 1, .max_rows = 32, .kv_slots = 128};
        limits.keep_last = true;
        TestEngine chat(model, limits), fresh(model, {.max_active = 1, .max_rows = 32, .kv_slots = 128});
        Request r = request_of(10, B, 12);
        r.options.remasking = Remasking::Sequential;
        for (int turn = 0; turn < 4; turn++) {
            const int64_t before = chat.engine.forwarded_rows(), fresh_before = fresh.engine.forwarded_rows();
            const Trajectory t = chat.engine.generate({&r, 1})[0], want = fresh.engine.generate({&r, 1})[0];
            expect_same(t, want, format("turn %d", turn));
            const int64_t rows = chat.engine.forwarded_rows() - before,
                          all = fresh.engine.forwarded_rows() - fresh_before;
            EXPECT_EQ(rows <= all - 10, turn > 0) << rows << " of " << all;
            r.prompt_ids.insert(r.prompt_ids.end(), t.output_ids.begin(), t.output_ids.end());
            for (int i = 0; i < 5; i++) r.prompt_ids.push_back(i + turn);
        }
        // Another conversation shares only its beginning; one that shares nothing; forgotten keys are not
        // used.
        Request other = r;
        other.prompt_ids[6] = (other.prompt_ids[6] + 1) % 38;
        expect_same(chat.engine.generate({&other, 1})[0], fresh.engine.generate({&other, 1})[0], "edited");
        other.prompt_ids[0] = (other.prompt_ids[0] + 1) % 38;
        expect_same(chat.engine.generate({&other, 1})[0], fresh.engine.generate({&other, 1})[0], "another");
        chat.engine.forget();
        const int64_t before = chat.engine.forwarded_rows(), fresh_before = fresh.engine.forwarded_rows();
        expect_same(chat.engine.generate({&other, 1})[0], fresh.engine.generate({&other, 1})[0], "forgotten");
        EXPECT_EQ(chat.engine.forwarded_rows() - before, fresh.engine.forwarded_rows() - fresh_before);
    }
}
