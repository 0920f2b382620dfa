// simd_packed.h -- part of simd_kernels.h: products with a weight in panels (packed_weight.h).
//
// One register tile of M rows by V vectors: 1 x 8, 2 x 4, up to 8 x 2. So eight or more sums are under way at once (a fused
// multiply-add takes 4 cycles, and two begin in each), and a panel, which may come from the third-level cache, is read
// once for up to eight rows.

namespace {

constexpr int PACKED_ROWS = LANES == 16 ? 8 : 6;  // of a tile, by two vectors
constexpr int packed_vectors(int rows) {
    return rows == 1 ? 8 : rows <= (LANES == 16 ? 4 : 3) ? 4 : 2;  // as the registers allow
}

// Floats that are prefetched ahead, 2 KiB: the hardware does so within a page of 4 KiB only.
constexpr int PACKED_AHEAD = 512;

// Columns [n, n + V * LANES) of M rows, from row m0 on; of the last vector the first `last` lanes.
template <int M, int V, bool BF16, class Width>
SIMD_INLINE void packed_tile(const Simd::Packed& p, int m0, int n, Width last) {
    const int64_t words = BF16 ? p.K / 2 : p.K, panel = words * PACKED_COLUMNS;
    const float* b = static_cast<const float*>(p.panels) + n / PACKED_COLUMNS * panel + n % PACKED_COLUMNS;
    const float* inp = p.inp + m0 * p.inp_row;
    Vec sum[M][V];
    for (int m = 0; m < M; m++)
        for (int j = 0; j < V; j++) sum[m][j] = Vec{};
    for (int64_t i = 0; i < words; i++) {
        Vec word[V];
        for (int j = 0; j < V; j++) {
            const float* at = b + j * LANES / PACKED_COLUMNS * panel + j * LANES % PACKED_COLUMNS;
            word[j] = in_register(load(at));
            if (j * LANES % 16 == 0) __builtin_prefetch(at + PACKED_AHEAD, 0, 3);  // once per cache line
        }
        const auto add = [&](int64_t k, auto column) {
            for (int m = 0; m < M; m++) {
                const Vec x = all(inp[m * p.inp_row + k]);
                for (int j = 0; j < V; j++) sum[m][j] = fma(x, column(word[j]), sum[m][j]);
            }
        };
        if constexpr (BF16) {
            add(2 * i, [](Vec w) { return even_halves(w); });
            add(2 * i + 1, [](Vec w) { return odd_halves(w); });
        } else {
            add(i, [](Vec w) { return w; });
        }
        b += PACKED_COLUMNS;
    }
    const auto finish = [&](int m, int j, auto width) {
        const int column = n + j * LANES;
        Vec x = sum[m][j];
        if (p.bias) x += load(p.bias + column, width);
        if (p.residual) x += load(p.residual + (m0 + m) * p.residual_row + column, width);
        store(p.out + (m0 + m) * p.out_row + column, x, width);
    };
    for (int m = 0; m < M; m++) {
        for (int j = 0; j < V - 1; j++) finish(m, j, Full());
        finish(m, V - 1, last);
    }
}

// Columns [n, end) of M rows, V vectors at a time, what is left of them half as many.
template <int M, int V, bool BF16>
void packed_columns(const Simd::Packed& p, int m, int n, int end) {
    for (; n + V * LANES <= end; n += V * LANES) packed_tile<M, V, BF16>(p, m, n, Full());
    if constexpr (V > 1)
        packed_columns<M, V / 2, BF16>(p, m, n, end);
    else if (n < end)
        packed_tile<M, 1, BF16>(p, m, n, end - n);
}

typedef void (*PackedColumns)(const Simd::Packed&, int, int, int);
template <int M, bool BF16>
constexpr PackedColumns PACKED = packed_columns<M, packed_vectors(M), BF16>;
template <bool BF16>
constexpr PackedColumns PACKED_BY_ROWS[] = {
    PACKED<1, BF16>, PACKED<2, BF16>, PACKED<3, BF16>, PACKED<4, BF16>, PACKED<5, BF16>, PACKED<6, BF16>,
#if SIMD_LANES == 16
    PACKED<7, BF16>, PACKED<8, BF16>,
#endif
};

void packed(const Simd::Packed& p) {
    const PackedColumns* columns = p.element == 2 ? PACKED_BY_ROWS<true> : PACKED_BY_ROWS<false>;
    const int groups = (p.M + PACKED_ROWS - 1) / PACKED_ROWS;  // of rows, equally many where that goes
    const int step = groups == 1 ? p.N : PACKED_COLUMNS;  // several go over a panel while it is in the cache
    for (int n = 0; n < p.N; n += step)
        for (int i = 0; i < groups; i++) {
            const int m = p.M * i / groups, rows = p.M * (i + 1) / groups - m;
            columns[rows - 1](p, m, n, p.N - n < step ? p.N : n + step);
        }
}

}  // namespace
