// cuda_ops.cu -- Ops on a CUDA device: every method is its stem's launcher, on one stream.
#include <algorithm>
#include <map>
#include <numeric>

#include "kernels/cuda_indices.h"
#include "kernels/cuda_kernels.h"
#include "kernels/cuda_ops.h"
#include "kernels/device/graph.h"
#include "kernels/device/transfers.h"
#include "utils/log.h"

namespace {

// Blocks of attention that a multiprocessor should have, at least: where query tiles are too few, their keys are split.
constexpr int BLOCKS_PER_PROCESSOR = 2;
// Pieces of the work on keys and values that a multiprocessor should have in the backward pass, if all were as long as the longest.
constexpr int PAIRS_PER_PROCESSOR = 2;
// Key tiles per piece of a decoding tile: a block has two on their way at the same time, and no piece is of more than 4096 keys.
constexpr int LEAST_SPLIT = 2, MOST_SPLIT = 64;
constexpr int MOST_GRAPHS = 64;  // that are kept

class CudaOps : public Ops {
  public:
    CudaOps(int device, size_t workspace_bytes)
        : stream_(open(device)), transfers_(stream_), indices_(transfers_), workspace_(nullptr, 0) {
        cudaDeviceProp properties;
        CUDA_CHECK(cudaGetDeviceProperties(&properties, device));
        name_ = properties.name;
        processors_ = properties.multiProcessorCount;
        overlap_ = device_overlaps_kernels();
        block_ = allocate(workspace_bytes);
        workspace_ = cuda::Workspace(block_, workspace_bytes);
        matmul_state_ = cuda::create_matmul_state();
    }
    ~CudaOps() override {
        cudaStreamSynchronize(stream_);
        recordings_.clear();
        cuda::destroy_matmul_state(matmul_state_);
        cudaFree(block_);
        cudaStreamDestroy(stream_);
    }

    // ---- memory
    void* allocate(size_t bytes) override {
        void* block = nullptr;
        bytes = std::max<size_t>(bytes, 1);  // an address of its own, even for nothing
        const cudaError_t error = cudaMalloc(&block, bytes);
        if (error != cudaSuccess) {
            cudaGetLastError();  // the next launch is not to report it again
            size_t free_bytes = 0, total = 0;
            cudaMemGetInfo(&free_bytes, &total);
            fail(Exit::NoMemory,
                 "%s has %.1f MiB of memory free, %.1f MiB are wanted (%s); use a smaller model or token "
                 "budget",
                 name_.c_str(), double(free_bytes) / (1 << 20), double(bytes) / (1 << 20),
                 cudaGetErrorString(error));
        }
        CUDA_CHECK(cudaMemsetAsync(block, 0, bytes, stream_));
        return block;
    }
    void release(void* block, size_t bytes) override {
        recordings_.clear();  // one of them may use it
        indices_.forget(block, bytes);
        cudaFree(block);
    }
    size_t available() const override {
        size_t free_bytes = 0, total = 0;
        CUDA_CHECK(cudaMemGetInfo(&free_bytes, &total));
        return free_bytes - std::min(free_bytes, CUDA_RESERVE);
    }
    std::string device_name() const override { return name_; }
    void upload(Tensor device, const void* host) override {
        CHECK(device.contiguous(), "upload into a strided tensor");
        if (device.size() == 0) return;
        transfers_.upload(device.data, host, device.bytes());
        if (device.dtype == DType::I32)
            indices_.remember(device, host);
        else
            indices_.forget(device.data, device.bytes());
    }
    void download(void* host, Tensor device) override {
        CHECK(device.contiguous(), "download of a strided tensor");
        if (device.size() == 0) return;
        transfers_.download(host, device.data, device.bytes());
    }
    void zero(Tensor t) override {
        if (t.size() == 0) return;
        const size_t size = size_of(t.dtype), width = size_t(t.cols) * size;
        if (t.dtype == DType::I32) indices_.forget(t.data, size_t(t.rows) * size_t(t.stride) * size);
        if (t.contiguous())
            CUDA_CHECK(cudaMemsetAsync(t.data, 0, t.bytes(), stream_));
        else
            CUDA_CHECK(cudaMemset2DAsync(t.data, size_t(t.stride) * size, 0, width, size_t(t.rows), stream_));
    }
    void copy(Tensor out, Tensor inp) override {
        CHECK(out.rows == inp.rows, "copy of %lld rows to %lld", (long long)inp.rows, (long long)out.rows);
        cuda::copy_rows(context(), out, nullptr, inp, nullptr, inp.rows);
    }

