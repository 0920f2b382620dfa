// graph.h -- launches recorded once and repeated by the device itself, as long as a flag in its memory is not 0.
//
// CUDA: a graph with a loop node (CUDA 12.4 and a driver as new). Emulation: the same rules, by a list of launches: arguments
// keep the values they were recorded with, and what would need the host stops the program.
#pragma once
#include <cstdlib>
#include <functional>

#include "kernels/device/device.h"

#ifdef __CUDACC__
#if CUDART_VERSION >= 12040
template <int = 0>  // a kernel in a header
__global__ void set_loop_condition(cudaGraphConditionalHandle loop, const int* on) {
    cudaGraphSetConditional(loop, *on != 0);
}
#endif

class LoopGraph {
  public:
    LoopGraph() = default;
    ~LoopGraph() { reset(); }
    LoopGraph(const LoopGraph&) = delete;
    LoopGraph& operator=(const LoopGraph&) = delete;

    // Records what `step` starts on the stream; starts nothing. false: runtime or driver know no such graphs, or
    // LOOPS_ON_HOST is set in the environment (compute-sanitizer 2025.3 fails in such a loop).
    bool record(cudaStream_t stream, const int* on, const std::function<void()>& step) {
        reset();
        if (getenv("LOOPS_ON_HOST")) return false;
        const bool done = build(stream, on, step);
        if (!done) {
            reset();
            cudaGetLastError();  // the next launch is not to report it again
        }
        return done;
    }
    // Repeats the recording while *on is not 0, from none to any number of times.
    void launch(cudaStream_t stream) { CUDA_CHECK(cudaGraphLaunch(executable_, stream)); }

  private:
#if CUDART_VERSION >= 12040
    bool build(cudaStream_t stream, const int* on, const std::function<void()>& step) {
        cudaGraphConditionalHandle loop;
        if (cudaGraphCreate(&graph_, 0) != cudaSuccess ||
            cudaGraphConditionalHandleCreate(&loop, graph_) != cudaSuccess)
            return false;
        void* arguments[] = {&loop, &on};
        cudaKernelNodeParams check = {};
        check.func = reinterpret_cast<void*>(set_loop_condition<0>);
        check.gridDim = check.blockDim = dim3(1);
        check.kernelParams = arguments;
        cudaGraphNodeParams while_on = {};
        while_on.type = cudaGraphNodeTypeConditional;
        while_on.conditional.handle = loop;
        while_on.conditional.type = cudaGraphCondTypeWhile;
        while_on.conditional.size = 1;
        cudaGraphNode_t first, node;
        if (cudaGraphAddKernelNode(&first, graph_, nullptr, 0, &check) != cudaSuccess) return false;
#if CUDART_VERSION >= 13000
        if (cudaGraphAddNode(&node, graph_, &first, nullptr, 1, &while_on) != cudaSuccess) return false;
#else
        if (cudaGraphAddNode(&node, graph_, &first, 1, &while_on) != cudaSuccess) return false;
#endif
        if (cudaStreamBeginCaptureToGraph(stream, while_on.conditional.phGraph_out[0], nullptr, nullptr, 0,
                                          cudaStreamCaptureModeThreadLocal) != cudaSuccess)
            return false;
        cudaGraph_t body;
        try {
            step();
            ::launch(set_loop_condition<0>, 1, 1, 0, stream, loop, on);
        } catch (...) {
            cudaStreamEndCapture(stream, &body);
            throw;
        }
        return cudaStreamEndCapture(stream, &body) == cudaSuccess &&
               cudaGraphInstantiate(&executable_, graph_, 0) == cudaSuccess;
    }
#else
    bool build(cudaStream_t, const int*, const std::function<void()>&) { return false; }
#endif
    void reset() {
        if (executable_) cudaGraphExecDestroy(executable_);
        if (graph_) cudaGraphDestroy(graph_);
        executable_ = nullptr;
        graph_ = nullptr;
    }
    cudaGraph_t graph_ = nullptr;
    cudaGraphExec_t executable_ = nullptr;
};

#else  // the emulation

class LoopGraph {
  public:
    bool record(cudaStream_t, const int* on, const std::function<void()>& step) {
        launches_.clear();
        if (getenv("LOOPS_ON_HOST")) return false;
        on_ = on;
        cpu_device::recording() = &launches_;
        try {
            step();
        } catch (...) {
            cpu_device::recording() = nullptr;
            throw;
        }
        cpu_device::recording() = nullptr;
        return true;
    }
    void launch(cudaStream_t) {
        cpu_device::finish_pending();
        while (*on_)
            for (const auto& launch : launches_) launch();
    }

  private:
    const int* on_ = nullptr;
    std::vector<std::function<void()> > launches_;
};
#endif
