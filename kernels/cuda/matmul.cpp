#include "kernels/cuda/matmul.h"

#include <array>

#include "kernels/cuda/check.h"
#include "kernels/cuda/conv_key.h"
#include "kernels/cuda/direct_convolution.h"
#include "kernels/cuda/matmul_problem.h"
#include "kernels/cuda/native.h"
#include "kernels/error.h"

namespace retort::kernels {
namespace {

std::vector<cublasLtMatmulHeuristicResult_t> propose(cublasLtHandle_t handle, const MatmulProblem& problem,
                                                     std::int64_t alignment, std::size_t workspace_limit) {
  const MatmulPreference preference = matmul_preference(alignment, workspace_limit);
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
    const MatmulProblem problem(product, y.dtype, math, fused ? bias.data : nullptr);
    const Key key{product, y.dtype, math, fused, alignment};
    const RelaxedCapture relaxed;  // the first run of an algorithm may load its kernels
    auto found = algorithms_.find(key);
    if (found == algorithms_.end()) {
      // The heuristics take the alignment of the bias from its address, and the next bias may have no more than agreed.
      const auto* const anywhere = reinterpret_cast<const void*>(alignment);
      const MatmulProblem proposed(product, y.dtype, math, fused ? anywhere : nullptr);
      found = algorithms_.emplace(key, Algorithms{propose(handle_.get(), proposed, alignment, kWorkspaceLimit)}).first;
    }
    Algorithms& known = found->second;
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
      if (known.proven || status == CUBLAS_STATUS_ALLOC_FAILED) break;
      known.list.erase(known.list.begin());
    }
    // Which algorithm is used must not depend on how much memory happens to be free.
    if (!fused || status == CUBLAS_STATUS_ALLOC_FAILED) break;
    fused = false;
  }
  fail("cublas: cublasLtMatmul(m = {}, n = {}, k = {}, {}): {}", product.m, product.n, product.k, name_of(y.dtype),
       describe(status));
}

}  // namespace retort::kernels
