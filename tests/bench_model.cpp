// bench_model.cpp -- a GPU under whole networks with random weights: an SFT update, a TraceRL update on ragged traces, a rollout of
// many sequences, one sequence alone. (The CPU's are bench_engine and bench_update.)
//
//   bench_model [--device cuda|cuda:I|cpu] [--shape NAME]... [--only WORD] [--tokens N] [--sequences N] [--length N]
//
// --only: what has WORD in its name alone. --tokens: of an update. --sequences, --length: of a rollout.
// Shapes: tiny, mini, small, 0.6b, sdar-1.7b, sdar-4b, sdar-8b (default: the last four; on the CPU, to see that it runs, tiny). Operations are
// those of the model: 2 per weight and row in the forward pass (target rows alone in the last layer's query side and the head), 4 per
// visible pair, head and channel, three times that with the backward pass. Limits are measured first: bandwidth by copying, the
// products by a large one. Every figure is the median of RUNS runs after one that is not counted.
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <functional>

#include "inference/engine.h"
#include "kernels/cuda_ops.h"
#include "kernels/device_select.h"
#include "model/layout.h"
#include "tests/bench_fill.h"
#include "train/learner.h"
#include "train/masks.h"
#include "train/programs/memory_plan.h"
#include "train/update.h"
#include "weights_tools/presets.h"

