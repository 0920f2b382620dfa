// cuda_kernels.h -- the launchers of every CUDA kernel, as CudaOps calls them. One .cu per stem; formulas and shapes are
// those of the stem's header (rmsnorm.h, ...) and of ops.h.
//
// Activations and matrices are both F32 or both BF16; all arithmetic is fp32. Vectors (norm weights, biases, the value
// head) and statistics (rstd, lse, logprob, values) are F32, parameter gradients F32 or BF16. Launchers check types and
// shapes and throw. They are asynchronous: the kernel may still run when they return.
#pragma once
#include <tuple>
#include <vector>

#include "kernels/attention_tiles.h"
#include "kernels/device/device.h"
#include "kernels/ops.h"

namespace cuda {

// Scratch for one operation: a bump allocator over one block of device memory, empty again at the next
// operation (which the stream runs after this one).
class Workspace {
  public:
    Workspace(void* block, size_t bytes) : block_(static_cast<char*>(block)), bytes_(bytes) {}
    void reset() { used_ = 0; }
    size_t left() const { return bytes_ - used_; }
    template <class T>
    T* take(size_t n) {
        const size_t bytes = (n * sizeof(T) + 255) / 256 * 256;  // as cuBLASLt wants its workspace
        if (bytes > left())
            fail(Exit::NoMemory, "an operation needs %zu MiB of scratch, the CUDA workspace has %zu MiB left",
                 bytes >> 20, left() >> 20);
        T* out = reinterpret_cast<T*>(block_ + used_);
        mark_scratch(out, n * sizeof(T), left() - n * sizeof(T));
        used_ += bytes;
        return out;
    }

    // What is taken during a Mark's life is free again after it (in the order of the stream).
    class Mark {
      public:
        explicit Mark(Workspace& workspace) : workspace_(workspace), used_(workspace.used_) {}
        ~Mark() { workspace_.used_ = used_; }
        Mark(const Mark&) = delete;
        Mark& operator=(const Mark&) = delete;

      private:
        Workspace& workspace_;
        size_t used_;
    };

