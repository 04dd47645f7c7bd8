#include "kernels/cuda/check.h"

#include <algorithm>
#include <array>

#include "kernels/error.h"

namespace retort::kernels {

std::string describe(cudaError_t status) {
  return fmt::format("{} ({})", cudaGetErrorString(status), cudaGetErrorName(status));
}

std::string describe(cudnnStatus_t status) {
  std::array<char, 512> detail{};
  cudnnGetLastErrorString(detail.data(), detail.size());
  detail.back() = '\0';
  std::string text = detail.data();
  std::replace(text.begin(), text.end(), '\n', ' ');
  while (!text.empty() && text.back() == ' ') text.pop_back();
  return text.empty() ? std::string(cudnnGetErrorString(status))
                      : fmt::format("{}: {}", cudnnGetErrorString(status), text);
}

std::string describe(cublasStatus_t status) {
  return cublasLtGetStatusString(status);
}

void check_call(cudaError_t status, const char* call) {
  if (status == cudaSuccess) return;
  cudaGetLastError();
  fail("cuda: {}: {}", call, describe(status));
}
void check_call(cudnnStatus_t status, const char* call) {
  if (status != CUDNN_STATUS_SUCCESS) fail("cudnn: {}: {}", call, describe(status));
}
void check_call(cublasStatus_t status, const char* call) {
  if (status != CUBLAS_STATUS_SUCCESS) fail("cublas: {}: {}", call, describe(status));
}

}  // namespace retort::kernels
