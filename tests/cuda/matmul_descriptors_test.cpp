// What cuBLASLt is told, read back from its descriptors and compared with the row-major product that is meant. Needs
// cuBLASLt, but no device and no driver.
#include <gtest/gtest.h>

#include <array>
#include <cstdint>

#include "kernels/cuda/matmul_problem.h"

namespace retort::kernels {
namespace {

template <typename T>
T read(const MatmulDesc& from, cublasLtMatmulDescAttributes_t name) {
  T value{};
  std::size_t written = 0;
  EXPECT_EQ(cublasLtMatmulDescGetAttribute(from.get(), name, &value, sizeof value, &written), CUBLAS_STATUS_SUCCESS);
  EXPECT_EQ(written, sizeof value);
  return value;
}
template <typename T>
T read(const MatrixLayout& from, cublasLtMatrixLayoutAttribute_t name) {
  T value{};
  std::size_t written = 0;
  EXPECT_EQ(cublasLtMatrixLayoutGetAttribute(from.get(), name, &value, sizeof value, &written), CUBLAS_STATUS_SUCCESS);
  EXPECT_EQ(written, sizeof value);
  return value;
}
template <typename T>
T read(const MatmulPreference& from, cublasLtMatmulPreferenceAttributes_t name) {
  T value{};
  std::size_t written = 0;
  EXPECT_EQ(cublasLtMatmulPreferenceGetAttribute(from.get(), name, &value, sizeof value, &written),
            CUBLAS_STATUS_SUCCESS);
  EXPECT_EQ(written, sizeof value);
  return value;
}

cudaDataType_t cuda_type(DType dtype) {
  return dtype == DType::f64 ? CUDA_R_64F : dtype == DType::bf16 ? CUDA_R_16BF : CUDA_R_32F;
}

// A row-major [rows, columns] matrix, dense, is to cuBLAS a column-major [columns, rows] with `columns` between columns.
void expect_layout(const MatrixLayout& told, DType dtype, std::int64_t rows, std::int64_t columns) {
  EXPECT_EQ(read<std::uint32_t>(told, CUBLASLT_MATRIX_LAYOUT_TYPE), static_cast<std::uint32_t>(cuda_type(dtype)));
  EXPECT_EQ(read<std::int32_t>(told, CUBLASLT_MATRIX_LAYOUT_ORDER), CUBLASLT_ORDER_COL);
  EXPECT_EQ(read<std::uint64_t>(told, CUBLASLT_MATRIX_LAYOUT_ROWS), static_cast<std::uint64_t>(columns));
  EXPECT_EQ(read<std::uint64_t>(told, CUBLASLT_MATRIX_LAYOUT_COLS), static_cast<std::uint64_t>(rows));
  EXPECT_EQ(read<std::int64_t>(told, CUBLASLT_MATRIX_LAYOUT_LD), columns);
  EXPECT_EQ(read<std::int32_t>(told, CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT), 1);
}

cublasComputeType_t compute_of(DType dtype, Math math) {
  if (dtype == DType::f64) return CUBLAS_COMPUTE_64F;
  if (math == Math::strict) return CUBLAS_COMPUTE_32F_PEDANTIC;
  return dtype == DType::f32 && math == Math::tf32 ? CUBLAS_COMPUTE_32F_FAST_TF32 : CUBLAS_COMPUTE_32F;
}

TEST(MatmulDescriptors, SayWhatTheProductMeans) {
  constexpr std::int64_t kM = 3, kN = 4, kK = 5;
  const float bias = 0;
  for (const DType dtype : {DType::f64, DType::f32, DType::bf16}) {
    for (const Math math : {Math::strict, Math::standard, Math::tf32}) {
      for (const bool transpose_a : {false, true}) {
        for (const bool transpose_b : {false, true}) {
          const Shape a = transpose_a ? Shape{kK, kM} : Shape{kM, kK}, b = transpose_b ? Shape{kN, kK} : Shape{kK, kN};
          const auto product = column_major_product(a, transpose_a, b, transpose_b, {kM, kN});
          for (const void* const with : {static_cast<const void*>(nullptr), static_cast<const void*>(&bias)}) {
            const MatmulProblem told(product, dtype, math, with);
            // The first operand is b: y' = op(b)' op(a)'.
            expect_layout(told.first, dtype, b[0], b[1]);
            expect_layout(told.second, dtype, a[0], a[1]);
            expect_layout(told.result, dtype, kM, kN);
            EXPECT_EQ(read<std::int32_t>(told.desc, CUBLASLT_MATMUL_DESC_TRANSA),
                      transpose_b ? CUBLAS_OP_T : CUBLAS_OP_N);
            EXPECT_EQ(read<std::int32_t>(told.desc, CUBLASLT_MATMUL_DESC_TRANSB),
                      transpose_a ? CUBLAS_OP_T : CUBLAS_OP_N);
            EXPECT_EQ(read<std::int32_t>(told.desc, CUBLASLT_MATMUL_DESC_COMPUTE_TYPE), compute_of(dtype, math));
            EXPECT_EQ(read<std::int32_t>(told.desc, CUBLASLT_MATMUL_DESC_SCALE_TYPE),
                      dtype == DType::f64 ? CUDA_R_64F : CUDA_R_32F);
            EXPECT_EQ(read<std::int32_t>(told.desc, CUBLASLT_MATMUL_DESC_POINTER_MODE), CUBLASLT_POINTER_MODE_HOST);
            EXPECT_EQ(read<std::uint32_t>(told.desc, CUBLASLT_MATMUL_DESC_EPILOGUE),
                      with != nullptr ? CUBLASLT_EPILOGUE_BIAS : CUBLASLT_EPILOGUE_DEFAULT);
            EXPECT_EQ(read<const void*>(told.desc, CUBLASLT_MATMUL_DESC_BIAS_POINTER), with);
            EXPECT_EQ(read<std::int32_t>(told.desc, CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE), -1);  // that of the result
          }
        }
      }
    }
  }
}

TEST(MatmulDescriptors, PromiseNoMoreThanTheAlignmentAndAskForRepeatableSums) {
  for (const std::int64_t alignment : {2, 4, 8, 16}) {
    const MatmulPreference told = matmul_preference(alignment, 12345);
    EXPECT_EQ(read<std::uint64_t>(told, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES), 12345u);
    EXPECT_EQ(read<std::uint32_t>(told, CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK),
              CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE);
    for (const auto name : {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES,
                            CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES}) {
      EXPECT_EQ(read<std::uint32_t>(told, name), static_cast<std::uint32_t>(alignment));
    }
  }
}

}  // namespace
}  // namespace retort::kernels