    // ---- rows
    void embedding_forward(Tensor out, Tensor token, Tensor weight) override {
        cuda::copy_rows(context(), out, nullptr, weight, token.as<int>(), out.rows);
    }
    void embedding_backward(Tensor dweight, Tensor dout, Tensor token) override {
        if (dout.rows) cuda::add_rows(context(), dweight, dout, indices_.row_groups(token));
    }
    void gather_rows(Tensor out, Tensor inp, Tensor row) override {
        cuda::copy_rows(context(), out, nullptr, inp, row.as<int>(), out.rows);
    }
    void gather_rows_backward(Tensor dinp, Tensor dout, Tensor row) override {
        zero(dinp);
        if (dout.rows) cuda::add_rows(context(), dinp, dout, indices_.row_groups(row));
    }
    void scatter_rows(Tensor out, Tensor inp, Tensor slot) override {
        cuda::copy_rows(context(), out, slot.as<int>(), inp, nullptr, inp.rows);
    }
    void guide_rows(Tensor hidden, Tensor unconditional, Tensor row, Tensor scale) override {
        cuda::guide_rows(context(), hidden, unconditional, row.as<int>(), scale.as<float>());
    }

    // ---- normalisation
    void rmsnorm_forward(Tensor out, Tensor rstd, Tensor inp, Tensor weight, float eps) override {
        cuda::rmsnorm_forward(context(), out, rstd, inp, weight, eps);
    }
    void rmsnorm_backward(Tensor dinp, Tensor dweight, Tensor dout, Tensor rstd, Tensor inp,
                          Tensor weight) override {
        cuda::rmsnorm_backward(context(), dinp, dweight, dout, rstd, inp, weight);
    }

    // ---- matrix products
    void linear_forward(Tensor out, Tensor inp, Tensor weight, Tensor bias, Tensor residual) override {
        cuda::linear_forward(context(), out, inp, weight, bias, residual);
    }
    void linear_backward(Tensor dinp, Tensor dweight, Tensor dbias, Tensor dout, Tensor inp,
                         Tensor weight) override {
        cuda::linear_backward(context(), dinp, dweight, dbias, dout, inp, weight);
    }

    // ---- q/k norm + RoPE
    void head_norm_rope_forward(Tensor out, Tensor rstd, Tensor inp, Tensor weight, Tensor position,
                                Tensor rope, int heads, float eps) override {
        cuda::head_norm_rope_forward(context(), out, rstd, inp, weight, position, rope, heads, eps);
    }
    void qkv_forward(const QkvForward& layer) override { cuda::qkv_forward(context(), layer); }
    void head_norm_rope_backward(Tensor dinp, Tensor dweight, Tensor dout, Tensor rstd, Tensor inp,
                                 Tensor weight, Tensor position, Tensor rope, int heads) override {
        cuda::head_norm_rope_backward(context(), dinp, dweight, dout, rstd, inp, weight, position, rope,
                                      heads);
    }

