// bench_kernels.cpp -- how fast the CPU kernels are: time, GFLOP/s or GB/s, and the ratio to OpenBLAS where
// it has a peer.
//
// Every figure is the fastest of up to RUNS calls: on a machine that others use too, the fastest says most about
// the kernel. "cold" is the same with the caches overwritten before every call, as weights are found during
// generation with a large model.
#include <algorithm>
#include <cstdio>
#include <cstring>
#include <ctime>
#include <functional>

#include "kernels/cpu.h"
#include "kernels/parallel.h"
#include "utils/arena.h"
#include "utils/philox.h"
#if OPENBLAS
#include <cblas.h>
#endif

namespace {

constexpr int RUNS = 20;

struct Buffers {
    Arena arena{"bench", host_memory()};
    std::vector<std::unique_ptr<Tensor>> tensors;
    Tensor* add(int64_t rows, int64_t cols, DType dtype = DType::F32) {
        tensors.push_back(std::make_unique<Tensor>());
        arena.add(tensors.back().get(), "t", rows, cols, dtype);
        return tensors.back().get();
    }
    void fill() {
        arena.allocate();
        Rng rng(1, Stream::Noise);
        for (auto& t : tensors)
            for (int64_t i = 0; i < t->size(); i++) {
                const float x = rng.uniform() - 0.5f;
                if (t->dtype == DType::F32) t->as<float>()[i] = x;
                if (t->dtype == DType::BF16) t->as<Bf16>()[i] = to_bf16(x);
            }
    }
};

void overwrite_caches() {
    static std::vector<char> block(size_t(96) << 20);
    for (size_t i = 0; i < block.size(); i += 64) block[i]++;
}

// With one thread, processor time: what the call would take on a machine of its own.
double now() {
    timespec t;
    clock_gettime(max_threads() == 1 ? CLOCK_THREAD_CPUTIME_ID : CLOCK_MONOTONIC, &t);
    return double(t.tv_sec) + 1e-9 * double(t.tv_nsec);
}

double fastest(const std::function<void()>& call, bool cold = false) {
    double best = 1e9, total = 0;
    call();
    for (int i = 0; i < RUNS && total < 0.5; i++) {
        if (cold) overwrite_caches();
        const double begin = now();
        call();
        const double seconds = now() - begin;
        best = std::min(best, seconds);
        total += seconds;
    }
    return best;
}

void bench_linear(Ops& ops, int T, int N, int K) {
    Buffers b;
    Tensor *x = b.add(T, K), *w = b.add(N, K), *half = b.add(N, K, DType::BF16), *out = b.add(T, N),
           *dx = b.add(T, K), *dw = b.add(N, K);
    b.fill();
    const double flops = 2.0 * T * N * K;
    const auto blas = [&](int kind) {
#if OPENBLAS
        const float *xp = x->as<float>(), *wp = w->as<float>(), *op = out->as<float>();
        return fastest([&] {
            if (kind == 0)
                cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, T, N, K, 1, xp, K, wp, K, 0,
                            out->as<float>(), N);
            if (kind == 1)
                cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, T, K, N, 1, op, N, wp, K, 0,
                            dx->as<float>(), K);
            if (kind == 2)
                cblas_sgemm(CblasRowMajor, CblasTrans, CblasNoTrans, N, K, T, 1, op, N, xp, K, 1,
                            dw->as<float>(), K);
        });
#else
        (void)kind;
        return 0.0;
#endif
    };
    const auto report = [&](const char* name, double seconds, double peer, double cold, size_t weight_bytes) {
        printf("%-9s T %5d  N %6d  K %5d  %9.4f ms  %7.1f GFLOP/s", name, T, N, K, seconds * 1e3,
               flops / seconds * 1e-9);
        if (peer > 0) printf("  %5.2f x OpenBLAS", peer / seconds);
        if (cold > 0) printf("  cold %9.4f ms  %6.1f GB/s", cold * 1e3, double(weight_bytes) / cold * 1e-9);
        printf("\n");
        fflush(stdout);
    };
    const auto forward = [&] { ops.linear_forward(*out, *x, *w); };
    report("forward", fastest(forward), blas(0), T <= 16 ? fastest(forward, true) : 0, w->bytes());
    if (T <= 16) {
        const auto forward_bf16 = [&] { ops.linear_forward(*out, *x, *half); };
        report("  bf16", fastest(forward_bf16), 0, fastest(forward_bf16, true), half->bytes());
    } else {
        report("  dinp", fastest([&] { ops.linear_backward(*dx, {}, {}, *out, *x, *w); }), blas(1), 0, 0);
        report("  dweight", fastest([&] { ops.linear_backward({}, *dw, {}, *out, *x, *w); }), blas(2), 0, 0);
    }
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
        report(name, fastest([&] { ops.head_sample(records(out.data(), N), records(rows.data(), N), *x, *w, 0, V); }), 1);
    };
    sample("  greedy", {});
    sample("  T 1", {.temperature = 1});
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
                 norm = fastest([&] { ops.sum_of_squares(*g); });
    printf("adamw              %9lld parameters  %9.4f ms  %6.1f GB/s\n", (long long)n, update * 1e3,
           28.0 * double(n) / update * 1e-9);
    printf("sum_of_squares     %9lld parameters  %9.4f ms  %6.1f GB/s\n", (long long)n, norm * 1e3,
           4.0 * double(n) / norm * 1e-9);
}

}  // namespace

int main(int argc, char** argv) {  // optionally the name of one group
    const auto wanted = [&](const char* group) { return argc < 2 || strcmp(argv[1], group) == 0; };
    const auto ops = make_cpu_ops();
    printf("%s, OpenBLAS %s\n", ops->device_name().c_str(), OPENBLAS ? "linked" : "absent");
#if OPENBLAS
    openblas_set_num_threads(max_threads());
#endif
    struct Projection {
        int N, K;
    };
    for (const auto& [N, K] : {Projection{768, 128}, Projection{128, 384}, Projection{1536, 256},
                               Projection{768, 768}, Projection{2048, 2048}})
        for (int T : {1, 4, 16, 64, 512})
            if (wanted("linear")) bench_linear(*ops, T, N, K);
    if (wanted("attention")) {
        bench_attention(*ops, 512, 4, 4, 2, 32);
        bench_attention(*ops, 512, 32, 8, 4, 32);
        bench_attention(*ops, 2048, 4, 16, 8, 128);
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
