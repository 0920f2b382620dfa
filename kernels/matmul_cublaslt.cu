// matmul_cublaslt.cu -- matrix products by cuBLASLt. The algorithm of a shape is asked for once and kept.
//
// cuBLASLt is column-major: a row-major (rows, cols) matrix is its column-major transpose, so out = a b is
// computed as out^T = b^T a^T with the operands exchanged; a bias along our columns is then the bias of its
// rows, as its epilogue wants it. Reductions through atomics are excluded, so that a product has the same
// bits every time, and so are partial sums in the output's type: what is split along K is added in fp32.
#include <cublasLt.h>

#include <map>
#include <tuple>

#include "kernels/cuda_kernels.h"
#include "utils/log.h"

namespace cuda {

constexpr size_t LT_WORKSPACE = 32 << 20;  // what NVIDIA recommends for Hopper

#define CUBLAS_CHECK(call)                                                  \
    do {                                                                    \
        const cublasStatus_t status_ = (call);                              \
        if (status_ != CUBLAS_STATUS_SUCCESS)                               \
            fail(Exit::Runtime, "%s:%d: %s: %s", __FILE__, __LINE__, #call, \
                 cublasLtGetStatusString(status_));                         \
    } while (0)

namespace {

cudaDataType_t type_of(DType dtype) { return dtype == DType::F32 ? CUDA_R_32F : CUDA_R_16BF; }

uint32_t alignment_of(const void* p) {
    const uintptr_t at = reinterpret_cast<uintptr_t>(p);
    const uintptr_t lowest = at & (~at + 1);
    return lowest == 0 || lowest > 256 ? 256 : uint32_t(lowest);
}

struct Shape {  // everything an algorithm depends on
    int64_t M, N, K, lda, ldb, ldout, ldc;
    int types, flags;
    uint32_t align_a, align_b, align_c, align_out;
    auto key() const {
        return std::tie(M, N, K, lda, ldb, ldout, ldc, types, flags, align_a, align_b, align_c, align_out);
    }
    bool operator<(const Shape& o) const { return key() < o.key(); }
};

struct Plan {
    cublasLtMatmulDesc_t operation = nullptr;
    cublasLtMatrixLayout_t a = nullptr, b = nullptr, c = nullptr, out = nullptr;
    cublasLtMatmulAlgo_t algorithm;
};

void destroy(Plan& p) {
    if (p.operation) cublasLtMatmulDescDestroy(p.operation);
    for (cublasLtMatrixLayout_t layout : {p.a, p.b, p.c, p.out})
        if (layout) cublasLtMatrixLayoutDestroy(layout);
}

template <class T>
void set(cublasLtMatmulDesc_t d, cublasLtMatmulDescAttributes_t what, const T& value) {
    CUBLAS_CHECK(cublasLtMatmulDescSetAttribute(d, what, &value, sizeof value));
}
template <class T>
void set(cublasLtMatmulPreference_t d, cublasLtMatmulPreferenceAttributes_t what, const T& value) {
    CUBLAS_CHECK(cublasLtMatmulPreferenceSetAttribute(d, what, &value, sizeof value));
}

cublasLtMatrixLayout_t layout_of(const Tensor& t) {  // as stored: the column-major transpose of ours
    cublasLtMatrixLayout_t layout;
    CUBLAS_CHECK(
        cublasLtMatrixLayoutCreate(&layout, type_of(t.dtype), uint64_t(t.cols), uint64_t(t.rows), t.stride));
    return layout;
}

// No operation where cuBLASLt has no algorithm.
Plan make_plan(cublasLtHandle_t handle, const Matmul& p, const Tensor& c, const Shape& s) {
    Plan plan;
    CUBLAS_CHECK(cublasLtMatmulDescCreate(&plan.operation, CUBLAS_COMPUTE_32F, CUDA_R_32F));
    set(plan.operation, CUBLASLT_MATMUL_DESC_TRANSA, p.b_transposed ? CUBLAS_OP_T : CUBLAS_OP_N);
    set(plan.operation, CUBLASLT_MATMUL_DESC_TRANSB, p.a_transposed ? CUBLAS_OP_T : CUBLAS_OP_N);
    if (p.bias) {
        set(plan.operation, CUBLASLT_MATMUL_DESC_EPILOGUE, CUBLASLT_EPILOGUE_BIAS);
        set(plan.operation, CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE, type_of(p.bias.dtype));
        const void* bias = p.bias.data;
        set(plan.operation, CUBLASLT_MATMUL_DESC_BIAS_POINTER, bias);
    }
    plan.a = layout_of(p.b), plan.b = layout_of(p.a), plan.c = layout_of(c), plan.out = layout_of(p.out);
    cublasLtMatmulPreference_t wish;
    CUBLAS_CHECK(cublasLtMatmulPreferenceCreate(&wish));
    set(wish, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, LT_WORKSPACE);
    set(wish, CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, uint32_t(CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE));
    set(wish, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, s.align_b);
    set(wish, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, s.align_a);
    set(wish, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, s.align_c);
    set(wish, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, s.align_out);
    cublasLtMatmulHeuristicResult_t found;
    int n_found = 0;
    const cublasStatus_t status = cublasLtMatmulAlgoGetHeuristic(handle, plan.operation, plan.a, plan.b,
                                                                 plan.c, plan.out, wish, 1, &found, &n_found);
    cublasLtMatmulPreferenceDestroy(wish);
    if (status == CUBLAS_STATUS_SUCCESS && n_found) {
        plan.algorithm = found.algo;
        return plan;
    }
    destroy(plan);
    const std::string what =
        format("a matrix product of M %lld, N %lld, K %lld, rows of %lld, %lld and %lld", (long long)s.M,
               (long long)s.N, (long long)s.K, (long long)s.lda, (long long)s.ldb, (long long)s.ldout);
    if (status != CUBLAS_STATUS_SUCCESS && status != CUBLAS_STATUS_NOT_SUPPORTED)
        fail(Exit::Runtime, "cuBLASLt chooses no algorithm for %s: %s", what.c_str(),
             cublasLtGetStatusString(status));
    log_info("cuBLASLt has no algorithm for %s: it is computed by a slower kernel", what.c_str());
    return {};
}

}  // namespace

struct MatmulState {
    cublasLtHandle_t handle;
    std::map<Shape, Plan> plans;
};

MatmulState* create_matmul_state() {
    MatmulState* state = new MatmulState;
    CUBLAS_CHECK(cublasLtCreate(&state->handle));
    return state;
}

void destroy_matmul_state(MatmulState* state) {
    for (auto& [shape, plan] : state->plans) destroy(plan);
    cublasLtDestroy(state->handle);
    delete state;
}

void matmul_library(const Context& ctx, const Matmul& given) {
    Matmul p = given;
    const int K = checked_inner_size(p);
    if (p.out.size() == 0) return;
    MatmulState& state = *ctx.matmul_state;
    const Workspace::Mark scratch(ctx.workspace);
    if (p.bias && p.bias.dtype != p.out.dtype) {  // the epilogue wants the bias in the output's type
        const Tensor bias =
            tensor(ctx.workspace.take<bf16>(size_t(p.bias.size())), 1, p.bias.size(), DType::BF16);
        copy_rows(ctx, bias, nullptr, tensor(p.bias.data, 1, p.bias.size()), nullptr, 1);
        p.bias = bias;
    }
    const Tensor& c = p.residual ? p.residual : p.out;
    const Shape shape{.M = p.out.rows,
                      .N = p.out.cols,
                      .K = K,
                      .lda = p.a.stride,
                      .ldb = p.b.stride,
                      .ldout = p.out.stride,
                      .ldc = c.stride,
                      .types = int(p.a.dtype) * 16 + int(p.out.dtype),
                      .flags = p.a_transposed + 2 * p.b_transposed + 4 * bool(p.bias),
                      .align_a = alignment_of(p.a.data),
                      .align_b = alignment_of(p.b.data),
                      .align_c = alignment_of(c.data),
                      .align_out = alignment_of(p.out.data)};
    auto at = state.plans.find(shape);
    if (at == state.plans.end()) at = state.plans.emplace(shape, make_plan(state.handle, p, c, shape)).first;
    const Plan& plan = at->second;
    if (!plan.operation) return matmul_tiles(ctx, given);
    if (p.bias) {
        const void* bias = p.bias.data;
        set(plan.operation, CUBLASLT_MATMUL_DESC_BIAS_POINTER, bias);
    }
    const float alpha = 1, beta = p.residual || p.accumulate ? 1 : 0;
    CUBLAS_CHECK(cublasLtMatmul(state.handle, plan.operation, &alpha, p.b.data, plan.a, p.a.data, plan.b,
                                &beta, c.data, plan.c, p.out.data, plan.out, &plan.algorithm,
                                ctx.workspace.take<char>(LT_WORKSPACE), LT_WORKSPACE, ctx.stream));
}

}  // namespace cuda
