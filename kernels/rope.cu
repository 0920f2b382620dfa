// rope.cu -- see rope.h. A head belongs to a group of neighbouring lanes, of which each has four elements of its first half and the
// four that they are rotated with (16 lanes at HD 128). A group takes HEADS heads of a row, all of them on their way at once; how
// many that is changes no bit.
//
// Backward: a block takes every gridDim-th run of rows, of these always the same heads; each lane keeps the weight gradients of its
// eight elements in registers. They are added over the groups of a block in shared memory, then over the blocks, in order.
#include <algorithm>

#include "kernels/cuda_kernels.h"

namespace cuda {

constexpr int QUAD = 4, MOST_HEAD_SIZE = 2 * QUAD * WARP;
constexpr int THREADS = 256, BACKWARD_BLOCKS = 256;
// Heads of a group where there are many: a lane then has 64 bytes of a tensor on their way.
template <class T>
constexpr int MANY_HEADS = int(8 / sizeof(T));

// ---- kernels ----

// Half a head, as LANES lanes share it: a lane's four elements are neighbours, which move in one instruction, and every place is
// a constant.
template <int LANES>
struct HalfHead {
    static constexpr int lanes = LANES, size = LANES * QUAD;
    int lane;
    __device__ explicit HalfHead(int /*HD*/) : lane(int(threadIdx.x)) {}
    template <class T>
    __device__ Pack<T, QUAD> load(const T* p) const {
        return load_pack<QUAD>(p + lane * QUAD);
    }
    template <class T>
    __device__ void store(T* p, const Pack<T, QUAD>& quad) const {
        store_pack(p + lane * QUAD, quad);
    }
};
// Any size, at any address: a lane's elements are `lanes` apart; beyond the end they are zero, and not written.
template <>
struct HalfHead<0> {
    int lane, lanes, size;
    __device__ explicit HalfHead(int HD) : lane(int(threadIdx.x)), lanes(int(blockDim.x)), size(HD / 2) {}
    template <class T>
    __device__ Pack<T, QUAD> load(const T* p) const {
        Pack<T, QUAD> quad = {};
        for (int k = 0; k < QUAD; k++)
            if (lane + k * lanes < size) quad.v[k] = p[lane + k * lanes];
        return quad;
    }
    template <class T>
    __device__ void store(T* p, const Pack<T, QUAD>& quad) const {
        for (int k = 0; k < QUAD; k++)
            if (lane + k * lanes < size) p[lane + k * lanes] = quad.v[k];
    }
};

// Blocks of (lanes of a group, rows, groups of a row): grid (runs of rows, runs of groups).
template <class T, int LANES, int HEADS>
__global__ void __launch_bounds__(THREADS, 4)
    head_norm_rope_forward_kernel(DeviceRows<T> out, float* rstd, DeviceRows<const T> inp,
                                  const float* weight, const int* position, const float* rope, int64_t rows,
                                  int heads, int any_HD, float eps) {
    const HalfHead<LANES> half(any_HD);
    const int HD = 2 * half.size, first = int(blockIdx.y * blockDim.z + threadIdx.z) * HEADS;
    const int64_t t = int64_t(blockIdx.x) * blockDim.y + threadIdx.y;
    const bool there = t < rows && first < heads;  // who has nothing takes part in the sums
    Pack<T, QUAD> xa[HEADS] = {}, xb[HEADS] = {};
    Pack<float, QUAD> wa = {{1, 1, 1, 1}}, wb = wa, cosine = {}, sine = {};
    if (there) {
        const int p = position[t];
        const T* x = inp[t] + first * HD;
#pragma unroll
        for (int j = 0; j < HEADS; j++)
            xa[j] = half.load(x + j * HD), xb[j] = half.load(x + j * HD + half.size);
        if (weight) wa = half.load(weight), wb = half.load(weight + half.size);
        const float* table = rope + int64_t(p) * HD;
        cosine = half.load(table), sine = half.load(table + half.size);
    }
    // a and b become (a wa cos - b wb sin) rstd and (b wb cos + a wa sin) rstd
    float a_cos[QUAD], a_sin[QUAD], b_cos[QUAD], b_sin[QUAD];
    for (int k = 0; k < QUAD; k++) {
        a_cos[k] = wa.v[k] * cosine.v[k], a_sin[k] = wa.v[k] * sine.v[k];
        b_cos[k] = wb.v[k] * cosine.v[k], b_sin[k] = wb.v[k] * sine.v[k];
    }
    float r[HEADS];
#pragma unroll
    for (int j = 0; j < HEADS; j++) {
        r[j] = 1;
        if (!weight) continue;
        float sum = 0;
        for (int k = 0; k < QUAD; k++) {
            const float a = to_float(xa[j].v[k]), b = to_float(xb[j].v[k]);
            sum += a * a + b * b;
        }
        r[j] = rsqrtf(group_sum(sum, half.lanes) / float(HD) + eps);
    }
    if (!there) return;
    T* o = out[t] + first * HD;
#pragma unroll
    for (int j = 0; j < HEADS; j++) {
        Pack<T, QUAD> oa, ob;
        for (int k = 0; k < QUAD; k++) {
            const float a = to_float(xa[j].v[k]), b = to_float(xb[j].v[k]);
            oa.v[k] = from_float<T>((a * a_cos[k] - b * b_sin[k]) * r[j]);
            ob.v[k] = from_float<T>((b * b_cos[k] + a * a_sin[k]) * r[j]);
        }
        half.store(o + j * HD, oa), half.store(o + j * HD + half.size, ob);
        if (weight && half.lane == 0) rstd[t * heads + first + j] = r[j];
    }
}

template <class T, int LANES, int HEADS>
__global__ void __launch_bounds__(THREADS, 2)
    head_norm_rope_backward_kernel(DeviceRows<T> dinp, float* dweight_part, DeviceRows<const T> dout,
                                   const float* rstd, DeviceRows<const T> inp, const float* weight,
                                   const int* position, const float* rope, int64_t rows, int heads,
                                   int any_HD) {
    DYNAMIC_SHARED(float, dweight);  // (groups of the block, HD)
    const HalfHead<LANES> half(any_HD);
    const int HD = 2 * half.size, first = int(blockIdx.y * blockDim.z + threadIdx.z) * HEADS;
    const float inverse_HD = 1.0f / float(HD);
    Pack<float, QUAD> wa = {}, wb = {}, dwa = {}, dwb = {};
    if (weight) wa = half.load(weight), wb = half.load(weight + half.size);
    // The block's threads go round together: who has no row or no head takes part in the sums.
    for (int64_t run = int64_t(blockIdx.x) * blockDim.y; run < rows; run += int64_t(gridDim.x) * blockDim.y) {
        const int64_t t = run + threadIdx.y;
        const bool there = t < rows && first < heads;
        Pack<T, QUAD> da[HEADS] = {}, db[HEADS] = {}, xa[HEADS] = {}, xb[HEADS] = {};
        Pack<float, QUAD> cosine = {}, sine = {};
        float r[HEADS] = {};
        if (there) {
            const int p = position[t];
            const T *d = dout[t] + first * HD, *x = inp[t] + first * HD;
#pragma unroll
            for (int j = 0; j < HEADS; j++)
                da[j] = half.load(d + j * HD), db[j] = half.load(d + j * HD + half.size);
            if (weight) {
#pragma unroll
                for (int j = 0; j < HEADS; j++) {
                    xa[j] = half.load(x + j * HD), xb[j] = half.load(x + j * HD + half.size);
                    r[j] = rstd[t * heads + first + j];
                }
            }
            const float* table = rope + int64_t(p) * HD;
            cosine = half.load(table), sine = half.load(table + half.size);
        }
#pragma unroll
        for (int j = 0; j < HEADS; j++) {
            float a[QUAD], b[QUAD];  // the gradient before the rotation
            for (int k = 0; k < QUAD; k++) {
                const float rotated_a = to_float(da[j].v[k]), rotated_b = to_float(db[j].v[k]);
                a[k] = rotated_a * cosine.v[k] + rotated_b * sine.v[k];
                b[k] = rotated_b * cosine.v[k] - rotated_a * sine.v[k];
            }
            if (weight) {
                float dot = 0;
                for (int k = 0; k < QUAD; k++) {
                    const float x = to_float(xa[j].v[k]) * r[j], y = to_float(xb[j].v[k]) * r[j];
                    const float ax = a[k] * x, by = b[k] * y;
                    dwa.v[k] += ax, dwb.v[k] += by;
                    dot += ax * wa.v[k] + by * wb.v[k];
                }
                const float scale = group_sum(dot, half.lanes) * inverse_HD * r[j];
                for (int k = 0; k < QUAD; k++) {
                    a[k] = r[j] * (a[k] * wa.v[k] - to_float(xa[j].v[k]) * scale);
                    b[k] = r[j] * (b[k] * wb.v[k] - to_float(xb[j].v[k]) * scale);
                }
            }
            Pack<T, QUAD> oa, ob;
            for (int k = 0; k < QUAD; k++) oa.v[k] = from_float<T>(a[k]), ob.v[k] = from_float<T>(b[k]);
            if (!there) continue;
            T* dx = dinp[t] + (first + j) * HD;
            half.store(dx, oa), half.store(dx + half.size, ob);
        }
    }
    if (!weight) return;
    float* mine = dweight + int(threadIdx.z * blockDim.y + threadIdx.y) * HD;
    half.store(mine, dwa), half.store(mine + half.size, dwb);
    __syncthreads();  // every group's sums are written before they are added up
    const int thread = int(threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z));
    const int groups = int(blockDim.y * blockDim.z);
    for (int i = thread; i < HD; i += half.lanes * groups) {
        float sum = 0;
        for (int g = 0; g < groups; g++) sum += dweight[g * HD + i];
        dweight_part[(int64_t(blockIdx.y) * gridDim.x + blockIdx.x) * HD + i] = sum;
    }
}

