// A product as cuBLASLt wants it described: separate from its running, for it can be read without a device.
#pragma once

#include "kernels/cuda/gemm_layout.h"
#include "kernels/cuda/handle.h"
#include "kernels/kernels.h"

namespace retort::kernels {

using MatmulDesc = Handle<cublasLtMatmulDesc_t, cublasLtMatmulDescDestroy>;
using MatrixLayout = Handle<cublasLtMatrixLayout_t, cublasLtMatrixLayoutDestroy>;
using MatmulPreference = Handle<cublasLtMatmulPreference_t, cublasLtMatmulPreferenceDestroy>;

struct MatmulProblem {
  MatmulDesc desc;
  MatrixLayout first, second, result;

  // With a bias where it is not null; of the result's type.
  MatmulProblem(const ColumnMajorProduct& product, DType dtype, Math math, const void* bias);
};

// What algorithms may use: `alignment` bytes are promised of every matrix.
MatmulPreference matmul_preference(std::int64_t alignment, std::size_t workspace_limit);

}  // namespace retort::kernels
