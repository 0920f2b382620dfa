// bench_update.cpp -- one TraceRL update: forward, loss, backward, and what each of its operations takes.
//
// 32 responses of 88 to 112 tokens to prompts of 32 to 64, B = 4, on average 2.6 tokens revealed per step. The
// share of each phase is of the fp32 matrix product this machine was measured to do. "reference layout" is
// the number of tokens that one padded row per reveal step, [prompt | response | noisy copy], would take.
//   bench_update [PRESET]               mini, small, or both
//   bench_update records N PER_PROMPT   prints the responses, for others to train on (bench_peers.sh)
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "tests/bench_timing.h"
#include "tests/timed_ops.h"
#include "tokenizer/byte_tokenizer.h"
#include "train/rl_update.h"
#include "utils/json.h"
#include "weights_tools/presets.h"

namespace {

constexpr int B = 4;

int draw(Rng& rng, int low, int high) { return low + int(rng.below(uint32_t(high - low + 1))); }

Record synthetic_response(Rng& rng, const std::vector<int>& prompt, int n) {
    Record r;
    r.prompt_ids = prompt;
    r.advantage = {rng.below(2) ? 1.0 : -0.5};
    for (int begin = 0, step = 0; begin < n; begin += B) {
        const uint32_t x = rng.below(100);
        const int steps = x < 55 ? 1 : x < 90 ? 2 : x < 98 ? 3 : 4, shift = int(rng.below(B));
        for (int i = 0; i < B; i++) {
            r.response_ids.push_back(draw(rng, 0, 255));
            r.step_map.push_back(step + 1 + (i + shift) % B % steps);
        }
        step += steps;
    }
    return r;
}

std::vector<Record> synthetic_responses(int n, int per_prompt) {
    Rng rng(7, Stream::Noise);
    std::vector<Record> records;
    std::vector<int> prompt;
    for (int i = 0; i < n; i++) {
        if (i % per_prompt == 0) {
            prompt.resize(size_t(B * draw(rng, 8, 16)));
            for (int& id : prompt) id = draw(rng, 0, 255);
        }
        records.push_back(synthetic_response(rng, prompt, B * draw(rng, 22, 28)));
    }
    return records;
}

// Rows times length of the reference's layout: every response takes as many rows as its busiest block has
// steps.
int64_t reference_tokens(const std::vector<Record>& records) {
    size_t prompt = 0, response = 0;
    int64_t rows = 0;
    for (const Record& r : records) {
        prompt = std::max(prompt, r.prompt_ids.size());
        response = std::max(response, r.response_ids.size());
        int most = 1;
        for (size_t i = 0; i < r.step_map.size(); i += B)
            most = std::max(most, 1 + *std::max_element(&r.step_map[i], &r.step_map[i] + B) -
                                      *std::min_element(&r.step_map[i], &r.step_map[i] + B));
        rows += most;
    }
    return rows * int64_t(prompt + 2 * response);
}

// Nothing is computed: how many tokens a long response takes.
void print_long_response() {
    constexpr int N = 32, PROMPT = 100, RESPONSE = 600;
    Rng rng(7, Stream::Noise), unused(1, Stream::Noise);
    std::vector<Record> records;
    for (int i = 0; i < N; i++)
        records.push_back(synthetic_response(rng, std::vector<int>(PROMPT, i), RESPONSE));
    const TrainingBatch batch = prepare(records, {B, BYTE_MASK}, {}, false, unused);
    printf("layout  prompts of %d, responses of %d: %.0f tokens per response, in the reference layout %.0f\n",
           PROMPT, RESPONSE, double(packed_tokens(batch.sequences, B)) / N,
           double(reference_tokens(records)) / N);
}

void print_phases(const std::array<TimedOps::Total, TimedOps::KINDS>& totals, double seconds, double peak) {
    double known = 0;
    const auto line = [&](const char* name, const TimedOps::Total& t) {
        printf("    %-20s %8.3f s  %4.1f%%", name, t.seconds, 100 * t.seconds / seconds);
        if (t.flops > 0)
            printf("  %6.1f GFLOP/s  %.2f of the peak", t.flops / t.seconds * 1e-9,
                   t.flops / t.seconds / peak);
        printf("\n");
    };
    for (int kind = 0; kind < TimedOps::KINDS; kind++) {
        known += totals[size_t(kind)].seconds;
        line(TimedOps::name(kind), totals[size_t(kind)]);
    }
    line("outside operations", {seconds - known, 0});
}

void bench_update(Ops& cpu, const MachineLimits& machine, const char* preset, int n, int per_prompt) {
    ModelConfig config = model_preset(preset);
    config.V = BYTE_VOCABULARY;
    config.mask_id = BYTE_MASK;
    TimedOps ops(cpu);
    const std::vector<Record> records = synthetic_responses(n, per_prompt);
    Rng rng(1, Stream::Noise);
    const TrainingBatch batch = prepare(records, {B, config.mask_id}, {}, false, rng);
    Arena arena("weights", ops);
    Parameters weights;
    weights.plan(arena, config, Head::Policy);
    TrainingNetwork network(ops, config, weights, Head::Policy, B, {4096, 4096});
    arena.allocate();
    weights.bind(config);
    initialize(weights, config, 1);
    network.allocate();
    network.zero_gradients();

    const std::vector<int> all = all_responses(batch);
    network.evaluate(batch.sequences);  // pages and threads are there from here on
    ops.take();
    const int64_t before = network.tokens_forwarded();
    Timer timer;
    accumulate(batch, all, network, nullptr, {});
    const double update = timer.seconds();
    const int64_t tokens = network.tokens_forwarded() - before;
    const std::array<TimedOps::Total, TimedOps::KINDS> totals = ops.take();
    double flops = 0;
    for (const TimedOps::Total& t : totals) flops += t.flops;
    printf("update  %-5s  %2d responses, %d to a prompt: %.2f s, %.2f of the peak\n", preset, n, per_prompt,
           update, flops / update / machine.flops);
    printf("    tokens forwarded per response %.0f, in the reference layout %.0f\n", double(tokens) / n,
           double(reference_tokens(records)) / n);
    print_phases(totals, update, machine.flops);
    fflush(stdout);
}

}  // namespace

int main(int argc, char** argv) {
    if (argc == 4 && strcmp(argv[1], "records") == 0) {
        for (const Record& r : synthetic_responses(atoi(argv[2]), atoi(argv[3])))
            printf("%s\n", dump(to_json(r)).c_str());
        return 0;
    }
    const auto cpu = make_cpu_ops();
#if OPENBLAS
    openblas_set_num_threads(max_threads());
#endif
    const MachineLimits machine = measure_limits(*cpu);
    printf("%s; matrix product %.0f GFLOP/s\n", cpu->device_name().c_str(), machine.flops * 1e-9);
    print_long_response();
    for (const char* preset : {"mini", "small"}) {
        if (argc > 1 && strcmp(argv[1], preset) != 0) continue;
        for (const int per_prompt : {1, 8}) bench_update(*cpu, machine, preset, 32, per_prompt);
    }
}