// ---- launchers ----

static int checked_head_size(Tensor inp, int heads, Tensor weight, Tensor rstd) {
    const int HD = int(inp.cols) / heads;
    CHECK(HD * heads == inp.cols && HD % 2 == 0 && HD <= MOST_HEAD_SIZE, "%d heads in %lld columns", heads,
          (long long)inp.cols);
    CHECK(!weight || (weight.size() == HD && rstd.contiguous() && rstd.size() == inp.rows * heads),
          "q/k norm of %d heads of %d", heads, HD);
    return HD;
}

// Of kernels the one for this head size, where its lanes can move four neighbours at once. choose(lanes, heads): lanes of a group
// and heads that a group may have, as types; 0 lanes: any size.
template <class T, class F>
static void with_lanes(std::initializer_list<Tensor> matrices, Tensor weight, Tensor rope, int heads, int HD,
                       F choose) {
    const bool aligned =
        std::all_of(matrices.begin(), matrices.end(), packs) && packs(rope) && (!weight || packs(weight));
    const auto with_heads = [&](auto lanes) {
        if (heads % MANY_HEADS<T> == 0)
            choose(lanes, std::integral_constant<int, MANY_HEADS<T>>());
        else
            choose(lanes, std::integral_constant<int, 1>());
    };
    if (aligned && HD == 128) return with_heads(std::integral_constant<int, 16>());
    if (aligned && HD == 64) return with_heads(std::integral_constant<int, 8>());
    choose(std::integral_constant<int, 0>(), std::integral_constant<int, 1>());
}

