// RETORT_CALL(call): calls CUDA, cuDNN or cuBLAS and throws retort::Error unless it succeeded, with the text of the
// call in the message: "cuda: cudaGraphLaunch(exec.get(), native(stream)): out of memory (cudaErrorMemoryAllocation)".
#pragma once

#include <cublasLt.h>
#include <cuda_runtime_api.h>
#include <cudnn.h>

#include <string>

namespace retort::kernels {

// The status as one line of text; cuDNN's adds what the library says of its last error on this thread.
std::string describe(cudaError_t status);
std::string describe(cudnnStatus_t status);
std::string describe(cublasStatus_t status);

// Throws Error unless the status is success. A CUDA error that is not sticky is cleared, so that it does not surface
// again at the next kernel launch.
void check_call(cudaError_t status, const char* call);
void check_call(cudnnStatus_t status, const char* call);
void check_call(cublasStatus_t status, const char* call);

}  // namespace retort::kernels

#define RETORT_CALL(call) ::retort::kernels::check_call((call), #call)
