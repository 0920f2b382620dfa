// rows.cu -- moving rows and adding them up: embedding, gather, scatter, casts, and their backward.
//
// copy_rows: one thread per pack of up to 16 bytes of the output.
//
// add_rows: rows with one destination are one group; long groups are cut every GROUP_ROWS, so that the mask token does not
// become one block's work. A thread adds up a pack of columns over a group's rows in order, loading IN_FLIGHT of them at
// once; the pieces of cut groups are joined by a second kernel (part_sums.cuh). No atomics: the same bits every time.
#include <algorithm>
#include <numeric>

#include "kernels/cuda_kernels.h"
#include "kernels/device/ptx.h"
#include "kernels/part_sums.cuh"

namespace cuda {

constexpr int GROUP_ROWS = 32, IN_FLIGHT = 8;

// ---- kernels ----

template <class Out, class In, int PACK>
__global__ void copy_rows_kernel(DeviceRows<Out> out, const int* out_row, DeviceRows<const In> inp,
                                 const int* inp_row, int64_t rows, int C) {
    griddepcontrol_launch_dependents();
    griddepcontrol_wait();
    const int64_t packs = C / PACK, i = int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
    if (i >= rows * packs) return;
    const int64_t t = i / packs, c = i % packs * PACK;
    const Pack<In, PACK> from = load_pack<PACK>(inp[inp_row ? inp_row[t] : t] + c);
    Pack<Out, PACK> to;
    for (int k = 0; k < PACK; k++) to.v[k] = from_float<Out>(to_float(from.v[k]));
    store_pack(out[out_row ? out_row[t] : t] + c, to);
}

template <class T>
__global__ void guide_rows_kernel(DeviceRows<T> inout, DeviceRows<const T> other, const int* row,
                                  const float* scale, int64_t rows, int C) {
    const int64_t i = int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
    if (i >= rows * C) return;
    const int64_t m = i / C, c = i % C;
    T* x = inout[row[m]] + c;
    *x = from_float<T>(to_float(*x) + scale[m] * (to_float(*x) - to_float(other[m][c])));
}

template <class D, class S, int PACK>
__global__ void add_groups_kernel(DeviceRows<D> dst, float* part, DeviceRows<const S> src, const int* order,
                                  const RowGroups::Group* groups, int C) {
    const RowGroups::Group g = groups[blockIdx.x];
    const int c = int(blockIdx.y * blockDim.x + threadIdx.x) * PACK;
    if (c >= C) return;
    Pack<D, PACK> to = {};
    if (g.part < 0) to = load_pack<PACK>(dst[g.destination] + c);  // on its way together with the rows
    Pack<float, PACK> sum = {};
    for (int i = g.begin; i < g.end; i += IN_FLIGHT) {
        int at[IN_FLIGHT];
        Pack<S, PACK> row[IN_FLIGHT] = {};
#pragma unroll
        for (int j = 0; j < IN_FLIGHT; j++) at[j] = i + j < g.end ? order[i + j] : -1;
#pragma unroll
        for (int j = 0; j < IN_FLIGHT; j++)
            if (at[j] >= 0) row[j] = load_pack<PACK>(src[at[j]] + c);
#pragma unroll
        for (int j = 0; j < IN_FLIGHT; j++)
            for (int k = 0; k < PACK; k++) sum.v[k] += to_float(row[j].v[k]);
    }
    if (g.part >= 0) return store_pack(part + int64_t(g.part) * C + c, sum);
    for (int k = 0; k < PACK; k++) to.v[k] = from_float<D>(to_float(to.v[k]) + sum.v[k]);
    store_pack(dst[g.destination] + c, to);
}

template <class D>
__global__ void join_groups_kernel(DeviceRows<D> dst, const float* part, const RowGroups::Join* joins,
                                   int C) {
    const RowGroups::Join j = joins[blockIdx.x];
    const int c = int(blockIdx.y * blockDim.x + threadIdx.x);
    const float sum = sum_of_parts(part + int64_t(j.begin) * C, j.end - j.begin, C, c);
    if (threadIdx.y == 0 && c < C) {
        D& to = dst[j.destination][c];
        to = from_float<D>(to_float(to) + sum);
    }
}

// ---- launchers ----

template <class Out, class In>
static void launch_copy(const Context& ctx, Tensor out, const int* out_row, Tensor inp, const int* inp_row,
                        int64_t rows) {
    const int C = int(inp.cols);
    constexpr int PACK = std::min(FULL_PACK<Out>, FULL_PACK<In>);
    const bool packed = packs(out) && packs(inp);
    launch_next(ctx, packed ? copy_rows_kernel<Out, In, PACK> : copy_rows_kernel<Out, In, 1>,
                ceil_div(rows * (C / (packed ? PACK : 1)), 256), 256, 0, device_rows<Out>(out), out_row,
                device_rows<const In>(inp), inp_row, rows, C);
}

void copy_rows(const Context& ctx, Tensor out, const int* out_row, Tensor inp, const int* inp_row,
               int64_t rows) {
    CHECK(out.cols == inp.cols, "rows of %lld copied to rows of %lld", (long long)inp.cols,
          (long long)out.cols);
    if (rows == 0 || inp.cols == 0) return;
    with_type(out.dtype, "out", [&](auto o) {
        with_type(inp.dtype, "inp", [&](auto x) {
            launch_copy<decltype(o), decltype(x)>(ctx, out, out_row, inp, inp_row, rows);
        });
    });
}

void guide_rows(const Context& ctx, Tensor inout, Tensor other, const int* row, const float* scale) {
    CHECK(inout.cols == other.cols && inout.dtype == other.dtype, "rows of %lld guided by rows of %lld",
          (long long)inout.cols, (long long)other.cols);
    if (other.rows == 0) return;
    with_type(inout.dtype, "inout", [&](auto t) {
        using T = decltype(t);
        launch(guide_rows_kernel<T>, ceil_div(other.size(), 256), 256, 0, ctx.stream, device_rows<T>(inout),
               device_rows<const T>(other), row, scale, other.rows, int(other.cols));
    });
}

RowGroups group_rows(const int* destination, int n) {
    RowGroups r;
    r.order.resize(size_t(n));
    std::iota(r.order.begin(), r.order.end(), 0);
    std::stable_sort(r.order.begin(), r.order.end(),
                     [&](int a, int b) { return destination[a] < destination[b]; });
    for (int begin = 0, end; begin < n; begin = end) {
        const int d = destination[r.order[size_t(begin)]];
        for (end = begin; end < n && destination[r.order[size_t(end)]] == d;) end++;
        if (end - begin <= GROUP_ROWS) {
            r.groups.push_back({d, begin, end, -1});
            continue;
        }
        const int first = r.parts;
        for (int b = begin; b < end; b += GROUP_ROWS)
            r.groups.push_back({d, b, std::min(b + GROUP_ROWS, end), r.parts++});
        r.joins.push_back({d, first, r.parts});
    }
    // The long ones begin first, that none of them ends alone.
    std::stable_partition(r.groups.begin(), r.groups.end(),
                          [](const RowGroups::Group& g) { return g.part >= 0; });
    return r;
}

void add_rows(const Context& ctx, Tensor dst, Tensor src, const DeviceRowGroups& g) {
    CHECK(dst.cols == src.cols, "rows of %lld added to rows of %lld", (long long)src.cols,
          (long long)dst.cols);
    const int C = int(src.cols);
    if (g.n_groups == 0) return;
    float* part = ctx.workspace.take<float>(size_t(g.parts) * size_t(C));
    with_type(dst.dtype, "dst", [&](auto d) {
        using D = decltype(d);
        with_type(src.dtype, "src", [&](auto s) {
            using S = decltype(s);
            constexpr int PACK = std::min(FULL_PACK<D>, FULL_PACK<S>);
            const bool packed = packs(dst) && packs(src);
            const int n_packs = C / (packed ? PACK : 1), blocks = ceil_div(n_packs, 256);
            launch(packed ? add_groups_kernel<D, S, PACK> : add_groups_kernel<D, S, 1>,
                   dim3(unsigned(g.n_groups), unsigned(blocks)), threads_for(ceil_div(n_packs, blocks), 256),
                   0, ctx.stream, device_rows<D>(dst), part, device_rows<const S>(src), g.order, g.groups, C);
        });
        if (g.n_joins)
            launch(join_groups_kernel<D>, dim3(unsigned(g.n_joins), unsigned(ceil_div(C, WARP))),
                   dim3(WARP, PART_LANES), 0, ctx.stream, device_rows<D>(dst),
                   static_cast<const float*>(part), g.joins, C);
    });
}

}  // namespace cuda
