#include "kernels/cuda/matmul_problem.h"

#include "kernels/cuda/check.h"
#include "kernels/error.h"

namespace retort::kernels {
namespace {

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
void set(const MatmulPreference& preference, cublasLtMatmulPreferenceAttributes_t name, T value) {
  RETORT_CALL(cublasLtMatmulPreferenceSetAttribute(preference.get(), name, &value, sizeof value));
}

MatrixLayout layout(DType dtype, std::int64_t rows, std::int64_t columns, std::int64_t leading) {
  MatrixLayout result;
  RETORT_CALL(cublasLtMatrixLayoutCreate(result.out(), data_type(dtype), static_cast<std::uint64_t>(rows),
                                         static_cast<std::uint64_t>(columns), leading));
  return result;
}

}  // namespace

MatmulProblem::MatmulProblem(const ColumnMajorProduct& p, DType dtype, Math math, const void* bias)
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

MatmulPreference matmul_preference(std::int64_t alignment, std::size_t workspace_limit) {
  MatmulPreference preference;
  RETORT_CALL(cublasLtMatmulPreferenceCreate(preference.out()));
  set(preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, static_cast<std::uint64_t>(workspace_limit));
  set(preference, CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK,
      static_cast<std::uint32_t>(CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE));
  for (const auto name : {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES,
                          CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES}) {
    set(preference, name, static_cast<std::uint32_t>(alignment));
  }
  return preference;
}

}  // namespace retort::kernels