struct HeadGrid {
    dim3 grid, block;
};
static HeadGrid grid_of(int64_t rows, int heads, int HD, int heads_of_a_group) {
    constexpr int WARPS = THREADS / WARP;
    int lanes = 1;
    while (lanes * QUAD < HD / 2) lanes *= 2;
    const int groups = ceil_div(heads, heads_of_a_group), columns = ceil_div(groups, WARPS);
    const int z = ceil_div(groups, columns), y = WARP / lanes * (WARPS / z);
    return {dim3(unsigned(ceil_div(rows, y)), unsigned(columns)),
            dim3(unsigned(lanes), unsigned(y), unsigned(z))};
}

void head_norm_rope_forward(const Context& ctx, Tensor out, Tensor rstd, Tensor inp, Tensor weight,
                            Tensor position, Tensor rope, int heads, float eps) {
    constexpr int64_t MANY = 1 << 19;  // elements: fewer are spread over more multiprocessors
    const int HD = checked_head_size(inp, heads, weight, rstd);
    if (inp.rows == 0) return;
    with_type(inp.dtype, "inp", [&](auto x) {
        using T = decltype(x);
        with_lanes<T>({out, inp}, weight, rope, heads, HD, [&](auto lanes, auto most) {
            const bool many = inp.size() >= MANY;
            const HeadGrid g = grid_of(inp.rows, heads, HD, many ? most : 1);
            launch(many ? head_norm_rope_forward_kernel<T, lanes, most>
                        : head_norm_rope_forward_kernel<T, lanes, 1>,
                   g.grid, g.block, 0, ctx.stream, device_rows<T>(out), weight ? rstd.as<float>() : nullptr,
                   device_rows<const T>(inp), optional<const float>(weight),
                   static_cast<const int*>(position.as<int>()), static_cast<const float*>(rope.as<float>()),
                   inp.rows, heads, HD, eps);
        });
    });
}

void head_norm_rope_backward(const Context& ctx, Tensor dinp, Tensor dweight, Tensor dout, Tensor rstd,
                             Tensor inp, Tensor weight, Tensor position, Tensor rope, int heads) {
    const int HD = checked_head_size(inp, heads, weight, rstd);
    if (inp.rows == 0) return;
    with_type(inp.dtype, "inp", [&](auto x) {
        using T = decltype(x);
        with_lanes<T>({dinp, dout, inp}, weight, rope, heads, HD, [&](auto lanes, auto most) {
            HeadGrid g = grid_of(inp.rows, heads, HD, most);
            g.grid.x = std::min(g.grid.x, std::max(1u, BACKWARD_BLOCKS / g.grid.y));
            const int blocks = int(g.grid.x * g.grid.y);
            float* part = weight ? ctx.workspace.take<float>(size_t(blocks) * size_t(HD)) : nullptr;
            launch(head_norm_rope_backward_kernel<T, lanes, most>, g.grid, g.block,
                   size_t(g.block.y * g.block.z) * size_t(HD) * sizeof(float), ctx.stream,
                   device_rows<T>(dinp), part, device_rows<const T>(dout),
                   static_cast<const float*>(weight ? rstd.as<float>() : nullptr), device_rows<const T>(inp),
                   optional<const float>(weight), static_cast<const int*>(position.as<int>()),
                   static_cast<const float*>(rope.as<float>()), inp.rows, heads, HD);
            if (weight) add_parts(ctx, dweight, part, blocks, HD);
        });
    });
}

}  // namespace cuda