namespace {

constexpr int RUNS = 5;

struct BenchOptions {
    std::string device = "cuda";
    std::vector<std::string> shapes;
    std::string only;
    int tokens = 0, sequences = 0, length = 0;  // 0: by the device
};

ModelConfig shape_named(const std::string& name) {
    ModelConfig c;
    if (name == "0.6b") {
        c = model_preset("sdar-1.7b");
        c.C = 1024, c.L = 28, c.NH = 16, c.NKV = 8, c.HD = 128, c.F = 3072, c.tied = true;
    } else {
        c = model_preset(name);
    }
    if (c.V == 0) c.V = 512, c.mask_id = 511;
    c.max_positions = 4096;
    return c;
}

double seconds(Ops& ops, const Tensor& last, const std::function<void()>& run) {
    std::vector<double> times;
    std::vector<char> host(last.bytes());
    for (int i = 0; i <= RUNS; i++) {
        const auto start = std::chrono::steady_clock::now();
        run();
        ops.download(host.data(), last);  // waits for everything before it
        if (i)
            times.push_back(std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
    }
    std::sort(times.begin(), times.end());
    return times[times.size() / 2];
}

// Normal numbers.
void fill(Ops& ops, const Tensor& t, float scale, float mean = 0) {
    static const std::vector<float> block = random_block([](Rng& rng) { return rng.normal(); });
    fill_with(ops, t, block, scale, mean);
}

struct Limits {
    double bandwidth, flops;
};
Limits measure_limits(Ops& ops, DType dtype) {
    Arena arena("limits", ops);
    Tensor a, b, x, w, y;
    const int64_t n = ops.on_host() ? 1 << 22 : int64_t(256) << 20, m = ops.on_host() ? 512 : 8192;
    arena.add(&a, "a", 1, n), arena.add(&b, "b", 1, n);
    arena.add(&x, "x", m, m, dtype), arena.add(&w, "w", m, m, dtype), arena.add(&y, "y", m, m, dtype);
    arena.allocate();
    fill(ops, x, 1), fill(ops, w, 1);
    const Limits l = {
        2.0 * double(a.bytes()) / seconds(ops, b.col_range(0, 1), [&] { ops.copy(b, a); }),
        2.0 * double(m * m * m) / seconds(ops, y.row_range(0, 1), [&] { ops.linear_forward(y, x, w); })};
    printf("%s: %.0f GB/s (copy), %.2f TFLOP/s (product of %lld^3, %s)\n\n", ops.device_name().c_str(),
           l.bandwidth * 1e-9, l.flops * 1e-12, (long long)m, name_of(dtype));
    return l;
}

std::vector<int> random_ids(Rng& rng, int n, int V) {
    std::vector<int> out(static_cast<size_t>(n));
    for (int& id : out) id = int(rng.below(uint32_t(V - 1)));
    return out;
}

// Sequences that fill `tokens` rows once packed.
std::vector<Sequence> fill_batch(const std::function<Sequence()>& next, int block, int tokens) {
    std::vector<Sequence> out;
    for (;;) {
        out.push_back(next());
        if (packed_tokens(out, block) <= tokens) continue;
        if (out.size() > 1) out.pop_back();
        return out;
    }
}

double weights_per_layer(const ModelConfig& c) {
    return double(c.C) * (2 * c.q_width() + 2 * c.kv_width() + 3 * double(c.F));
}

// Operations of a forward pass.
double forward_flops(const ModelConfig& c, const TokenBatch& batch) {
    const double T = batch.T(), N = batch.n_targets(), keys = 2.0 * c.C * c.kv_width();
    TokenBatch targets;
    for (const int row : batch.target_row) targets.add(0, 0, 0, batch.see[size_t(row)]);
    const double pairs = double(visible_pairs(batch)) * (c.L - 1) + double(visible_pairs(targets));
    return 2 * T * ((c.L - 1) * weights_per_layer(c) + keys + double(c.C) * c.q_width()) +
           2 * N * (weights_per_layer(c) - keys - double(c.C) * c.q_width() + double(c.V) * c.C) +
           4 * pairs * c.q_width();
}

// Time of the update's matrix products alone.
double product_seconds(Ops& ops, const ModelConfig& c, DType dtype, int T, int N) {
    struct Product {
        int64_t rows, out, in;
        int times;
    };
    double total = 0;
    for (const Product& p : {Product{T, c.q_width() + 2 * c.kv_width(), c.C, c.L},
                             {T, c.C, c.q_width(), c.L - 1},
                             {T, 2 * c.F, c.C, c.L - 1},
                             {T, c.C, c.F, c.L - 1},
                             {N, c.C, c.q_width(), 1},
                             {N, 2 * c.F, c.C, 1},
                             {N, c.C, c.F, 1}}) {
        if (p.times == 0) continue;
        Arena arena("product", ops);
        Tensor x, w, y, dx, dw;
        arena.add(&x, "x", p.rows, p.in, dtype), arena.add(&w, "w", p.out, p.in, dtype);
        arena.add(&y, "y", p.rows, p.out, dtype), arena.add(&dx, "dx", p.rows, p.in, dtype);
        arena.add(&dw, "dw", p.out, p.in);
        arena.allocate();
        fill(ops, x, 1), fill(ops, w, 0.02f);
        total += p.times * seconds(ops, dw.row_range(0, 1), [&] {
                     ops.linear_forward(y, x, w);
                     ops.linear_backward(dx, dw, {}, y, x, w);
                 });
    }
    return total;
}

class Shape {
  public:
    Shape(Ops& ops, const std::string& name, const Limits& limits)
        : ops_(ops),
          name_(name),
          config_(shape_named(name)),
          dtype_(ops.on_host() ? DType::F32 : DType::BF16),
          limits_(limits),
          arena_("weights", ops) {
        weights_.plan(arena_, config_, Head::Policy, dtype_);
        arena_.allocate();
        weights_.bind(config_);
        weights_.for_each_stored([&](const std::string& tensor, const Tensor& t) {
            if (is_vector(tensor))
                fill(ops, t, 0.1f, 1);
            else
                fill(ops, t, 1 / std::sqrt(float(t.cols)));
        });
    }

    void update(const char* what, const std::vector<Sequence>& sequences) {
        const MicroBatchLimits most = needed_limits_of(sequences);
        TrainingNetwork network(ops_, config_, weights_, Head::Policy, config_.B, most);
        network.allocate();
        const PackedBatch packed = pack(sequences, config_.B, false);
        const int T = packed.batch.T(), N = packed.batch.n_targets();
        const double work = 3 * forward_flops(config_, packed.batch);
        std::vector<std::vector<double>> weights;
        for (const Sequence& s : sequences) {
            weights.emplace_back();
            for (const Copy& copy : s.copies)
                weights.back().resize(weights.back().size() + copy.target.size(), 1);
        }
        const auto pairs = cross_entropy_pairs(weights, N);
        const double s = seconds(ops_, network.gradients().final_norm,
                                 [&] { network.accumulate(sequences, {.pairs = pairs}); });
        const double products = product_seconds(ops_, config_, dtype_, T, N);
        printf(
            "%-10s %-26s T %6d, targets %6d %9.2f ms %9.0f tokens/s %7.2f TFLOP/s %5.1f %% of the limit, "
            "products of the layers "
            "%4.1f %% of the time\n",
            name_.c_str(), what, T, N, s * 1e3, T / s, work / s * 1e-12, 100 * work / s / limits_.flops,
            100 * products / s);
        fflush(stdout);
    }

    // `steps` denoising steps per block reveal B / steps tokens each, whatever the weights are; MIXED: each sequence has a number of
    // its own, and a prompt of its own length, so that they are never all at the end of a block.
    static constexpr int MIXED = 0;
    void rollout(const char* what, int sequences, int gen_length, int steps) {
        Rng rng(3, Stream::Task);
        std::vector<Request> requests;
        for (int i = 0; i < sequences; i++) {
            Request r;
            r.prompt_ids = random_ids(rng, steps == MIXED ? 128 - int(rng.below(64)) : 128, config_.V);
            r.sequence = uint32_t(i);
            r.options.gen_length = gen_length;
            r.options.block = config_.B;
            r.options.steps = steps == MIXED ? 1 + int(rng.below(uint32_t(config_.B))) : steps;
            r.options.remasking = Remasking::LowConfidenceStatic;
            r.options.temperature = 1;
            requests.push_back(r);
        }
        Arena arena("engine", ops_);
        Engine engine(ops_, config_, weights_,
                      {.max_active = sequences,
                       .max_rows = sequences * (128 + 2 * config_.B),  // all prompts at once, as in training
                       .kv_slots = sequences * (128 + gen_length)},
                      config_.V, arena);
        arena.allocate();
        engine.generate(requests);
        const int64_t before = engine.forward_passes();
        const auto start = std::chrono::steady_clock::now();
        engine.generate(requests);
        const double s = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
        const double passes = double(engine.forward_passes() - before);
        const double bytes =
            (double(config_.L) * weights_per_layer(config_) + double(config_.V) * config_.C) *
            double(size_of(dtype_));
        printf(
            "%-10s %-26s %4d sequences of %d %11.1f tokens/s %8.3f ms per pass, reading the "
            "weights alone takes %8.3f "
            "ms (%.1f %%)\n",
            name_.c_str(), what, sequences, gen_length, double(sequences) * gen_length / s, s / passes * 1e3,
            bytes / limits_.bandwidth * 1e3, 100 * bytes / limits_.bandwidth * passes / s);
        fflush(stdout);
    }

    // Responses of up to `longest` tokens; semi-autoregressive SFT, or traces of 1 to B tokens a step.
    std::vector<Sequence> sft_batch(int tokens, int longest) const {
        Rng rng(4, Stream::Task);
        const MaskShape shape{config_.B, config_.mask_id};
        return fill_batch(
            [&] {
                SftExample e;
                e.prompt_ids = random_ids(rng, 100, config_.V);
                e.response_ids = random_ids(rng, longest, config_.V);
                SftMaskOptions masks;
                masks.block = config_.B;
                e.copies = sft_copies(e, shape, masks, rng);
                return sft_sequence(e, shape);
            },
            config_.B, tokens);
    }
    std::vector<Sequence> trace_batch(int tokens, int longest) const {
        Rng rng(5, Stream::Task);
        return fill_batch(
            [&] {
                const int n = std::max(config_.B, longest / 4 + int(rng.below(uint32_t(3 * longest / 4))));
                Record r;
                r.prompt_ids = random_ids(rng, 100, config_.V);
                r.response_ids = random_ids(rng, n, config_.V);
                int step = 0;
                for (int i = 0; i < n; i++) {
                    if (i == 0 || rng.below(5) < 2 || (100 + i) % config_.B == 0)
                        step++;  // 2.5 a step, within a block
                    r.step_map.push_back(step);
                }
                r.tail_ids.assign(size_t((config_.B - (100 + n) % config_.B) % config_.B), NEVER);
                r.tail_steps = r.tail_ids;
                return trace_sequence(r, {config_.B, config_.mask_id}, 1);
            },
            config_.B, tokens);
    }

  private:
    MicroBatchLimits needed_limits_of(const std::vector<Sequence>& sequences) const {
        const PackedBatch packed = pack(sequences, config_.B, false);
        return {packed.batch.T(), packed.batch.n_targets()};
    }

    Ops& ops_;
    std::string name_;
    ModelConfig config_;
    DType dtype_;
    Limits limits_;
    Arena arena_;
    Parameters weights_;
};

// A whole step as train_tracerl makes it: passes and optimizer, in the memory that its plan says: BF16 weights, an F32 master and BF16 moments, in micro-batches
// of `tokens`. value: of a value model of the same shape beside the policy, too. The first of two is not counted.
void whole_step(Ops& ops, const std::string& name, const char* what, bool value,
                const std::vector<Sequence>& sequences, const MicroBatchLimits& limits) {
    const ModelConfig config = shape_named(name);
    SharedMemory turns(ops);
    const LearnerMemory memory = {ops.on_host() ? DType::F32 : DType::BF16, DType::BF16, &turns};
    std::vector<std::unique_ptr<Learner>> learners;
    std::vector<std::pair<std::string, Learner*>> named;
    for (const Head head : {Head::Policy, Head::Value}) {
        if (head == Head::Value && !value) continue;
        learners.push_back(
            std::make_unique<Learner>(ops, config, head, config.B, limits, OptimizerOptions{}, memory));
        named.push_back({head == Head::Value ? "value" : "policy", learners.back().get()});
    }
    const MemoryPlan plan = plan_memory(named, nullptr, std::nullopt, ops.available());
    plan.check();
    turns.reserve(plan.block_bytes());
    for (const auto& learner : learners) {
        learner->allocate();
        learner->master().for_each_stored([&](const std::string& tensor, const Tensor& t) {
            is_vector(tensor) ? fill(ops, t, 0.1f, 1) : fill(ops, t, 1 / std::sqrt(float(t.cols)));
        });
        learner->master_changed();
    }
    std::vector<std::vector<double>> weights;
    for (const Sequence& s : sequences) {
        weights.emplace_back();
        for (const Copy& copy : s.copies)
            weights.back().resize(weights.back().size() + copy.target.size(), 1);
    }
    double passes = 0, steps = 0;
    int64_t tokens = 0;
    for (int i = 0; i < 2; i++) {
        passes = steps = 0;
        tokens = 0;
        for (const auto& learner : learners) {
            const auto now = [] { return std::chrono::steady_clock::now(); };
            const auto since = [&](auto start) {
                return std::chrono::duration<double>(now() - start).count();
            };
            const int64_t before = learner->network->tokens_forwarded();
            const auto start = now();
            learner->network->accumulate(sequences, {.pairs = cross_entropy_pairs(weights, 1)});
            passes += since(start);
            const auto middle = now();
            learner->step();
            std::vector<char> host(learner->weights.final_norm.bytes());
            ops.download(host.data(), learner->weights.final_norm);  // waits for everything before it
            steps += since(middle);
            tokens += learner->network->tokens_forwarded() - before;
        }
    }
    printf(
        "%-10s %-26s %7lld tokens in micro-batches of %d, recompute %s: %.1f GiB of %.1f free; %.2f s, and "
        "%.3f s for the optimizer\n",
        name.c_str(), what, (long long)tokens, limits.max_tokens, name_of(plan.recompute),
        double(plan.total()) / (1 << 30), double(plan.available) / (1 << 30), passes, steps);
    fflush(stdout);
}

// What does not fit is said, with its numbers, and the rest goes on.
void guarded(const std::string& what, const std::function<void()>& run) {
    try {
        run();
    } catch (const Error& e) {
        if (e.code != Exit::NoMemory) throw;
        printf("%-37s does not fit: %s\n", what.c_str(), e.what());
    }
}

void bench(Ops& ops, const BenchOptions& options) {
    const bool cpu = ops.on_host();
    const Limits limits = measure_limits(ops, cpu ? DType::F32 : DType::BF16);
    std::vector<std::string> shapes = options.shapes;
    if (shapes.empty())
        shapes = cpu ? std::vector<std::string>{"tiny"}
                     : std::vector<std::string>{"0.6b", "sdar-1.7b", "sdar-4b", "sdar-8b"};
    const int tokens = options.tokens ? options.tokens : cpu ? 1024 : 8192, longest = cpu ? 128 : 1500;
    const int sequences = options.sequences ? options.sequences
                          : cpu             ? 8
                                            : 128,
              length = options.length ? options.length
                       : cpu          ? 32
                                      : 256;
    for (const std::string& name : shapes)
        guarded(name, [&] {
            const auto part = [&](const char* what, const std::function<void(const char*)>& run) {
                if (std::string(what).find(options.only) != std::string::npos)
                    guarded(name + " " + what, [&] { run(what); });
            };
            auto shape = std::make_unique<Shape>(ops, name, limits);
            part("SFT update",
                 [&](const char* what) { shape->update(what, shape->sft_batch(tokens, longest)); });
            part("TraceRL update, ragged",
                 [&](const char* what) { shape->update(what, shape->trace_batch(tokens, longest)); });
            part("rollout, 4 steps a block",
                 [&](const char* what) { shape->rollout(what, sequences, length, 4); });
            part("rollout, 2 steps a block",
                 [&](const char* what) { shape->rollout(what, sequences, length, 2); });
            part("rollout, 1 to 4 steps",
                 [&](const char* what) { shape->rollout(what, sequences, length, Shape::MIXED); });
            part("one sequence", [&](const char* what) { shape->rollout(what, 1, length, 4); });
            const std::vector<Sequence> traces = shape->trace_batch(4 * tokens, longest);
            shape.reset();
            const MicroBatchLimits micro_batch = {tokens, tokens};
            part("whole step",
                 [&](const char* what) { whole_step(ops, name, what, false, traces, micro_batch); });
            part("whole step, and of a value model",
                 [&](const char* what) { whole_step(ops, name, what, true, traces, micro_batch); });
        });
}

}  // namespace

int main(int argc, char** argv) {
    BenchOptions o;
    for (int i = 1; i < argc; i++) {
        const std::string name = argv[i];
        const char* value = i + 1 < argc ? argv[i + 1] : nullptr;
        if (name == "--device" && value)
            o.device = value;
        else if (name == "--shape" && value)
            o.shapes.push_back(value);
        else if (name == "--only" && value)
            o.only = value;
        else if (name == "--tokens" && value && atoi(value) > 0)
            o.tokens = atoi(value);
        else if (name == "--sequences" && value && atoi(value) > 0)
            o.sequences = atoi(value);
        else if (name == "--length" && value && atoi(value) > 0)
            o.length = atoi(value);
        else {
            fprintf(stderr,
                    "usage: %s [--device cuda|cuda:I|cpu] [--shape NAME]... [--only WORD] [--tokens N] "
                    "[--sequences N] "
                    "[--length N]\n",
                    argv[0]);
            return 2;
        }
        i++;
    }
    if (o.device == "cuda" && cuda_device_count() == 0) {
        printf("no GPU here: nothing to measure\n");
        return 0;
    }
    try {
        bench(*make_ops(o.device), o);
    } catch (const Error& e) {
        fprintf(stderr, "bench_model: %s\n", e.what());
        return int(e.code);
    }
    return 0;
}
