// Approximate caches of full-attention models, against a recomputation with the keys and values that are kept.
#include "tests/small_engine.h"

namespace {

// Every approximation beside none, blocks that do and do not divide the canvas, every rule, some with stop ids.
std::vector<Request> cached_requests() {
    struct Kind {
        Cache cache;
        int horizon;
    };
    std::vector<Request> out;
    uint32_t sequence = 0;
    for (const Kind kind : {Kind{Cache::Prefix, -1},
                            {Cache::Prefix, 0},
                            {Cache::Prefix, 3},
                            {Cache::Dual, -1},
                            {Cache::Auto, -1}})
        for (const int block : {3, 5, 20})
            for (const int prompt : {1, 7}) {
                Request r = request_of(prompt, block, 9 + int(sequence % 3), sequence);
                r.options.cache = kind.cache;
                r.options.further_horizon = kind.horizon;
                r.options.remasking = Remasking(sequence / 2 % 5);
                r.options.steps = block - int(sequence % 3 == 1);
                r.options.eb_threshold = 1.5;
                if (sequence % 5 == 0) r.options.stop_ids = {0, 1, 2, 3, 4, 5};
                if (sequence % 6 == 0) {  // masks alone, which all look the same at first
                    r.prompt_ids.clear();
                    r.options.remasking = Remasking::Sequential;
                }
                sequence++;
                out.push_back(r);
            }
    return out;
}

class CachedCanvas : public testing::TestWithParam<bool> {};  // whether outputs are shifted

}  // namespace

TEST_P(CachedCanvas, EqualsKeysAndValuesThatAreKept) {
    const RandomModel model(canvas_config(GetParam()));
    TestEngine e(model, LIMITS);
    for (const Request& r : cached_requests()) {
        const std::string what = format("request %u", r.sequence);
        NaiveCachedCanvas naive(model);
        const int64_t before = e.engine.forwarded_rows();
        const Trajectory got = e.engine.generate({&r, 1})[0], want = naive.generate(r);
        expect_same(got, want, what, false);
        for (size_t k = 0; k < want.logprobs.size(); k++)
            EXPECT_NEAR(got.logprobs[k], want.logprobs[k], 1e-4) << what;
        EXPECT_EQ(e.engine.forwarded_rows() - before, naive.n_rows) << what;
        EXPECT_EQ(got.cache, r.options.approximate_cache() ? name_of(r.options.cache) : "");
    }
}

TEST_P(CachedCanvas, ASampleDoesNotDependOnItsBatch) {
    const RandomModel model(canvas_config(GetParam()));
    std::vector<Request> requests = cached_requests();
    for (Request& r : requests) r.options.temperature = 0.5f + 0.1f * float(r.sequence % 8);
    TestEngine together(model, {.max_active = 100, .max_rows = 2048, .kv_slots = 4096});
    TestEngine few(model,
                   {.max_active = 4, .max_rows = 20, .kv_slots = 70});  // an opening keeps others waiting
    const std::vector<Trajectory> got = together.engine.generate(requests);
    const std::vector<Trajectory> narrow = few.engine.generate(requests);
    TestEngine alone(model, LIMITS);
    for (size_t i = 0; i < requests.size(); i++) {
        expect_same(narrow[i], got[i], format("in a narrow engine, request %zu", i));
        expect_same(alone.engine.generate({&requests[i], 1})[0], got[i], format("alone, request %zu", i));
    }
}

TEST_P(CachedCanvas, BlocksOfOneStepNeedNoCache) {
    const RandomModel model(canvas_config(GetParam()));
    TestEngine e(model, LIMITS);
    for (const int block : {4, 12}) {
        Request r = request_of(6, block, 12);
        for (const int steps : {1, 3}) {
            r.options.steps = steps;
            r.options.remasking = Remasking::LowConfidenceStatic;
            r.options.cache = Cache::None;
            const Trajectory none = e.engine.generate({&r, 1})[0];
            for (const Cache cache : {Cache::Prefix, Cache::Dual}) {
                r.options.cache = cache;
                const Trajectory cached = e.engine.generate({&r, 1})[0];
                if (steps == 1) expect_same(cached, none, name_of(cache));
                EXPECT_EQ(cached.logprobs == none.logprobs, steps == 1) << name_of(cache);
            }
        }
    }
}