    // ---- span attention
    void attention_forward(Tensor out, Tensor lse, Tensor q, Tensor k, Tensor v, Tensor see, int heads,
                           int kv_heads) override {
        if (q.rows == 0) return;
        const cuda::Attention a{q, k, v, see, heads, kv_heads};
        if (!cuda::attention_on_tensor_cores(a, {q, k, v}, {out}))
            return cuda::attention_forward_rows(context(), out, lse, a);
        if (recorded_attention_ &&
            (recorded_attention_->empty() || recorded_attention_->back().see.data != see.data))
            recorded_attention_->push_back(a);
        const cuda::DeviceTiles tiles = forward_tiles(a);
        (tiles.warps == cuda::WGMMA_WARPS ? cuda::attention_forward_wgmma : cuda::attention_forward_tiles)(
            context(), out, lse, a, tiles);
    }
    void attention_backward(Tensor dq, Tensor dk, Tensor dv, Tensor scratch, Tensor dout, Tensor out,
                            Tensor lse, Tensor q, Tensor k, Tensor v, Tensor see, int heads,
                            int kv_heads) override {
        if (q.rows == 0) {
            zero(dk);
            zero(dv);
            return;
        }
        const cuda::Attention a{q, k, v, see, heads, kv_heads};
        cuda::attention_row_sums(context(), scratch, dout, out, heads);
        if (!cuda::attention_on_tensor_cores(a, {q, k, v, dout}, {dq, dk, dv}))
            return cuda::attention_backward_rows(context(), dq, dk, dv, scratch, dout, lse, a);
        const int n_slots = int(k.rows);
        if (!backward_on_wgmma(a))
            return cuda::attention_backward_tiles(
                context(), dq, dk, dv, scratch, dout, lse, a,
                indices_.attention_tiles(see, n_slots, cuda::tile_tokens(a, 4), 4, 0));
        const int warps = cuda::WGMMA_WARPS, wanted = PAIRS_PER_PROCESSOR * processors_ / kv_heads;
        workspace_.reset();
        const size_t most_parts = workspace_.left() / (cuda::pair_part_bytes(a) * size_t(kv_heads));
        cuda::attention_backward_wgmma(
            context(), dq, dk, dv, scratch, dout, lse, a,
            indices_.attention_tiles(see, n_slots, cuda::tile_tokens(a, warps), warps, 0),
            indices_.key_pairs(see, n_slots, cuda::tile_tokens(a, 4), wanted, int(most_parts)));
    }

    // ---- MLP
    void swiglu_forward(Tensor out, Tensor gate_up) override {
        cuda::swiglu_forward(context(), out, gate_up);
    }
    void swiglu_backward(Tensor dgate_up, Tensor dout, Tensor gate_up) override {
        cuda::swiglu_backward(context(), dgate_up, dout, gate_up);
    }

    // ---- heads
    void head_logprob(Tensor logprob, Tensor lse, Tensor entropy, Tensor hidden, Tensor weight,
                      Tensor target) override {
        cuda::head_logprob(context(), logprob, lse, entropy, hidden, weight, target);
    }
    void head_backward(Tensor dhidden, Tensor dweight, Tensor dlogprob, Tensor lse, Tensor hidden,
                       Tensor weight, Tensor target) override {
        cuda::head_backward(context(), dhidden, dweight, dlogprob, lse, hidden, weight, target);
    }
    void head_sample(Tensor sampled, Tensor rows, Tensor hidden, Tensor weight, int mask_id,
                     int n_ids) override {
        CHECK(rows.rows == hidden.rows && sampled.rows == rows.rows,
              "%lld rows to sample, %lld hidden states", (long long)rows.rows, (long long)hidden.rows);
        cuda::head_sample(context(), records_of<Sampled>(sampled), records_of<SampleRow>(rows), hidden,
                          weight, mask_id, n_ids);
    }
    void value_head_forward(Tensor value, Tensor hidden, Tensor weight) override {
        cuda::value_head_forward(context(), value, hidden, weight);
    }
    void value_head_backward(Tensor dhidden, Tensor dweight, Tensor dvalue, Tensor hidden,
                             Tensor weight) override {
        cuda::value_head_backward(context(), dhidden, dweight, dvalue, hidden, weight);
    }

    // ---- losses
    void policy_loss_backward(Tensor dlogprob, Tensor logprob, Tensor pairs, double clip_low,
                              double clip_high, double kl_beta) override {
        cuda::policy_loss_backward(context(), dlogprob, logprob, pairs, clip_low, clip_high, kl_beta);
    }
    void value_loss_backward(Tensor dvalue, Tensor value, Tensor pairs, double value_clip) override {
        cuda::value_loss_backward(context(), dvalue, value, pairs, value_clip);
    }

