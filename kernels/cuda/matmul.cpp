#include "kernels/cuda/matmul.h"

#include <array>

#include "kernels/cuda/check.h"
#include "kernels/cuda/conv_key.h"
#include "kernels/cuda/direct_convolution.h"
#include "kernels/cuda/native.h"
#include "kernels/error.h"

namespace retort::kernels {
namespace {

using MatmulDesc = Handle<cublasLtMatmulDesc_t, cublasLtMatmulDescDestroy>;
using MatrixLayout = Handle<cublasLtMatrixLayout_t, cublasLtMatrixLayoutDestroy>;
using Preference = Handle<cublasLtMatmulPreference_t, cublasLtMatmulPreferenceDestroy>;

cudaDataType_t data_type(DType dtype) {
  switch (dtype) {
    case DType::f64:
      return CUDA_R_64F;
    case DType::f32:
      return CUDA_R_32F;
    case DType::bf16:
      return CUDA_R_16BF;
    default:
      fail("matmul: {} is not a type that products take", name_of(dtype));
  }
}

cublasComputeType_t compute_type(DType dtype, Math math) {
  if (dtype == DType::f64) return CUBLAS_COMPUTE_64F;
  if (dtype == DType::f32 && math == Math::tf32) return CUBLAS_COMPUTE_32F_FAST_TF32;
  // Pedantic also refuses what an environment variable might otherwise allow (NVIDIA_TF32_OVERRIDE, emulation).
  return math == Math::strict ? CUBLAS_COMPUTE_32F_PEDANTIC : CUBLAS_COMPUTE_32F;
}

template <typename T>
void set(const MatmulDesc& desc, cublasLtMatmulDescAttributes_t name, T value) {
  RETORT_CALL(cublasLtMatmulDescSetAttribute(desc.get(), name, &value, sizeof value));
}
template <typename T>
void set(const Preference& preference, cublasLtMatmulPreferenceAttributes_t name, T value) {
  RETORT_CALL(cublasLtMatmulPreferenceSetAttribute(preference.get(), name, &value, sizeof value));
}

MatrixLayout layout(DType dtype, std::int64_t rows, std::int64_t columns, std::int64_t leading) {
  MatrixLayout result;
  RETORT_CALL(cublasLtMatrixLayoutCreate(result.out(), data_type(dtype), static_cast<std::uint64_t>(rows),
                                         static_cast<std::uint64_t>(columns), leading));
  return result;
}

// A product as cuBLASLt wants it described.
struct Problem {
  MatmulDesc desc;
  MatrixLayout first, second, result;

