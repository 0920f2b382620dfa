// What a step is said to cost against the rows that an engine forwards.
#include <gtest/gtest.h>

#include "tests/tracerl_world.h"
#include "train/programs/step_plan.h"

// A token per pass, of every kind of cache, also where the last block is cut short.
TEST(StepPlan, RowsOfTheSlowestRolloutAreTheEngines) {
    for (const Family family : {Family::Llada, Family::Dream})
        for (const Cache cache : {Cache::None, Cache::Prefix, Cache::Dual})
            for (const int horizon : {-1, 2}) {
                World w(false, family);
                TraceRlOptions& o = w.options.rl;
                o.rollout.gen_length = 10;
                o.rollout.stop_ids.clear();
                o.rollout.remasking = Remasking::Sequential;
                o.rollout.cache = cache;
                o.rollout.further_horizon = horizon;
                const Request r{std::vector<int>(7, 65), 0, o.rollout};
                const int64_t before = w.engine->forwarded_rows();
                w.engine->generate({&r, 1});
                const StepCost cost = step_cost(w.config, o, 7, 0, false);
                EXPECT_EQ(cost.rollout_most, o.tasks * o.responses * (w.engine->forwarded_rows() - before));
                EXPECT_EQ(cost.rollout_least, o.tasks * o.responses * 3 * 17);  // three blocks, a pass each
            }
}

// By timesteps a block takes all its steps, be they more than it has tokens; a step may reveal none.
TEST(StepPlan, TimestepsAreAllTaken) {
    World w(false, Family::Dream);
    TraceRlOptions& o = w.options.rl;
    o.rollout.gen_length = 10;
    o.rollout.stop_ids.clear();
    o.rollout.remasking = Remasking::Entropy;
    o.rollout.schedule = RevealSchedule::Timesteps;
    for (const int block : {4, WHOLE_CANVAS})
        for (const Cache cache : {Cache::None, Cache::Dual}) {
            o.rollout.block = block;
            o.rollout.steps = block == 4 ? 3 : 40;
            o.rollout.cache = cache;
            const Request r{std::vector<int>(7, 65), 0, o.rollout};
            const int64_t before = w.engine->forwarded_rows();
            w.engine->generate({&r, 1});
            EXPECT_EQ(step_cost(w.config, o, 7, 0, false).rollout_most,
                      o.tasks * o.responses * (w.engine->forwarded_rows() - before));
        }
}
