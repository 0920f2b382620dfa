// bench_cuda.cu -- every CUDA operation: time, GB/s or TFLOP/s, and the share of what this device was
// measured to reach.
//
//   bench_cuda [--tiny] [--filter WORD]      --tiny: shapes of a unit test, to see that the program runs
//
// Median of 20, each after the L2 cache has been flushed, on random data. The limits are measured first:
// bandwidth by copying, the matrix units by a large product. Attention counts visible pairs only. Bytes and
// operations are those the operation must move and do, not those it happens to.
#include <algorithm>
#include <cstdio>
#include <cstring>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "kernels/cuda_kernels.h"
#include "kernels/cuda_ops.h"
#include "kernels/device/device.h"
#include "tests/bench_fill.h"

namespace {

constexpr int RUNS = 20;

class Bench {
  public:
    Bench(Ops& ops, bool tiny, std::string filter) : ops_(ops), tiny_(tiny), filter_(std::move(filter)) {
        flush_ = fresh(1, tiny ? 1024 : 64 << 20);  // 256 MiB: more than any L2
        CUDA_CHECK(cudaEventCreate(&start_));
        CUDA_CHECK(cudaEventCreate(&stop_));
    }
    ~Bench() {
        for (const Tensor& t : tensors_) ops_.release(t.data, t.bytes());
        cudaEventDestroy(start_);
        cudaEventDestroy(stop_);
    }
    Bench(const Bench&) = delete;
    Bench& operator=(const Bench&) = delete;

    Ops& ops() const { return ops_; }
    Tensor fresh(int64_t rows, int64_t cols, DType dtype = DType::F32) {
        Tensor t = tensor(nullptr, rows, cols, dtype);
        t.data = ops_.allocate(t.bytes());
        tensors_.push_back(t);
        return t;
    }
    // Uniform in [-1, 1).
    Tensor random(int64_t rows, int64_t cols, DType dtype = DType::BF16) {
        const Tensor t = fresh(rows, cols, dtype);
        fill_with(ops_, t, block_);
        return t;
    }
    Tensor indices(const std::vector<int>& values, int64_t cols) {
        const Tensor t = fresh(int64_t(values.size()) / cols, cols, DType::I32);
        ops_.upload(t, values.data());
        return t;
    }
    void release_all() {  // but the first, which flushes
        while (tensors_.size() > 1) {
            ops_.release(tensors_.back().data, tensors_.back().bytes());
            tensors_.pop_back();
        }
    }

    // Seconds of `run`, the median.
    double time(const std::function<void()>& run) {
        std::vector<float> ms;
        run();  // algorithms are chosen, tiles made
        for (int i = 0; i < (tiny_ ? 1 : RUNS); i++) {
            ops_.zero(flush_);
            CUDA_CHECK(cudaEventRecord(start_));
            run();
            CUDA_CHECK(cudaEventRecord(stop_));
            CUDA_CHECK(cudaEventSynchronize(stop_));
            float t = 0;
            CUDA_CHECK(cudaEventElapsedTime(&t, start_, stop_));
            ms.push_back(t);
        }
        std::sort(ms.begin(), ms.end());
        return double(ms[ms.size() / 2]) * 1e-3;
    }
    void measure_limits() {
        const int64_t n = tiny_ ? 4096 : int64_t(256) << 20, m = tiny_ ? 64 : 8192;
        const Tensor a = fresh(1, n), b = fresh(1, n);
        bandwidth_ = 2.0 * double(a.bytes()) / time([&] { ops_.copy(b, a); });
        release_all();
        const Tensor x = random(m, m), w = random(m, m), y = fresh(m, m, DType::BF16);
        flops_ = 2.0 * double(m) * double(m) * double(m) / time([&] { ops_.linear_forward(y, x, w); });
        release_all();
        printf("%s: measured limits %.0f GB/s (copy), %.1f TFLOP/s (bf16 product of %lld^3)\n\n",
               ops_.device_name().c_str(), bandwidth_ * 1e-9, flops_ * 1e-12, (long long)m);
        printf("%-34s %-34s %10s %14s %8s\n", "operation", "shape", "time", "rate", "of limit");
    }
    bool wanted(const std::string& name) const {
        return filter_.empty() || name.find(filter_) != std::string::npos;
    }
    void bytes(const std::string& name, const std::string& shape, double moved,
               const std::function<void()>& run) {
        if (!wanted(name)) return;
        print_bytes(name, shape, moved, time(run));
    }
    // What `run` takes beside `part`, which is in it.
    void bytes_beside(const std::string& name, const std::string& shape, double moved,
                      const std::function<void()>& part, const std::function<void()>& run) {
        if (wanted(name)) print_bytes(name, shape, moved, time(run) - time(part));
    }
    void flops(const std::string& name, const std::string& shape, double done,
               const std::function<void()>& run) {
        if (!wanted(name)) return;
        const double s = time(run);
        printf("%-34s %-34s %7.3f ms %6.1f TFLOP/s %6.1f %%\n", name.c_str(), shape.c_str(), s * 1e3,
               done / s * 1e-12, 100 * done / s / flops_);
        fflush(stdout);
    }