  Problem(const ColumnMajorProduct& p, DType dtype, Math math, const void* bias)
      : first(layout(dtype, p.transpose_first ? p.k : p.m, p.transpose_first ? p.m : p.k, p.ld_first)),
        second(layout(dtype, p.transpose_second ? p.n : p.k, p.transpose_second ? p.k : p.n, p.ld_second)),
        result(layout(dtype, p.m, p.n, p.ld_result)) {
    const cudaDataType_t scale = dtype == DType::f64 ? CUDA_R_64F : CUDA_R_32F;
    RETORT_CALL(cublasLtMatmulDescCreate(desc.out(), compute_type(dtype, math), scale));
    set(desc, CUBLASLT_MATMUL_DESC_TRANSA, p.transpose_first ? CUBLAS_OP_T : CUBLAS_OP_N);
    set(desc, CUBLASLT_MATMUL_DESC_TRANSB, p.transpose_second ? CUBLAS_OP_T : CUBLAS_OP_N);
    if (bias != nullptr) {
      set(desc, CUBLASLT_MATMUL_DESC_EPILOGUE, CUBLASLT_EPILOGUE_BIAS);
      set(desc, CUBLASLT_MATMUL_DESC_BIAS_POINTER, bias);
    }
  }
};

std::vector<cublasLtMatmulHeuristicResult_t> propose(cublasLtHandle_t handle, const Problem& problem,
                                                     std::int64_t alignment, std::size_t workspace_limit) {
  Preference preference;
  RETORT_CALL(cublasLtMatmulPreferenceCreate(preference.out()));
  set(preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, static_cast<std::uint64_t>(workspace_limit));
  set(preference, CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK,
      static_cast<std::uint32_t>(CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE));
  for (const auto name : {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES,
                          CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES}) {
    set(preference, name, static_cast<std::uint32_t>(alignment));
  }
  std::vector<cublasLtMatmulHeuristicResult_t> results(8);
  int count = 0;
  const cublasStatus_t status = cublasLtMatmulAlgoGetHeuristic(
      handle, problem.desc.get(), problem.first.get(), problem.second.get(), problem.result.get(), problem.result.get(),
      preference.get(), static_cast<int>(results.size()), results.data(), &count);
  if (status == CUBLAS_STATUS_NOT_SUPPORTED) count = 0;
  if (status != CUBLAS_STATUS_NOT_SUPPORTED) check_call(status, "cublasLtMatmulAlgoGetHeuristic(...)");
  results.resize(static_cast<std::size_t>(count));
  std::erase_if(results, [](const auto& result) { return result.state != CUBLAS_STATUS_SUCCESS; });
  return results;
}

}  // namespace

MatrixProducts::MatrixProducts(DeviceMemory& memory) : memory_(memory) {
  RETORT_CALL(cublasLtCreate(handle_.out()));
}

std::size_t MatrixProducts::KeyHash::operator()(const Key& key) const {
  const ColumnMajorProduct& p = key.product;
  std::size_t hash = 0;
  for (const std::int64_t value : {p.m, p.n, p.k, p.ld_first, p.ld_second, p.ld_result, std::int64_t{p.transpose_first},
                                   std::int64_t{p.transpose_second}, static_cast<std::int64_t>(key.dtype),
                                   static_cast<std::int64_t>(key.math), std::int64_t{key.bias}, key.alignment}) {
    hash = (hash ^ static_cast<std::size_t>(value)) * 0x9e3779b97f4a7c15u;
    hash ^= hash >> 29;
  }
  return hash;
}

void MatrixProducts::run(ConstView a, bool transpose_a, ConstView b, bool transpose_b, ConstView bias, Math math,
                         View y, Stream stream) {
  if (y.numel() == 0) return;
  const ColumnMajorProduct product = column_major_product(a.shape, transpose_a, b.shape, transpose_b, y.shape);
  if (product.k == 0) {
    RETORT_CALL(cudaMemsetAsync(y.data, 0, y.bytes(), native(stream)));
    if (bias) bias_residual_activation({bias}, y, stream);
    return;
  }
  // The epilogue takes a bias of the result's type only; a bf16 product has an f32 bias.
  bool fused = bias && y.dtype == DType::f32;
  const std::int64_t alignment = common_alignment({a.data, b.data, y.data, fused ? bias.data : nullptr});
  const std::array<double, 2> scales64{1.0, 0.0};
  const std::array<float, 2> scales32{1.0f, 0.0f};
  const bool f64 = y.dtype == DType::f64;
  const void* alpha = f64 ? static_cast<const void*>(&scales64[0]) : &scales32[0];
  const void* beta = f64 ? static_cast<const void*>(&scales64[1]) : &scales32[1];

  const std::scoped_lock lock(mutex_);
  cublasStatus_t status = CUBLAS_STATUS_NOT_SUPPORTED;
  for (;;) {
    const Problem problem(product, y.dtype, math, fused ? bias.data : nullptr);
    const auto [found, fresh] = algorithms_.try_emplace(Key{product, y.dtype, math, fused, alignment});
    Algorithms& known = found->second;
    const RelaxedCapture relaxed;  // the first run of an algorithm may load its kernels
    if (fresh) known.list = propose(handle_.get(), problem, alignment, kWorkspaceLimit);
    while (!known.list.empty()) {
      const auto& algorithm = known.list.front();
      const ScratchMemory workspace(memory_, algorithm.workspaceSize, native(stream));
      status = cublasLtMatmul(handle_.get(), problem.desc.get(), alpha, b.data, problem.first.get(), a.data,
                              problem.second.get(), beta, y.data, problem.result.get(), y.data, problem.result.get(),
                              &algorithm.algo, workspace.data(), algorithm.workspaceSize, native(stream));
      if (status == CUBLAS_STATUS_SUCCESS) {
        if (!known.proven) known.list.resize(1);
        known.proven = true;
        if (bias && !fused) bias_residual_activation({bias}, y, stream);
        return;
      }
      if (known.proven) break;
      known.list.erase(known.list.begin());
    }
    if (!fused) break;
    fused = false;
  }
  fail("cublas: cublasLtMatmul(m = {}, n = {}, k = {}, {}): {}", product.m, product.n, product.k, name_of(y.dtype),
       describe(status));
}

}  // namespace retort::kernels
