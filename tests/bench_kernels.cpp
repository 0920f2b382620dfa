// bench_kernels.cpp -- how fast the CPU kernels are: time, GFLOP/s or GB/s, and the ratio to OpenBLAS where
// it has a peer.
#include <cstdio>
#include <cstring>

#include "kernels/attention_tiles.h"
#include "kernels/cpu.h"
#include "tests/bench_timing.h"

namespace {

// A row of a table: what a product takes beside OpenBLAS.
void print_product(const char* name, int T, int N, int K, double seconds, double peer) {
    printf("%-14s T %5d  N %6d  K %5d  %9.4f ms  %7.1f GFLOP/s", name, T, N, K, seconds * 1e3,
           2.0 * T * N * K / seconds * 1e-9);
    if (peer > 0) printf("  %5.2f x OpenBLAS", peer / seconds);
    printf("\n");
    fflush(stdout);
}

void bench_linear(Ops& ops, int T, int N, int K) {
    Buffers b;
    Tensor *x = b.add(T, K), *w = b.add(N, K), *half = b.add(N, K, DType::BF16), *out = b.add(T, N),
           *dx = b.add(T, K), *dw = b.add(N, K);
    b.fill();
    const float *xp = x->as<float>(), *wp = w->as<float>(), *op = out->as<float>();
    const double peer = sgemm(false, true, T, N, K, xp, wp, 0, out->as<float>());
    const auto forward = [&](const char* name, const Tensor& weight) {
        print_product(name, T, N, K, fastest([&] { ops.linear_forward(*out, *x, weight); }), peer);
    };
    // With a packed copy, where there is one.
    const auto forward_packed = [&](const char* name, Tensor weight) {
        const Tensor shape = ops.packed_shape(weight);
        if (!shape.rows) return;
        Buffers own;
        Tensor* copy = own.add(shape.rows, shape.cols, shape.dtype);
        own.arena.allocate();
        ops.pack(*copy, weight);
        weight.packed = copy->data;
        forward(name, weight);
    };
    forward("forward", *w);
    forward_packed("  packed", *w);
    forward("  bf16", *half);
    forward_packed("  bf16, packed", *half);
    if (T <= 16) return;
    print_product("  dinp", T, N, K, fastest([&] { ops.linear_backward(*dx, {}, {}, *out, *x, *w); }),
                  sgemm(false, false, T, K, N, op, wp, 0, dx->as<float>()));
    print_product("  dweight", T, N, K, fastest([&] { ops.linear_backward({}, *dw, {}, *out, *x, *w); }),
                  sgemm(true, false, N, K, T, op, xp, 1, dw->as<float>()));
}

// Few rows against weights that come from memory: every call takes the next of 256 MiB of matrices, as
// a pass of a large model does.
void bench_streamed(Ops& ops, const MachineLimits& machine, int T, int N, int K, DType dtype) {
    Buffers b;
    Tensor *x = b.add(T, K), *out = b.add(T, N);
    std::vector<Tensor*> weights;
    const int n = int((int64_t(256) << 20) / (int64_t(N) * K * int64_t(size_of(dtype))));
    for (int i = 0; i < n; i++) weights.push_back(b.add(N, K, dtype));
    b.fill();
    const auto all = [&](const auto& product) {
        return fastest(
                   [&] {
                       for (Tensor* w : weights) product(*w);
                   },
                   0.3) /
               n;
    };
    const double seconds = all([&](const Tensor& w) { ops.linear_forward(*out, *x, w); });
    const double rate = double(weights[0]->bytes()) / seconds;
    printf("streamed  %s  T %3d  N %6d  K %5d  %9.4f ms  %6.1f GB/s, %.2f of the memory's\n",
           dtype == DType::BF16 ? "bf16" : "fp32", T, N, K, seconds * 1e3, rate * 1e-9,
           rate / machine.bandwidth);
    fflush(stdout);
}

// Block-causal rows with blocks of B, as in training: every block sees what is before it and itself.
void bench_attention(Ops& ops, int T, int B, int heads, int kv_heads, int HD) {
    Buffers b;
    Tensor *q = b.add(T, heads * HD), *k = b.add(T, kv_heads * HD), *v = b.add(T, kv_heads * HD),
           *out = b.add(T, heads * HD);
    Tensor *dq = b.add(T, heads * HD), *dk = b.add(T, kv_heads * HD), *dv = b.add(T, kv_heads * HD),
           *dout = b.add(T, heads * HD);
    Tensor *lse = b.add(T, heads), *D = b.add(T, heads), *see = b.add(T, SPAN_INTS, DType::I32);
    b.fill();
    double pairs = 0;
    for (int t = 0; t < T; t++) {
        AttentionSpans spans;
        spans.end[1] = spans.begin[2] = t / B * B;
        spans.end[2] = std::min((t / B + 1) * B, T);
        memcpy(see->row<int>(t), &spans, sizeof spans);
        pairs += spans.end[2];
    }
    const auto report = [&](const char* name, double seconds, int products) {
        const double flops = 2.0 * products * pairs * heads * HD;
        printf("%-9s T %5d  B %3d  heads %d/%d of %d  %9.4f ms  %7.1f GFLOP/s\n", name, T, B, heads, kv_heads,
               HD, seconds * 1e3, flops / seconds * 1e-9);
    };
    report("attention",
           fastest([&] { ops.attention_forward(*out, *lse, *q, *k, *v, *see, heads, kv_heads); }), 2);
    report("  backward", fastest([&] {
               ops.attention_backward(*dq, *dk, *dv, *D, *dout, *out, *lse, *q, *k, *v, *see, heads,
                                      kv_heads);
           }),
           5);
}

void bench_head(Ops& ops, int N, int C, int V) {
    Buffers b;
    Tensor *x = b.add(N, C), *w = b.add(V, C), *dx = b.add(N, C), *dw = b.add(V, C), *logprob = b.add(1, N),
           *lse = b.add(1, N);
    Tensor *d = b.add(1, N), *target = b.add(1, N, DType::I32);
    b.fill();
    const double flops = 2.0 * N * C * V;
    const auto report = [&](const char* name, double seconds, int products) {
        printf("%-16s N %5d  C %4d  V %6d  %9.4f ms  %7.1f GFLOP/s\n", name, N, C, V, seconds * 1e3,
               products * flops / seconds * 1e-9);
        fflush(stdout);
    };
    report("head_logprob", fastest([&] { ops.head_logprob(*logprob, *lse, {}, *x, *w, *target); }), 1);
    report("  head_backward", fastest([&] { ops.head_backward(*dx, *dw, *d, *lse, *x, *w, *target); }), 3);
    std::vector<Sampled> out(static_cast<size_t>(N));
    std::vector<SampleRow> rows(static_cast<size_t>(N));
    const auto sample = [&](const char* name, const SampleRow& row) {
        for (int n = 0; n < N; n++) rows[size_t(n)] = row, rows[size_t(n)].position = uint32_t(n);
        report(name, fastest([&] {
                   ops.head_sample(records(out.data(), N), records(rows.data(), N), *x, *w, 0, V);
               }),
               1);
    };
    sample("  greedy", {});
    sample("  T 1", {.temperature = 1});
    sample("  T 1, Gumbel", {.temperature = 1, .draw = Draw::Gumbel});
    sample("  top-k 50", {.temperature = 0.7f, .top_k = 50});
    sample("  top-p 0.9", {.temperature = 0.7f, .top_p = 0.9f});
}

void bench_rows(Ops& ops, int T, int C) {
    Buffers b;
    Tensor *x = b.add(T, C), *y = b.add(T, C), *dy = b.add(T, C), *dx = b.add(T, C), *w = b.add(1, C),
           *dw = b.add(1, C), *rstd = b.add(1, T);
    Tensor *gate_up = b.add(T, 6 * C), *act = b.add(T, 3 * C), *dgate_up = b.add(T, 6 * C),
           *dact = b.add(T, 3 * C);
    Tensor *head_rstd = b.add(T, C / 32), *rope = b.add(T, 32), *position = b.add(1, T, DType::I32),
           *head_w = b.add(1, 32), *dhead_w = b.add(1, 32);
    b.fill();
    for (int t = 0; t < T; t++) position->as<int>()[t] = t;
    const auto report = [&](const char* name, double seconds, double floats_per_element) {
        printf("%-18s T %5d  C %5d  %9.4f ms  %6.1f GB/s\n", name, T, C, seconds * 1e3,
               floats_per_element * 4 * T * C / seconds * 1e-9);
    };
    report("rmsnorm", fastest([&] { ops.rmsnorm_forward(*y, *rstd, *x, *w, 1e-6f); }), 2);
    report("  backward", fastest([&] { ops.rmsnorm_backward(*dx, *dw, *dy, *rstd, *x, *w); }), 4);
    report("head_norm_rope", fastest([&] {
               ops.head_norm_rope_forward(*y, *head_rstd, *x, *head_w, *position, *rope, C / 32, 1e-6f);
           }),
           2);
    report("  backward", fastest([&] {
               ops.head_norm_rope_backward(*dx, *dhead_w, *dy, *head_rstd, *x, *head_w, *position, *rope,
                                           C / 32);
           }),
           3);
    report("swiglu (F = 3 C)", fastest([&] { ops.swiglu_forward(*act, *gate_up); }), 9);
    report("  backward", fastest([&] { ops.swiglu_backward(*dgate_up, *dact, *gate_up); }), 15);
}

void bench_adamw(Ops& ops, int64_t n) {
    Buffers b;
    Tensor *p = b.add(1, n), *m = b.add(1, n), *v = b.add(1, n), *g = b.add(1, n);
    b.fill();
    for (int64_t i = 0; i < n; i++) v->as<float>()[i] = 0.1f;
    const double update = fastest([&] { ops.adamw(*p, *m, *v, *g, {.lr = 1e-4f, .step = 10}); }),
                 norm = fastest([&] {
                     ops.sum_of_squares({g, 1});
                 });
    printf("adamw              %9lld parameters  %9.4f ms  %6.1f GB/s\n", (long long)n, update * 1e3,
           28.0 * double(n) / update * 1e-9);
    printf("sum_of_squares     %9lld parameters  %9.4f ms  %6.1f GB/s\n", (long long)n, norm * 1e3,
           4.0 * double(n) / norm * 1e-9);
}

// The host's work for a device's attention (attention_tiles.h), with 8 key/value heads and groups of 4 query heads.
void bench_tiles(const char* what, const std::vector<AttentionSpans>& see, int n_slots, int tile_tokens,
                 int split) {
    size_t visits = 0;
    const double seconds =
        fastest([&] { visits = build_attention_tiles(see, n_slots, tile_tokens, split).keys.size(); });
    printf("tiles              %-40s T %5zu, %6zu visits  %9.4f ms\n", what, see.size(), visits,
           seconds * 1e3);
}

// Half of the sequences commit a block, each token a block of 4.
void bench_decoding_tiles(int sequences, int context) {
    std::vector<AttentionSpans> see;
    for (int i = 0; i < sequences; i++) {
        const int own = i * (context + 8);
        for (int block = 0; block <= i % 2; block++) {
            const int begin = own + context + 4 * block;
            for (int t = 0; t < 4; t++) see.push_back({{0, own, begin}, {0, begin, begin + 4}});
        }
    }
    const std::string what = format("%d sequences behind %d slots", sequences, context);
    bench_tiles(what.c_str(), see, sequences * (context + 8), 8, 64);
}

// Sequences of `length` rows: a text and `copies` noisy copies of all of its blocks.
void bench_training_tiles(int tokens, int length, int copies) {
    std::vector<AttentionSpans> see;
    while (int(see.size()) < tokens) {
        const int text = int(see.size()), n = length / (1 + copies) / 4 * 4;
        for (int i = 0; i < n; i++) see.push_back({{0, text, 0}, {0, text + i / 4 * 4 + 4, 0}});
        for (int i = 0; i < copies * n; i++) {
            const int block = i % n / 4 * 4, own = text + n + i / 4 * 4;
            see.push_back({{0, text, own}, {0, text + block, own + 4}});
        }
    }
    const std::string what = format("sequences of %d, %d copies", length, copies);
    bench_tiles(what.c_str(), see, int(see.size()), 32, 0);
}

}  // namespace