    // ---- generation
    void reveal_blocks(const RevealRun& run) override { cuda::reveal_blocks(context(), run); }
    void repeat_while(Tensor running, std::span<const int> key, const std::function<void()>& step) override {
        Recording* r = recording_of(running, key, step);
        if (!r) return;
        // Attention's tiles follow the spans: they are made here, since a recording uploads nothing.
        std::vector<cuda::DeviceTiles> tiles;
        for (const cuda::Attention& a : r->attention) tiles.push_back(forward_tiles(a));
        if (!r->recorded || r->tiles != tiles) {
            graphs_work_ = record(*r, running, step);
            if (!graphs_work_) {
                log_info(
                    "%s repeats no recordings (that takes CUDA 12.4 and a driver as new, and no "
                    "LOOPS_ON_HOST): every step is "
                    "started by the host",
                    name_.c_str());
                return Ops::repeat_while(running, key, step);
            }
            r->recorded = true;
            r->tiles = std::move(tiles);
        }
        r->graph.launch(stream_);
    }

    // ---- optimizer
    void adamw(Tensor param, Tensor m, Tensor v, Tensor grad, const AdamW& options, Tensor master) override {
        cuda::adamw(context(), param, m, v, grad, options, master);
    }
    double sum_of_squares(std::span<const Tensor> tensors) override {
        if (tensors.empty()) return 0;
        const cuda::Context ctx = context();
        std::vector<double> host(tensors.size());
        double* sums = ctx.workspace.take<double>(host.size());
        for (size_t i = 0; i < tensors.size(); i++) cuda::sum_of_squares(ctx, sums + i, tensors[i]);
        transfers_.download(host.data(), sums, host.size() * sizeof(double));
        return std::accumulate(host.begin(), host.end(), 0.0);
    }

  private:
    // Whether the average tile has more than half of its rows.
    static bool fill_half(const cuda::Attention& a, const cuda::DeviceTiles& tiles) {
        return 2 * a.q.rows * a.group() > int64_t(tiles.n_query_tiles) * 16 * tiles.warps;
    }
    // Whether the query rows of a key/value head fill one of the tiles.
    static bool backward_on_wgmma(const cuda::Attention& a) {
        return cuda::attention_on_wgmma(a) && a.q.rows * a.group() >= 16 * cuda::WGMMA_WARPS;
    }
    // Where the device has wgmma, tiles of WGMMA_WARPS, if more than half of their rows are filled and there are enough for
    // half of the multiprocessors. Otherwise tiles of 64 rows, 4 warps; where the average one has no more than 32 or 16 (decoding),
    // of that many. Their keys are split into as many pieces as give every multiprocessor work, fewer where the partial results
    // would not fit in half of the workspace.
    cuda::DeviceTiles forward_tiles(const cuda::Attention& a) {
        const int n_slots = int(a.k.rows), wanted = BLOCKS_PER_PROCESSOR * processors_;
        int warps = 4, split = 0;
        cuda::DeviceTiles tiles =
            indices_.attention_tiles(a.see, n_slots, cuda::tile_tokens(a, warps), warps, 0);
        if (cuda::attention_on_wgmma(a) && fill_half(a, tiles)) {
            const cuda::DeviceTiles larger = indices_.attention_tiles(
                a.see, n_slots, cuda::tile_tokens(a, cuda::WGMMA_WARPS), cuda::WGMMA_WARPS, 0);
            if (fill_half(a, larger) && 2 * larger.n_query_tiles * a.kv_heads >= processors_) return larger;
        }
        while (warps > 1 && a.q.rows * a.group() <= int64_t(tiles.n_query_tiles) * 16 * (warps / 2))
            warps /= 2;
        if (warps < 4) {
            split = MOST_SPLIT;
        } else if (tiles.n_query_tiles * a.kv_heads < wanted) {
            split = std::max(tiles.n_visits, LEAST_SPLIT);  // enough blocks otherwise
        }
        if (split == 0) return tiles;
        workspace_.reset();
        const size_t part_bytes =
            size_t(a.kv_heads) * 16 * size_t(warps) * size_t(a.HD() + 1) * sizeof(float);
        const int even =
            int(int64_t(tiles.n_visits) * a.kv_heads / wanted);  // visits of a block if all had the same
        for (split = std::clamp(even, LEAST_SPLIT, split);; split *= 2) {
            tiles = indices_.attention_tiles(a.see, n_slots, cuda::tile_tokens(a, warps), warps, split);
            if (size_t(tiles.parts) * part_bytes <= workspace_.left() / 2) return tiles;
        }
    }

