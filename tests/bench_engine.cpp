// bench_engine.cpp -- one denoising pass behind a long prompt, and whole generations.
//
// A pass reads every weight once: its limit is the larger of the bytes of the weights over the memory's
// bandwidth and its operations over the fastest matrix product, both measured first (weights that stay in the
// caches may beat it). The weights are random, which changes nothing about the time.
//
//   bench_engine [PRESET [fp32|bf16]]
#include <cstdio>
#include <cstring>

#include "inference/engine.h"
#include "model/layout_generate.h"
#include "tests/bench_timing.h"
#include "tests/timed_ops.h"
#include "tokenizer/byte_tokenizer.h"
#include "weights_tools/presets.h"

namespace {

constexpr int B = 4;

struct Model {
    ModelConfig config;
    Arena arena;
    Parameters weights;
    Model(Ops& ops, const char* preset, DType dtype) : config(model_preset(preset)), arena("weights", ops) {
        if (config.V == 0) config.V = BYTE_VOCABULARY, config.mask_id = BYTE_MASK;
        weights.plan(arena, config, Head::Policy, dtype);
        arena.allocate();
        weights.bind(config);
        std::vector<float> run(1 << 16);
        Rng rng(1, Stream::Noise);
        for (float& x : run) x = 0.04f * rng.normal();
        weights.for_each_stored([&](const std::string&, const Tensor& t) {
            for (int64_t i = 0; i < t.size(); i++) {
                const float x = t.rows == 1 ? 1 : run[size_t(i & 0xffff)];
                if (t.dtype == DType::F32)
                    t.as<float>()[i] = x;
                else
                    t.as<Bf16>()[i] = to_bf16(x);
            }
        });
    }
    double limit(int rows, const MachineLimits& machine) const {  // seconds of a pass
        return std::max(double(arena.bytes()) / machine.bandwidth,
                        2.0 * double(config.n_parameters()) * rows / machine.flops);
    }
};

// One block of every sequence after `context` cached tokens each, all of it masked.
void bench_pass(Ops& cpu, const MachineLimits& machine, Model& model, const char* name, int sequences,
                int context) {
    TimedOps ops(cpu);
    Arena arena("cache", ops);
    KvCache cache;
    const int slots = sequences * (context + B);
    Transformer network(ops, model.config, model.weights, arena, context, context, &cache);
    cache.plan(arena, model.config, slots);
    arena.allocate();
    TokenBatch batch;
    std::vector<int> prompt(size_t(context), 1);
    for (int s = 0; s < sequences; s++) {
        batch.clear();
        add_prompt(batch, prompt, 0, context, B, s * (context + B));
        network.forward(batch);
    }
    batch.clear();
    std::vector<SampleRow> rows;
    for (int s = 0; s < sequences; s++) {
        const int at = s * (context + B);
        const int first = add_block(batch, std::vector<int>(B, model.config.mask_id), context,
                                    {.shared = context, .prefix = at, .own = at + context});
        for (int i = 0; i < B; i++) {
            batch.target_row.push_back(first + i);
            rows.push_back({.sequence = uint32_t(s), .position = uint32_t(context + i)});
        }
    }
    std::vector<Sampled> sampled(rows.size());
    const int64_t n = int64_t(rows.size());
    ops.take();
    Timer timer;
    const double seconds = fastest(
        [&] {
            const Tensor hidden = network.forward(batch);
            ops.head_sample(records(sampled.data(), n), records(rows.data(), n), hidden,
                            model.weights.lm_head, model.config.mask_id, model.config.V);
        },
        0.6);
    const double all = timer.seconds();
    const std::array<TimedOps::Total, TimedOps::KINDS> totals = ops.take();
    printf(
        "pass        %-16s %3d x %d rows after %d: %8.3f ms, limit %8.3f ms, %.2f of it  (linear %.0f%%, "
        "attention "
        "%.0f%%, head %.0f%%, rest %.0f%%)\n",
        name, sequences, B, context, seconds * 1e3, model.limit(sequences * B, machine) * 1e3,
        model.limit(sequences * B, machine) / seconds, 100 * totals[TimedOps::LINEAR].seconds / all,
        100 * totals[TimedOps::ATTENTION].seconds / all, 100 * totals[TimedOps::HEAD].seconds / all,
        100 * totals[TimedOps::OTHER].seconds / all);
    fflush(stdout);
}

// A prompt of 64, greedy, one token per step.
void bench_generation(Ops& ops, const MachineLimits& machine, Model& model, const char* name, int sequences,
                      int gen_length) {
    std::vector<Request> requests(size_t(sequences), Request{});
    for (int s = 0; s < sequences; s++) {
        Request& r = requests[size_t(s)];
        for (int i = 0; i < 64; i++) r.prompt_ids.push_back((s * 7 + i) % 250);
        r.sequence = uint32_t(s);
        r.options.gen_length = gen_length;
        r.options.block = B;
        r.options.remasking = Remasking::LowConfidenceStatic;
    }
    Arena arena("engine", ops);
    Engine engine(ops, model.config, model.weights,
                  {.max_active = sequences,
                   .max_rows = sequences * 64 + 64,
                   .kv_slots = sequences * (64 + gen_length + B)},
                  model.config.V, arena);
    arena.allocate();
    const double seconds = fastest([&] { engine.generate(requests); }, 1.5);
    const double tokens = double(sequences) * gen_length;
    const double limit = gen_length * model.limit(sequences * B, machine);
    printf("generation  %-16s %3d sequences of %3d: %8.1f tokens/s, %.2f of the limit of its passes\n", name,
           sequences, gen_length, tokens / seconds, limit / seconds);
    fflush(stdout);
}

void bench_model(Ops& ops, const MachineLimits& machine, const char* preset, DType dtype, bool large) {
    Model model(ops, preset, dtype);
    const std::string name = std::string(preset) + (dtype == DType::BF16 ? " bf16" : " fp32");
    bench_pass(ops, machine, model, name.c_str(), 1, 512);
    if (large) return;
    bench_pass(ops, machine, model, name.c_str(), 16, 128);
    const bool small = strcmp(preset, "small") == 0;
    bench_generation(ops, machine, model, name.c_str(), 1, small ? 32 : 128);
    bench_generation(ops, machine, model, name.c_str(), 16, small ? 16 : 128);
}

}  // namespace

int main(int argc, char** argv) {
    const auto ops = make_cpu_ops();
#if OPENBLAS
    openblas_set_num_threads(max_threads());
#endif
    const MachineLimits machine = measure_limits(*ops);
    printf("%s; matrix product %.0f GFLOP/s, memory read %.1f GB/s\n", ops->device_name().c_str(),
           machine.flops * 1e-9, machine.bandwidth * 1e-9);
    if (argc > 1) {
        const bool half = argc > 2 && strcmp(argv[2], "bf16") == 0;
        bench_model(*ops, machine, argv[1], half ? DType::BF16 : DType::F32,
                    strncmp(argv[1], "sdar", 4) == 0);
        return 0;
    }
    for (const char* preset : {"tiny", "mini", "small"})
        bench_model(*ops, machine, preset, DType::F32, false);
    bench_model(*ops, machine, "small", DType::BF16, false);
}
