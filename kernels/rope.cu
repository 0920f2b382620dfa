// rope.cu -- see rope.h.
//
// Forward: a head belongs to a group of neighbouring lanes, each of which has four elements of the head's first half and the
// four that they are rotated with (16 lanes at HD 128). A group takes HEADS heads of a row, all of them under way at once;
// how many that is changes no bit.
//
// Backward: a block takes every gridDim-th run of rows, and of these always the same heads; each lane keeps the weight
// gradients of its eight elements in registers. They are added over the groups of a block in shared memory, then over the
// blocks, in order.
#include <algorithm>

#include "kernels/cuda_kernels.h"
#include "kernels/device/ptx.h"

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

// Some heads of every row, and what becomes of them. Values are only copied.
template <class T>
struct Heads {
    DeviceRows<T> out;
    float* rstd;
    DeviceRows<const T> inp;
    const float* weight;
    const int* slot;  // the row of out, -1: not kept; absent: the same
    int count;
    bool rotated;
};
template <class T>
struct Forward {
    Heads<T> part[3];  // q, k, v
    const int* position;
    const float* rope;
    int64_t rows;
    int HD;
    float eps;
};

// Blocks of (lanes of a group, rows, groups of a row): grid (runs of rows, runs of groups).
template <class T, int LANES, int HEADS>
__global__ void __launch_bounds__(THREADS, 3) heads_forward_kernel(Forward<T> arg) {
    griddepcontrol_launch_dependents();
    griddepcontrol_wait();
    const HalfHead<LANES> half(arg.HD);
    const int HD = 2 * half.size;
    const int64_t t = int64_t(blockIdx.x) * blockDim.y + threadIdx.y;
    int first = int(blockIdx.y * blockDim.z + threadIdx.z) * HEADS;
    int which = 0;
    for (; which < 2 && first >= arg.part[which].count; which++) first -= arg.part[which].count;
    const Heads<T>& part = arg.part[which];
    const bool normed = part.weight != nullptr;
    bool there = t < arg.rows && first < part.count;  // who has nothing takes part in the sums
    Pack<T, QUAD> xa[HEADS] = {}, xb[HEADS] = {};
    Pack<float, QUAD> wa = {{1, 1, 1, 1}}, wb = wa, cosine = {}, sine = {};
    int64_t to = t;
    if (there) {
        const int p = arg.position[t];
        if (part.slot) to = part.slot[t];
        const T* x = part.inp[t] + first * HD;
#pragma unroll
        for (int j = 0; j < HEADS; j++)
            xa[j] = half.load(x + j * HD), xb[j] = half.load(x + j * HD + half.size);
        if (normed) wa = half.load(part.weight), wb = half.load(part.weight + half.size);
        const float* table = arg.rope + int64_t(p) * HD;
        cosine = half.load(table), sine = half.load(table + half.size);
    }
    const bool kept = to >= 0;
    if (there && !part.rotated) {
        T* o = part.out[to] + first * HD;
#pragma unroll
        for (int j = 0; j < HEADS; j++)
            if (kept) half.store(o + j * HD, xa[j]), half.store(o + j * HD + half.size, xb[j]);
        there = false;
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
        float sum = 0;
        for (int k = 0; k < QUAD; k++) {
            const float a = to_float(xa[j].v[k]), b = to_float(xb[j].v[k]);
            sum += a * a + b * b;
        }
        sum = group_sum(sum, half.lanes);  // of a warp's groups some may have a norm and others none
        r[j] = normed ? rsqrtf(sum / float(HD) + arg.eps) : 1.0f;
    }
    if (!there) return;
    T* o = part.out[to] + first * HD;
    float* rstd = normed ? part.rstd + t * part.count + first : nullptr;
#pragma unroll
    for (int j = 0; j < HEADS; j++) {
        Pack<T, QUAD> oa, ob;
        for (int k = 0; k < QUAD; k++) {
            const float a = to_float(xa[j].v[k]), b = to_float(xb[j].v[k]);
            oa.v[k] = from_float<T>((a * a_cos[k] - b * b_sin[k]) * r[j]);
            ob.v[k] = from_float<T>((b * b_cos[k] + a * a_sin[k]) * r[j]);
        }
        if (kept) half.store(o + j * HD, oa), half.store(o + j * HD + half.size, ob);
        if (normed && half.lane == 0) rstd[j] = r[j];
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
// and heads that a group may have, where every part of a row has a multiple of it, as types; 0 lanes: any size.
template <class T, class F>
static void with_lanes(std::initializer_list<Tensor> matrices, std::initializer_list<Tensor> weights, int HD,
                       std::initializer_list<int> heads, F choose) {
    const bool aligned = std::all_of(matrices.begin(), matrices.end(), packs) &&
                         std::all_of(weights.begin(), weights.end(), packs);
    const bool grouped =
        std::all_of(heads.begin(), heads.end(), [](int n) { return n % MANY_HEADS<T> == 0; });
    const auto with_heads = [&](auto lanes) {
        if (grouped)
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

template <class T>
static Heads<T> heads_of(Tensor out, Tensor rstd, Tensor inp, Tensor weight, int heads) {
    return {.out = device_rows<T>(out),
            .rstd = weight ? rstd.as<float>() : nullptr,
            .inp = device_rows<const T>(inp),
            .weight = optional<const float>(weight),
            .slot = nullptr,
            .count = heads,
            .rotated = true};
}

template <class T>
static void launch_forward(const Context& ctx, const Forward<T>& arg, std::initializer_list<Tensor> matrices,
                           std::initializer_list<Tensor> weights) {
    constexpr int64_t MANY = 1 << 19;  // elements: fewer are spread over more multiprocessors
    const auto& [q, k, v] = arg.part;
    const int heads = q.count + k.count + v.count;
    with_lanes<T>(matrices, weights, arg.HD, {q.count, k.count}, [&](auto lanes, auto most) {
        const bool many = arg.rows * heads * arg.HD >= MANY;
        const HeadGrid g = grid_of(arg.rows, heads, arg.HD, many ? most : 1);
        launch_next(ctx, many ? heads_forward_kernel<T, lanes, most> : heads_forward_kernel<T, lanes, 1>,
                    g.grid, g.block, 0, arg);
    });
}

void head_norm_rope_forward(const Context& ctx, Tensor out, Tensor rstd, Tensor inp, Tensor weight,
                            Tensor position, Tensor rope, int heads, float eps) {
    const int HD = checked_head_size(inp, heads, weight, rstd);
    if (inp.rows == 0) return;
    with_type(inp.dtype, "inp", [&](auto x) {
        using T = decltype(x);
        launch_forward<T>(ctx,
                          {.part = {heads_of<T>(out, rstd, inp, weight, heads), {}, {}},
                           .position = position.as<int>(),
                           .rope = rope.as<float>(),
                           .rows = inp.rows,
                           .HD = HD,
                           .eps = eps},
                          {out, inp}, {weight, rope});
    });
}

void qkv_forward(const Context& ctx, const QkvForward& a) {
    const Tensor q = a.raw_q(), k = a.raw_k(), v = a.raw_v();
    const int HD = checked_head_size(k, a.kv_heads, a.k_norm, a.k_rstd);
    CHECK((a.heads + 2 * a.kv_heads) * HD == a.qkv.cols && a.k.cols == k.cols && (!a.v || a.v.cols == k.cols),
          "%d and twice %d heads of %d in %lld columns", a.heads, a.kv_heads, HD, (long long)a.qkv.cols);
    if (a.q) checked_head_size(q, a.heads, a.q_norm, a.q_rstd);
    if (a.qkv.rows == 0) return;
    with_type(a.qkv.dtype, "qkv", [&](auto x) {
        using T = decltype(x);
        Forward<T> arg = {.part = {},
                          .position = a.position.as<int>(),
                          .rope = a.rope.as<float>(),
                          .rows = a.qkv.rows,
                          .HD = HD,
                          .eps = a.eps};
        if (a.q) arg.part[0] = heads_of<T>(a.q, a.q_rstd, q, a.q_norm, a.heads);
        arg.part[1] = heads_of<T>(a.k, a.k_rstd, k, a.k_norm, a.kv_heads);
        if (a.v) arg.part[2] = heads_of<T>(a.v, {}, v, {}, a.kv_heads);
        arg.part[2].rotated = false;
        arg.part[1].slot = arg.part[2].slot = optional<const int>(a.slot);
        launch_forward<T>(ctx, arg, {a.q, a.k, a.v, q, k, v}, {a.q_norm, a.k_norm, a.rope});
    });
}

void head_norm_rope_backward(const Context& ctx, Tensor dinp, Tensor dweight, Tensor dout, Tensor rstd,
                             Tensor inp, Tensor weight, Tensor position, Tensor rope, int heads) {
    const int HD = checked_head_size(inp, heads, weight, rstd);
    if (inp.rows == 0) return;
    with_type(inp.dtype, "inp", [&](auto x) {
        using T = decltype(x);
        with_lanes<T>({dinp, dout, inp}, {weight, rope}, HD, {heads}, [&](auto lanes, auto most) {
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