    // A loop that is run again for every batch of the same sizes.
    struct Recording {
        LoopGraph graph;
        bool recorded = false;
        std::vector<cuda::Attention> attention;  // of a step, one for every array of spans
        std::vector<cuda::DeviceTiles> tiles;    // that its launches were recorded with
    };
    // The recording for these sizes. Where there is none yet, a step is run without one: it finds the algorithms of its matrix
    // products and leaves the list of its attentions. None: nothing is left to do.
    Recording* recording_of(Tensor running, std::span<const int> key, const std::function<void()>& step) {
        if (!graphs_work_) {
            Ops::repeat_while(running, key, step);
            return nullptr;
        }
        const std::pair name(running.data, std::vector<int>(key.begin(), key.end()));
        const auto at = recordings_.find(name);
        if (at != recordings_.end()) return &at->second;
        int on = 0;
        download(&on, running);
        if (!on) return nullptr;
        if (recordings_.size() >= MOST_GRAPHS) recordings_.clear();
        Recording& r = recordings_[name];
        recorded_attention_ = &r.attention;
        try {
            step();
        } catch (...) {
            recorded_attention_ = nullptr;
            recordings_.erase(name);  // its list of attentions may not be whole
            throw;
        }
        recorded_attention_ = nullptr;
        return &r;
    }

    // Where recordings are repeated, but none of overlapping kernels, these run one after another from now on.
    bool record(Recording& r, Tensor running, const std::function<void()>& step) {
        const auto try_to = [&] { return r.graph.record(stream_, running.as<int>(), step); };
        if (!overlap_) return try_to();
        try {
            if (try_to()) return true;
        } catch (const Error&) {
            cudaGetLastError();  // the next launch is not to report it again
        }
        overlap_ = false;
        bool recorded;
        try {
            recorded = try_to();
        } catch (...) {
            overlap_ = true;  // it was not for them
            throw;
        }
        if (recorded)
            log_info("%s repeats no recordings of overlapping kernels: they run one after another",
                     name_.c_str());
        overlap_ = !recorded;  // likewise
        return recorded;
    }

    static cudaStream_t open(int device) {
        cudaStream_t stream;
        CUDA_CHECK(cudaSetDevice(device));
        CUDA_CHECK(cudaStreamCreate(&stream));
        return stream;
    }
    // Of one operation: all of the workspace is free.
    cuda::Context context() {
        workspace_.reset();
        return {stream_, workspace_, matmul_state_, overlap_};
    }

    cudaStream_t stream_;
    Transfers transfers_;
    cuda::IndexMirrors indices_;
    std::string name_;
    void* block_ = nullptr;
    cuda::Workspace workspace_;
    cuda::MatmulState* matmul_state_ = nullptr;
    int processors_ = 1;
    bool graphs_work_ = true;
    bool overlap_ = false;  // kernels may begin before those in front of them have ended
    std::map<std::pair<void*, std::vector<int>>, Recording> recordings_;  // by flag and key
    std::vector<cuda::Attention>* recorded_attention_ = nullptr;
};

}  // namespace

bool built_with_cuda() { return true; }

int cuda_device_count() {
    int n = 0;
    if (cudaGetDeviceCount(&n) == cudaSuccess) return n;
    cudaGetLastError();  // no driver is no error
    return 0;
}

std::unique_ptr<Ops> make_cuda_ops(int device, size_t workspace_bytes) {
    return std::make_unique<CudaOps>(device, workspace_bytes);
}
