// swiglu.cu -- see swiglu.h. One thread per pack of up to 16 bytes of a row's F activations.
#include "kernels/cuda_kernels.h"
#include "kernels/device/ptx.h"

namespace cuda {

// ---- kernels ----

template <class T, int PACK>
__global__ void swiglu_forward_kernel(DeviceRows<T> out, DeviceRows<const T> gate_up, int64_t rows, int F) {
    griddepcontrol_launch_dependents();
    griddepcontrol_wait();
    const int64_t packs = F / PACK, i = int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
    if (i >= rows * packs) return;
    const int64_t t = i / packs, f = i % packs * PACK;
    const auto gate = load_pack<PACK>(gate_up[t] + f), up = load_pack<PACK>(gate_up[t] + F + f);
    Pack<T, PACK> y;
    for (int k = 0; k < PACK; k++) {
        const float g = to_float(gate.v[k]);
        y.v[k] = from_float<T>(g / (1.0f + expf(-g)) * to_float(up.v[k]));
    }
    store_pack(out[t] + f, y);
}

template <class T, int PACK>
__global__ void swiglu_backward_kernel(DeviceRows<T> dgate_up, DeviceRows<const T> dout,
                                       DeviceRows<const T> gate_up, int64_t rows, int F) {
    const int64_t packs = F / PACK, i = int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
    if (i >= rows * packs) return;
    const int64_t t = i / packs, f = i % packs * PACK;
    const auto gate = load_pack<PACK>(gate_up[t] + f), up = load_pack<PACK>(gate_up[t] + F + f),
               d = load_pack<PACK>(dout[t] + f);
    Pack<T, PACK> dgate, dup;
    for (int k = 0; k < PACK; k++) {
        const float g = to_float(gate.v[k]), u = to_float(up.v[k]), dy = to_float(d.v[k]);
        const float s = 1.0f / (1.0f + expf(-g));
        dgate.v[k] = from_float<T>(dy * u * (s + g * s * (1.0f - s)));
        dup.v[k] = from_float<T>(dy * g * s);
    }
    store_pack(dgate_up[t] + f, dgate);
    store_pack(dgate_up[t] + F + f, dup);
}

// ---- launchers ----

void swiglu_forward(const Context& ctx, Tensor out, Tensor gate_up) {
    if (out.rows == 0) return;
    with_type(out.dtype, "out", [&](auto x) {
        using T = decltype(x);
        constexpr int PACK = FULL_PACK<T>;
        const int F = int(out.cols);
        const bool packed = packs(out) && packs(gate_up) && F % PACK == 0;
        launch_next(ctx, packed ? swiglu_forward_kernel<T, PACK> : swiglu_forward_kernel<T, 1>,
                    ceil_div(out.rows * (F / (packed ? PACK : 1)), 256), 256, 0, device_rows<T>(out),
                    device_rows<const T>(gate_up), out.rows, F);
    });
}

void swiglu_backward(const Context& ctx, Tensor dgate_up, Tensor dout, Tensor gate_up) {
    if (dout.rows == 0) return;
    with_type(dout.dtype, "dout", [&](auto x) {
        using T = decltype(x);
        constexpr int PACK = FULL_PACK<T>;
        const int F = int(dout.cols);
        const bool packed = packs(dout) && packs(gate_up) && packs(dgate_up) && F % PACK == 0;
        launch(packed ? swiglu_backward_kernel<T, PACK> : swiglu_backward_kernel<T, 1>,
               ceil_div(dout.rows * (F / (packed ? PACK : 1)), 256), 256, 0, ctx.stream,
               device_rows<T>(dgate_up), device_rows<const T>(dout), device_rows<const T>(gate_up), dout.rows,
               F);
    });
}

}  // namespace cuda