  private:
    char* block_;
    size_t bytes_, used_ = 0;
};

// The state of the matrix-product library: cuBLASLt's handle and the algorithm found for every shape so far
// (matmul_cublaslt.cu); nothing where our own kernels multiply (cublaslt_absent.cu). Which of the two a program has
// is the Makefile's choice.
struct MatmulState;
MatmulState* create_matmul_state();
void destroy_matmul_state(MatmulState*);

struct Context {
    cudaStream_t stream;
    Workspace& workspace;
    MatmulState* matmul_state;
    bool overlap = false;  // launch_next lets kernels overlap
};
// Launches a kernel that may begin before those in front of it have ended (launch_overlapped), if kernels overlap.
template <class... P, class... A>
void launch_next(const Context& ctx, void (*kernel)(P...), dim3 grid, dim3 block, size_t smem, A... args) {
    if (ctx.overlap)
        launch_overlapped(kernel, grid, block, smem, ctx.stream, args...);
    else
        launch(kernel, grid, block, smem, ctx.stream, args...);
}

// ---- matrix products ----
// out (M, N) = a (M, K) b (K, N) [+ out] [+ bias (N)] [+ residual (M, N), which may be out itself]
// a may be stored as its transpose (K, M), b as (N, K). a and b are of one type, out is F32 or of that type,
// bias is F32, residual of out's type.
struct Matmul {
    Tensor out, a, b;
    bool a_transposed = false, b_transposed = false;
    bool accumulate = false;
    Tensor bias = {}, residual = {};
};
void matmul(const Context&, const Matmul&);          // by matmul_narrow where it can, else by the library
void matmul_library(const Context&, const Matmul&);  // by cuBLASLt, in the emulation by matmul_tiles
void matmul_tiles(const Context&, const Matmul&);    // by our own kernel: any shape and alignment, not fast
// By our own kernel, as fast as b can be read: up to NARROW_ROWS rows of bf16 against a weight (N, K), with bias and residual
// but not accumulated, rows of a and b a multiple of 16 bytes long and so aligned. A row of out has the same bits however
// many there are.
constexpr int NARROW_ROWS = 8;
bool matmul_is_narrow(const Matmul&);
void matmul_narrow(const Context&, const Matmul&);
int checked_inner_size(const Matmul&);  // K, after checking shapes and types
// linear.h
void linear_forward(const Context&, Tensor out, Tensor inp, Tensor weight, Tensor bias, Tensor residual);
void linear_backward(const Context&, Tensor dinp, Tensor dweight, Tensor dbias, Tensor dout, Tensor inp,
                     Tensor weight);

// ---- rows (rows.h, embedding.h) ----
// out[out_row[t]] = inp[inp_row[t]] for `rows` rows; an absent index is the row itself. Casts between F32 and BF16.
void copy_rows(const Context&, Tensor out, const int* out_row, Tensor inp, const int* inp_row, int64_t rows);
// inout[row[m]] += scale[m] * (inout[row[m]] - other[m])
void guide_rows(const Context&, Tensor inout, Tensor other, const int* row, const float* scale);
// Rows that share a destination, for adding them up without atomics: made on the host from the indices.
struct RowGroups {
    struct Group {
        int destination, begin, end;  // order[begin..end) are the rows, ascending
        int part;                     // its place among the partial sums; -1: the destination's only group
    };
    struct Join {
        int destination, begin, end;  // partial sums [begin, end) belong to it
    };
    std::vector<int> order;
    std::vector<Group> groups;
    std::vector<Join> joins;
    int parts = 0;
};
RowGroups group_rows(const int* destination, int n);
struct DeviceRowGroups {
    const int* order;
    const RowGroups::Group* groups;
    const RowGroups::Join* joins;
    int n_groups, n_joins, parts;
};
// dst[destination] += sum of src's rows, each destination in the order of rows
void add_rows(const Context&, Tensor dst, Tensor src, const DeviceRowGroups& groups);

// ---- sums over rows, for parameter gradients ----
// dst (n) += the sum over rows of src (rows, n), each row times row_weight where given
void add_column_sums(const Context&, Tensor dst, Tensor src, const float* row_weight);
// dst (n) += the sum of `parts` rows of n fp32, in order
void add_parts(const Context&, Tensor dst, const float* part, int parts, int n);

// ---- rmsnorm.h, rope.h, swiglu.h ----
void rmsnorm_forward(const Context&, Tensor out, Tensor rstd, Tensor inp, Tensor weight, float eps);
void rmsnorm_backward(const Context&, Tensor dinp, Tensor dweight, Tensor dout, Tensor rstd, Tensor inp,
                      Tensor weight);
void head_norm_rope_forward(const Context&, Tensor out, Tensor rstd, Tensor inp, Tensor weight,
                            Tensor position, Tensor rope, int heads, float eps);
void qkv_forward(const Context&, const QkvForward& layer);
void head_norm_rope_backward(const Context&, Tensor dinp, Tensor dweight, Tensor dout, Tensor rstd,
                             Tensor inp, Tensor weight, Tensor position, Tensor rope, int heads);
void swiglu_forward(const Context&, Tensor out, Tensor gate_up);
void swiglu_backward(const Context&, Tensor dgate_up, Tensor dout, Tensor gate_up);

// ---- value_head.h, adamw.h, sum_of_squares.h ----
void value_head_forward(const Context&, Tensor value, Tensor hidden, Tensor weight);
void value_head_backward(const Context&, Tensor dhidden, Tensor dweight, Tensor dvalue, Tensor hidden,
                         Tensor weight);
void adamw(const Context&, Tensor param, Tensor m, Tensor v, Tensor grad, const AdamW& options,
           Tensor master);
// t is contiguous; result: one double on the device
void sum_of_squares(const Context&, double* result, Tensor t);

// ---- lm_head.h, sampling.h ----
void head_logprob(const Context&, Tensor logprob, Tensor lse, Tensor entropy, Tensor hidden, Tensor weight,
                  Tensor target);
void head_backward(const Context&, Tensor dhidden, Tensor dweight, Tensor dlogprob, Tensor lse, Tensor hidden,
                   Tensor weight, Tensor target);
// out and rows are on the device
void head_sample(const Context&, Sampled* out, const SampleRow* rows, Tensor hidden, Tensor weight,
                 int mask_id, int n_ids);

// ---- attention.h ----
// The tiles of attention_tiles.h, on the device. Where they are split the counts are rounded up and the pieces and joins beyond
// are empty (query tile -1), so that launches are the same while a context grows.
struct DeviceTiles {
    const AttentionTiles::QueryTile* query_tiles;
    const AttentionTiles::Visit *keys, *queries;
    const int* first_query;
    const AttentionTiles::Piece* pieces;
    const AttentionTiles::Join* joins;
    int n_query_tiles, n_key_tiles, n_pieces, n_joins, parts;
    int n_visits;  // of key tiles by query tiles, rounded up; no launch depends on it
    int warps;     // of 16 rows each in a query tile: 8 (wgmma), 4, 2 or 1
    // Whether launches with them are the same.
    bool operator==(const DeviceTiles& other) const {
        const auto launch = [](const DeviceTiles& t) {
            return std::tuple(t.query_tiles, t.keys, t.queries, t.first_query, t.pieces, t.joins,
                              t.n_query_tiles, t.n_key_tiles, t.n_pieces, t.n_joins, t.parts, t.warps);
        };
        return launch(*this) == launch(other);
    }
};
// The pairs of attention_tiles.h, on the device.
struct DeviceKeyPairs {
    const KeyPairs::Visit* visits;
    const KeyPairs::Piece* pieces;
    const KeyPairs::Join* joins;
    int n_pieces, n_joins, parts;
};
// What a launcher is given: views on the device, and their sizes.
struct Attention {
    Tensor q, k, v, see;
    int heads, kv_heads;
    int HD() const { return int(q.cols) / heads; }
    int group() const { return heads / kv_heads; }  // query heads that share a key/value head
};
// Whether the tensor-core kernels can compute this: bf16, a head size they are compiled for, rows that can be read 16 bytes
// at a time and written in pairs.
bool attention_on_tensor_cores(const Attention&, std::initializer_list<Tensor> read,
                               std::initializer_list<Tensor> written);
// Tokens of a query tile of 16 * warps rows, each row one head of a group.
inline int tile_tokens(const Attention& a, int warps) { return 16 * warps / a.group(); }
void attention_forward_tiles(const Context&, Tensor out, Tensor lse, const Attention&, const DeviceTiles&);
// The same on Hopper's wgmma, over tiles of WGMMA_WARPS that are not split. attention_on_wgmma: whether the device and the
// head size allow it, for what attention_on_tensor_cores accepts.
constexpr int WGMMA_WARPS = 8;
bool attention_on_wgmma(const Attention&);
void attention_forward_wgmma(const Context&, Tensor out, Tensor lse, const Attention&, const DeviceTiles&);
void attention_backward_tiles(const Context&, Tensor dq, Tensor dk, Tensor dv, Tensor row_sums, Tensor dout,
                              Tensor lse, const Attention&, const DeviceTiles&);
// The same on Hopper's wgmma, where `attention_on_wgmma`: dq over tiles of WGMMA_WARPS that are not split, dk and dv over
// pairs of key tiles and their query tiles of 4 warps. Partial results take pair_part_bytes in the workspace.
void attention_backward_wgmma(const Context&, Tensor dq, Tensor dk, Tensor dv, Tensor row_sums, Tensor dout,
                              Tensor lse, const Attention&, const DeviceTiles&, const DeviceKeyPairs&);
size_t pair_part_bytes(const Attention&);
// Any type, head size and alignment, a warp per row or slot: fp32 mode, and the odd shape.
void attention_forward_rows(const Context&, Tensor out, Tensor lse, const Attention&);
void attention_backward_rows(const Context&, Tensor dq, Tensor dk, Tensor dv, Tensor row_sums, Tensor dout,
                             Tensor lse, const Attention&);
// row_sums (T, NH) = sum over a head of dout * out
void attention_row_sums(const Context&, Tensor row_sums, Tensor dout, Tensor out, int heads);

// ---- pair_loss.h ----
void policy_loss_backward(const Context&, Tensor dlogprob, Tensor logprob, Tensor pairs, double clip_low,
                          double clip_high, double kl_beta);
void value_loss_backward(const Context&, Tensor dvalue, Tensor value, Tensor pairs, double value_clip);

// ---- reveal_block.h ----
void reveal_blocks(const Context&, const RevealRun& run);

}  // namespace cuda