  private:
    void print_bytes(const std::string& name, const std::string& shape, double moved, double s) const {
        printf("%-34s %-34s %7.3f ms %9.1f GB/s %6.1f %%\n", name.c_str(), shape.c_str(), s * 1e3,
               moved / s * 1e-9, 100 * moved / s / bandwidth_);
        fflush(stdout);
    }

    Ops& ops_;
    bool tiny_;
    std::string filter_;
    std::vector<float> block_ = random_block([](Rng& rng) { return 2 * rng.uniform() - 1; });
    std::vector<Tensor> tensors_;
    Tensor flush_;
    cudaEvent_t start_{}, stop_{};
    double bandwidth_ = 1, flops_ = 1;
};

struct Body {  // the shapes of a model
    const char* name;
    int C, NH, NKV, HD, F, V;
};

void bench_rows(Bench& b, const Body& m, int T) {
    Ops& ops = b.ops();
    const double row = 2.0 * T * m.C;  // bytes of one (T, C) in bf16
    const std::string shape = format("%s, T %d", m.name, T);
    const Tensor x = b.random(T, m.C), y = b.fresh(T, m.C, DType::BF16), w = b.random(1, m.C, DType::F32),
                 d = b.random(T, m.C);
    const Tensor dx = b.fresh(T, m.C, DType::BF16), dw = b.fresh(1, m.C), rstd = b.fresh(1, T);
    b.bytes("rmsnorm forward", shape, 2 * row, [&] { ops.rmsnorm_forward(y, rstd, x, w, 1e-6f); });
    b.bytes("rmsnorm backward", shape, 4 * row, [&] { ops.rmsnorm_backward(dx, dw, d, rstd, x, w); });
    const Tensor gate_up = b.random(T, 2 * m.F), act = b.fresh(T, m.F, DType::BF16), dact = b.random(T, m.F),
                 dgate_up = b.fresh(T, 2 * m.F, DType::BF16);
    b.bytes("swiglu forward", shape, 6.0 * T * m.F, [&] { ops.swiglu_forward(act, gate_up); });
    b.bytes("swiglu backward", shape, 10.0 * T * m.F, [&] { ops.swiglu_backward(dgate_up, dact, gate_up); });
    std::vector<int> position;
    for (int t = 0; t < T; t++) position.push_back(t % 512);
    const Tensor pos = b.indices(position, T), rope = b.random(512, m.HD, DType::F32),
                 norm = b.random(1, m.HD, DType::F32);
    const Tensor q = b.random(T, m.NH * m.HD), q_out = b.fresh(T, m.NH * m.HD, DType::BF16),
                 q_rstd = b.fresh(T, m.NH), dnorm = b.fresh(1, m.HD);
    const double heads = 2.0 * T * m.NH * m.HD;
    b.bytes("head norm + rope forward", shape, 2 * heads,
            [&] { ops.head_norm_rope_forward(q_out, q_rstd, q, norm, pos, rope, m.NH, 1e-6f); });
    const Tensor dq = b.random(T, m.NH * m.HD);
    b.bytes("head norm + rope backward", shape, 3 * heads,
            [&] { ops.head_norm_rope_backward(q_out, dnorm, dq, q_rstd, q, norm, pos, rope, m.NH); });
    const int CK = m.NKV * m.HD;
    const Tensor qkv = b.random(T, m.NH * m.HD + 2 * CK), k_out = b.fresh(T, CK, DType::BF16),
                 v_out = b.fresh(T, CK, DType::BF16), k_rstd = b.fresh(T, m.NKV);
    std::vector<int> slots;
    for (int t = 0; t < T; t++) slots.push_back(T - 1 - t);
    const QkvForward layer = {.q = q_out,
                              .q_rstd = q_rstd,
                              .k = k_out,
                              .k_rstd = k_rstd,
                              .v = v_out,
                              .slot = b.indices(slots, T),
                              .qkv = qkv,
                              .q_norm = norm,
                              .k_norm = norm,
                              .position = pos,
                              .rope = rope,
                              .heads = m.NH,
                              .kv_heads = m.NKV,
                              .eps = 1e-6f};
    b.bytes("queries, keys, values", shape, 2 * double(qkv.bytes()), [&] { ops.qkv_forward(layer); });
    std::vector<int> token;
    for (int t = 0; t < T; t++) token.push_back(t % 2 ? m.V - 1 : t * 7919 % m.V);
    const Tensor ids = b.indices(token, T), table = b.random(m.V, m.C), dtable = b.fresh(m.V, m.C);
    b.bytes("embedding forward", shape, 2 * row, [&] { ops.embedding_forward(y, ids, table); });
    b.bytes("embedding backward (half masks)", shape, row + 4.0 * T * m.C,
            [&] { ops.embedding_backward(dtable, d, ids); });
    b.release_all();
}

void bench_products(Bench& b, const Body& m, int T) {
    Ops& ops = b.ops();
    struct Product {
        const char* name;
        int N, K;
    };
    for (const Product& p : {Product{"qkv", (m.NH + 2 * m.NKV) * m.HD, m.C}, Product{"gate up", 2 * m.F, m.C},
                             Product{"down", m.C, m.F}}) {
        const std::string shape = format("%s %s, T %d", m.name, p.name, T);
        const double work = 2.0 * T * p.N * p.K;
        const Tensor x = b.random(T, p.K), w = b.random(p.N, p.K), y = b.fresh(T, p.N, DType::BF16),
                     d = b.random(T, p.N);
        const Tensor dx = b.fresh(T, p.K, DType::BF16), dw = b.fresh(p.N, p.K);
        b.flops("linear forward", shape, work, [&] { ops.linear_forward(y, x, w); });
        b.flops("linear backward", shape, 2 * work, [&] { ops.linear_backward(dx, dw, {}, d, x, w); });
        b.release_all();
    }
}

// Products of a step of generation, by our kernel and by the library's: how fast weights are read.
void bench_few_rows(Bench& b, const Body& m, int rows) {
    struct Product {
        const char* name;
        int N, K;
        DType out;
    };
    const int CQ = m.NH * m.HD;
    for (const Product& p : {Product{"qkv", CQ + 2 * m.NKV * m.HD, m.C, DType::BF16},
                             {"out", m.C, CQ, DType::BF16},
                             {"gate up", 2 * m.F, m.C, DType::BF16},
                             {"down", m.C, m.F, DType::BF16},
                             {"head", m.V, m.C, DType::F32}}) {
        if (!b.wanted("few rows")) return;
        const std::string shape = format("%s %s, T %d", m.name, p.name, rows);
        const Tensor x = b.random(rows, p.K), w = b.random(p.N, p.K), y = b.fresh(rows, p.N, p.out);
        const Tensor scratch = b.fresh(1, int64_t(34) << 20, DType::BF16);
        cuda::Workspace workspace(scratch.data, scratch.bytes());
        const std::unique_ptr<cuda::MatmulState, decltype(&cuda::destroy_matmul_state)> state(
            cuda::create_matmul_state(), cuda::destroy_matmul_state);
        const cuda::Context ctx{nullptr, workspace, state.get()};
        const cuda::Matmul product{.out = y, .a = x, .b = w, .b_transposed = true};
        b.bytes("few rows", shape, double(w.bytes()), [&] { cuda::matmul_narrow(ctx, product); });
        b.bytes("few rows, cuBLASLt", shape, double(w.bytes()), [&] { cuda::matmul_library(ctx, product); });
        b.release_all();
    }
}

struct Layout {
    const char* name;
    std::vector<int> see;  // (T, 6)
    int T, S;
    double pairs;
};

// Causal by blocks of B, in sequences of n tokens.
Layout block_causal(int T, int n, int B) {
    Layout l{"block-causal", {}, T, T, 0};
    for (int t = 0; t < T; t++) {
        const int first = t / n * n, end = std::min(T, first + (t % n / B + 1) * B);
        l.see.insert(l.see.end(), {0, first, 0, 0, end, 0});
        l.pairs += end - first;
    }
    return l;
}
// Per sequence of n rows a clean text, then `copies` noisy copies of each of its blocks, one after the other: 1 in SFT, one per reveal
// step in a trace.
Layout training(const char* name, int T, int n, int B, int copies) {
    Layout l{name, {}, T, T, 0};
    const int clean = std::max(B, n / (1 + copies) / B * B);
    for (int t = 0; t < T; t++) {
        const int first = t / n * n, at = t - first;
        int end, own = 0, own_end = 0;
        if (at < clean) {
            end = first + (at / B + 1) * B;
        } else {
            const int copy = (at - clean) / B, block = copy / copies % (clean / B);
            end = first + block * B, own = first + clean + copy * B,
            own_end = std::min(T, std::min(first + n, own + B));
        }
        l.see.insert(l.see.end(), {0, first, own, 0, end, own_end});
        l.pairs += end - first + own_end - own;
    }
    return l;
}
// `sequences` blocks of B rows over caches of `context` slots each.
Layout decoding(int sequences, int context, int B) {
    Layout l{"decoding", {}, sequences * B, sequences * (context + B), 0};
    for (int s = 0; s < sequences; s++)
        for (int r = 0; r < B; r++) {
            const int first = s * (context + B);
            l.see.insert(l.see.end(), {0, first, first + context, 0, first + context, first + context + B});
            l.pairs += context + B;
        }
    return l;
}

void bench_attention(Bench& b, const Body& m, const Layout& l, const std::string& what, bool backward) {
    Ops& ops = b.ops();
    const int CQ = m.NH * m.HD, CK = m.NKV * m.HD;
    const std::string shape = format("%s, T %d, %s", m.name, l.T, what.c_str());
    const double work = 4.0 * l.pairs * CQ;
    const Tensor see = b.indices(l.see, SPAN_INTS), q = b.random(l.T, CQ), k = b.random(l.S, CK),
                 v = b.random(l.S, CK);
    const Tensor out = b.fresh(l.T, CQ, DType::BF16), lse = b.fresh(l.T, m.NH);
    if (!backward) {
        b.bytes("attention decoding", shape, 4.0 * l.S * CK,
                [&] { ops.attention_forward(out, lse, q, k, v, see, m.NH, m.NKV); });
    } else {
        b.flops("attention forward", shape, work,
                [&] { ops.attention_forward(out, lse, q, k, v, see, m.NH, m.NKV); });
        const Tensor d = b.random(l.T, CQ), dq = b.fresh(l.T, CQ, DType::BF16),
                     dk = b.fresh(l.S, CK, DType::BF16), dv = b.fresh(l.S, CK, DType::BF16),
                     sums = b.fresh(l.T, m.NH);
        b.flops("attention backward", shape, 2.5 * work,
                [&] { ops.attention_backward(dq, dk, dv, sums, d, out, lse, q, k, v, see, m.NH, m.NKV); });
    }
    b.release_all();
}

void bench_head(Bench& b, const Body& m, int N) {
    Ops& ops = b.ops();
    const std::string shape = format("%s, N %d, V %d", m.name, N, m.V);
    const double work = 2.0 * N * m.C * m.V;
    const Tensor x = b.random(N, m.C), w = b.random(m.V, m.C), dx = b.fresh(N, m.C, DType::BF16),
                 dw = b.fresh(m.V, m.C);
    const Tensor p = b.fresh(1, N), lse = b.fresh(1, N), d = b.random(1, N, DType::F32);
    std::vector<int> ids;
    for (int n = 0; n < N; n++) ids.push_back(n * 7919 % m.V);
    const Tensor target = b.indices(ids, N);
    b.flops("head logprob", shape, work, [&] { ops.head_logprob(p, lse, {}, x, w, target); });
    const Tensor logits = b.fresh(N, m.V);
    b.bytes_beside(
        "head logprob beside its product", shape, 4.0 * N * m.V, [&] { ops.linear_forward(logits, x, w); },
        [&] { ops.head_logprob(p, lse, {}, x, w, target); });
    b.flops("head backward", shape, 3 * work, [&] { ops.head_backward(dx, dw, d, lse, x, w, target); });
    const auto fresh = [&](Tensor shape) { return b.fresh(shape.rows, shape.cols, DType::I32); };
    const Tensor pairs = fresh(records<LossPair>(nullptr, N));
    b.bytes("policy loss", shape, double(pairs.bytes()) + 8.0 * N,
            [&] { ops.policy_loss_backward(d, p, pairs, 0.2, 0.2, 0.01); });
    const Tensor sampled = fresh(records<Sampled>(nullptr, N)), rows = fresh(records<SampleRow>(nullptr, N));
    for (const auto& [name, row] :
         {std::pair{"head sample, greedy", SampleRow{}},
          {"head sample, temperature", SampleRow{.temperature = 1}},
          {"head sample, Gumbel", SampleRow{.temperature = 1, .draw = Draw::Gumbel}},
          {"head sample, top-k and top-p", SampleRow{.temperature = 1, .top_k = 50, .top_p = 0.95f}}}) {
        ops.upload(rows, std::vector<SampleRow>(size_t(N), row).data());
        b.flops(name, shape, work, [&] { ops.head_sample(sampled, rows, x, w, m.V - 1, m.V - 1); });
    }
    b.release_all();
}

void bench_optimizer(Bench& b, int64_t n) {
    Ops& ops = b.ops();
    const std::string shape = format("%lld parameters", (long long)n);
    const Tensor p = b.fresh(1, n), g = b.random(1, n, DType::F32), m = b.fresh(1, n), v = b.fresh(1, n),
                 m16 = b.fresh(1, n, DType::BF16), v16 = b.fresh(1, n, DType::BF16),
                 weights = b.fresh(1, n, DType::BF16);
    const AdamW o{.lr = 1e-5f, .weight_decay = 0.01f, .step = 10};
    b.bytes("adamw, fp32 moments", shape, 28.0 * double(n), [&] { ops.adamw(p, m, v, g, o); });
    b.bytes("adamw, bf16 weights and moments", shape, 22.0 * double(n),
            [&] { ops.adamw(weights, m16, v16, g, o, p); });
    b.bytes("cast of the master weights", shape, 6.0 * double(n), [&] { ops.copy(weights, p); });
    b.bytes("sum of squares", shape, 4.0 * double(n), [&] { ops.sum_of_squares({&g, 1}); });
    b.release_all();
}

}  // namespace