TEST_P(CachedCanvas, RowsAreCounted) {
    const RandomModel model(canvas_config(GetParam()));
    Request r = request_of(5, 4, 12);
    r.options.remasking = Remasking::Sequential;
    struct Case {
        Cache cache;
        int horizon, rows;  // of the three steps after the first of each of three blocks
    };
    for (const Case c : {Case{Cache::None, -1, 9 * 17},
                         {Cache::Prefix, -1, 3 * (12 + 8 + 4)},
                         {Cache::Prefix, 2, 3 * (6 + 6 + 4)},
                         {Cache::Dual, -1, 9 * 4}}) {
        r.options.cache = c.cache;
        r.options.further_horizon = c.horizon;
        TestEngine e(model, {.max_active = 1, .max_rows = 17, .kv_slots = 17});
        EXPECT_EQ(e.engine.generate({&r, 1})[0].forward_passes, 12);
        const int before_the_block = GetParam() && c.cache != Cache::None ? 9 : 0;
        EXPECT_EQ(e.engine.forwarded_rows(), 3 * 17 + c.rows + before_the_block) << name_of(c.cache);
    }
}

// Blocks of 8: the first has two gaps, one of them for a pass over what was kept, the second one.
TEST_P(CachedCanvas, GapsAreFilledOverKeptKeysToo) {
    const RandomModel model(canvas_config(GetParam()));
    Request r = request_of(14, 8, 1);
    r.options.infill = true;
    r.options.remasking = Remasking::Sequential;
    for (const size_t i : {3u, 4u, 9u}) r.prompt_ids[i] = model.config.mask_id;
    TestEngine e(model, LIMITS);
    const auto rows = [&](Cache cache) {
        r.options.cache = cache;
        const int64_t before = e.engine.forwarded_rows();
        EXPECT_EQ(e.engine.generate({&r, 1})[0].step_map, (Ids{0, 0, 0, 1, 2, 0, 0, 0, 0, 3, 0, 0, 0, 0}));
        return e.engine.forwarded_rows() - before;
    };
    EXPECT_EQ(rows(Cache::None), 3 * 14);
    EXPECT_EQ(rows(Cache::Prefix), 3 * 14);
    EXPECT_EQ(rows(Cache::Dual), 14 + 8 + 14);
}

INSTANTIATE_TEST_SUITE_P(Models, CachedCanvas, testing::Bool(),
                         [](const auto& info) { return info.param ? "Shifted" : "Unshifted"; });

TEST(Engine, BlockModelsHaveNoApproximateCacheAndCanvasesNoExactOne) {
    const RandomModel blocks(random_model_config()), canvas(canvas_config(false));
    TestEngine b(blocks, LIMITS), c(canvas, LIMITS);
    Request r = request_of(5, 4, 8);
    const auto remedy = [&](TestEngine& e, Cache cache) -> std::string {
        r.options.cache = cache;
        try {
            e.engine.check(r);
        } catch (const Error& error) {
            EXPECT_EQ(error.code, Exit::Usage);
            return error.what();
        }
        return "";
    };
    const auto contains = [](const std::string& text, const std::string& part) {
        return text.find(part) != std::string::npos;
    };
    for (const Cache cache : {Cache::None, Cache::Prefix, Cache::Dual}) {
        EXPECT_TRUE(contains(remedy(b, cache), "use --cache exact")) << name_of(cache);
        EXPECT_EQ(remedy(c, cache), "");
    }
    EXPECT_TRUE(contains(remedy(c, Cache::Exact), "use --cache none"));
    EXPECT_EQ(remedy(b, Cache::Exact) + remedy(b, Cache::Auto) + remedy(c, Cache::Auto), "");
    r.options.further_horizon = -2;
    EXPECT_TRUE(contains(remedy(c, Cache::Prefix), "--further-horizon -2"));
    r.options.further_horizon = -1;
    r.options.cfg_scale = 1;  // its second canvas is forwarded whole
    EXPECT_TRUE(contains(remedy(c, Cache::Dual), "--cfg-scale 0"));
    EXPECT_EQ(remedy(c, Cache::None), "");
}