int main(int argc, char** argv) {  // optionally the name of one group
    const auto wanted = [&](const char* group) { return argc < 2 || strcmp(argv[1], group) == 0; };
    const auto ops = make_cpu_ops();
    printf("%s, OpenBLAS %s\n", ops->device_name().c_str(), OPENBLAS ? "linked" : "absent");
#if OPENBLAS
    openblas_set_num_threads(max_threads());
#endif
    const MachineLimits machine = measure_limits(*ops);
    printf("matrix product %.0f GFLOP/s, memory read %.1f GB/s\n", machine.flops * 1e-9,
           machine.bandwidth * 1e-9);
    struct Projection {
        int N, K;
    };
    if (wanted("linear"))  // MLP and attention's output of tiny, mini, small and SDAR-1.7B
        for (const auto& [N, K] : {Projection{768, 128},
                                   {128, 384},
                                   {1536, 256},
                                   {256, 768},
                                   {4608, 768},
                                   {768, 2304},
                                   {768, 768},
                                   {12288, 2048},
                                   {2048, 6144},
                                   {2048, 2048}})
            for (const int T : {1, 4, 16, 64, 512}) bench_linear(*ops, T, N, K);
    if (wanted("streamed"))
        for (const DType dtype : {DType::F32, DType::BF16})
            for (const int T : {1, 4, 8, 16}) bench_streamed(*ops, machine, T, 2048, 2048, dtype);
    if (wanted("attention")) {
        bench_attention(*ops, 512, 4, 4, 2, 32);
        bench_attention(*ops, 512, 32, 8, 4, 32);
        bench_attention(*ops, 2048, 4, 16, 8, 128);
    }
    if (wanted("tiles")) {
        for (const int sequences : {128, 512})
            for (const int context : {512, 2048}) bench_decoding_tiles(sequences, context);
        for (const int length : {1024, 4096})
            for (const int copies : {0, 1, 3}) bench_training_tiles(16384, length, copies);
    }
    if (wanted("head")) {
        bench_head(*ops, 512, 128, 300);
        bench_head(*ops, 4, 256, 151936);
        bench_head(*ops, 64, 256, 151936);
    }
    if (wanted("rows")) {
        bench_rows(*ops, 512, 128);
        bench_rows(*ops, 512, 1024);
        bench_adamw(*ops, 1 << 20);
        bench_adamw(*ops, 1 << 24);
    }
}