int main(int argc, char** argv) {
    bool tiny = false;
    std::string filter;
    for (int i = 1; i < argc; i++) {
        if (!strcmp(argv[i], "--tiny"))
            tiny = true;
        else if (!strcmp(argv[i], "--filter") && i + 1 < argc)
            filter = argv[++i];
        else {
            fprintf(stderr, "usage: %s [--tiny] [--filter WORD]\n", argv[0]);
            return 2;
        }
    }
    if (!tiny && cuda_device_count() == 0) {
        printf("no GPU here: nothing to measure\n");
        return 0;
    }
    try {
        const std::unique_ptr<Ops> ops = make_cuda_ops(0);
        Bench b(*ops, tiny, filter);
        b.measure_limits();
        std::vector<Body> bodies = {{"1.7B", 2048, 16, 8, 128, 6144, 151936},
                                    {"4B", 2560, 32, 8, 128, 9728, 151936}};
        if (tiny) bodies = {{"tiny", 64, 4, 2, 32, 96, 200}};
        for (const Body& m : bodies) {
            const int T = tiny ? 20 : 8192;
            bench_rows(b, m, 4 * T);  // long enough that a launch does not count
            bench_products(b, m, T);
            for (const int length : tiny ? std::vector<int>{20} : std::vector<int>{1024, 4096, 16384}) {
                bench_attention(b, m, block_causal(length, std::min(length, 4096), 4), "block-causal", true);
                bench_attention(b, m, training("SFT", length, std::min(length, 4096), 4, 1), "SFT", true);
                bench_attention(b, m, training("trace", length, std::min(length, 4096), 4, 3), "trace", true);
            }
            {  // the papers' convention: short sequences, as many as fill the device
                const int length = tiny ? 24 : 16384, n = tiny ? 12 : 1024;
                const std::string of = format(" of %d", n);
                bench_attention(b, m, block_causal(length, n, 4), "block-causal" + of, true);
                bench_attention(b, m, training("SFT", length, n, 4, 1), "SFT" + of, true);
                bench_attention(b, m, training("trace", length, n, 4, 3), "trace" + of, true);
            }
            for (const int sequences : tiny ? std::vector<int>{2} : std::vector<int>{1, 16, 128})
                bench_attention(b, m, decoding(sequences, tiny ? 70 : 2048, 4),
                                format("context %d", tiny ? 70 : 2048), false);
            bench_head(b, m, tiny ? 5 : 2048);
        }
        const Body large = tiny ? bodies[0] : Body{"8B", 4096, 32, 8, 128, 12288, 151936};  // SDAR-8B's
        for (const int rows : {4, 8}) bench_few_rows(b, large, rows);
        bench_optimizer(b, tiny ? 1000 : int64_t(256) << 20);
    } catch (const Error& e) {
        fprintf(stderr, "bench_cuda: %s\n", e.what());
        return int(e.code);
    }
    return 0;
}
