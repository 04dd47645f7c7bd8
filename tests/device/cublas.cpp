#include "tests/device/cublas.h"

#include <cublasLt.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <map>
#include <mutex>
#include <set>
#include <utility>

#include "tests/device/cublas_product.h"
#include "tests/device/numbers.h"
#include "tests/device/work.h"

namespace retort::standin {
namespace {

struct Refusal {
  cublasStatus_t status;
};
void require(bool condition, cublasStatus_t status = CUBLAS_STATUS_INVALID_VALUE) {
  if (!condition) throw Refusal{status};
}

struct Layout {
  cudaDataType_t type;
  std::uint64_t rows, columns;
  std::int64_t leading;
};

struct Operation {
  cublasComputeType_t compute;
  cudaDataType_t scale;
  std::int32_t transpose_a = CUBLAS_OP_N, transpose_b = CUBLAS_OP_N;
  std::uint32_t epilogue = CUBLASLT_EPILOGUE_DEFAULT;
  const void* bias = nullptr;
  std::int32_t bias_type = -1;
};

struct Preference {
  std::uint64_t workspace_bytes = 0;
  std::uint32_t reduction_schemes = CUBLASLT_REDUCTION_SCHEME_MASK;
  std::array<std::uint32_t, 4> alignments{256, 256, 256, 256};  // of A, B, C, D
};

constexpr std::array kAlgorithms{
    Algorithm{"in place", CUBLASLT_REDUCTION_SCHEME_INPLACE, 0, 256},
    Algorithm{"cannot run", CUBLASLT_REDUCTION_SCHEME_NONE, 64, 256, false},
    Algorithm{"split", CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE, 131, 64},
    Algorithm{"plain", CUBLASLT_REDUCTION_SCHEME_NONE, 131, 256},
    Algorithm{"small", CUBLASLT_REDUCTION_SCHEME_NONE, 0, 32},
};

// Of every algorithm that was proposed, by the number that stands in its cublasLtMatmulAlgo_t.
struct Proposal {
  Problem problem;
  std::array<std::uint32_t, 4> alignments;
  std::uintptr_t bias_alignment;
  std::size_t workspace_bytes;
  const Algorithm* algorithm;
};

struct Library {
  std::mutex mutex;
  std::uintptr_t next = 16;
  std::set<void*> handles;
  std::map<void*, Layout> layouts;
  std::map<void*, Operation> operations;
  std::map<void*, Preference> preferences;
  std::vector<Proposal> proposals;
  std::vector<std::string> algorithms_run;
};
Library& library() {
  static Library* const only = new Library;  // handles of static objects are destroyed later than it would be
  return *only;
}

// Names are never used twice, so one that was destroyed is known for what it is.
template <typename Name, typename Object>
void create(std::map<void*, Object>& objects, Name* name, const Object& object) {
  require(name != nullptr);
  *name = reinterpret_cast<Name>(library().next += 16);
  objects.emplace(*name, object);
}
template <typename Object>
Object& find(std::map<void*, Object>& objects, void* name) {
  const auto found = objects.find(name);
  require(found != objects.end());
  return found->second;
}

// Runs the body of an entry point under the lock.
template <typename Body>
cublasStatus_t entry(const char* function, cublasStatus_t when_asked, Body body) {
  try {
    require(!call_fails(function), when_asked);
    const std::scoped_lock lock(library().mutex);
    body();
    return CUBLAS_STATUS_SUCCESS;
  } catch (const Refusal& refusal) {
    return refusal.status;
  }
}

// Destroys also when it was asked to fail.
template <typename Objects>
cublasStatus_t destroy(const char* function, Objects& objects, void* name) {
  bool known = false;
  {
    const std::scoped_lock lock(library().mutex);
    known = objects.erase(name) > 0;
  }
  return entry(function, CUBLAS_STATUS_INTERNAL_ERROR, [&] { require(known); });
}

template <typename T>
void assign(T& to, const void* from, std::size_t bytes) {
  require(from != nullptr && bytes == sizeof to);
  std::memcpy(&to, from, bytes);
}
template <typename T>
void expect(T only, const void* from, std::size_t bytes) {
  T value;
  assign(value, from, bytes);
  require(value == only, CUBLAS_STATUS_NOT_SUPPORTED);
}

// Table of types in the documentation of cublasLtMatmul: which compute types there are for which data.
void check_types(const Operation& operation, cudaDataType_t type) {
  constexpr auto kNone = CUBLAS_STATUS_NOT_SUPPORTED;
  switch (operation.compute) {
    case CUBLAS_COMPUTE_64F:
    case CUBLAS_COMPUTE_64F_PEDANTIC:
      require(type == CUDA_R_64F && operation.scale == CUDA_R_64F, kNone);
      break;
    case CUBLAS_COMPUTE_32F:
    case CUBLAS_COMPUTE_32F_PEDANTIC:
      require((type == CUDA_R_32F || type == CUDA_R_16BF || type == CUDA_R_16F) && operation.scale == CUDA_R_32F,
              kNone);
      break;
    case CUBLAS_COMPUTE_32F_FAST_TF32:
    case CUBLAS_COMPUTE_32F_FAST_16BF:
      require(type == CUDA_R_32F && operation.scale == CUDA_R_32F, kNone);
      break;
    default:
      require(false, kNone);
  }
}

// Of Get...Attribute: the value, or with no room for it how many bytes it has.
template <typename T>
void give(const T& value, void* to, std::size_t bytes, std::size_t* written) {
  require(bytes == 0 ? written != nullptr : to != nullptr && bytes == sizeof value);
  if (bytes > 0) std::memcpy(to, &value, sizeof value);
  if (written != nullptr) *written = sizeof value;
}

std::int64_t whole(std::uint64_t extent) {
  require(extent > 0 && extent < std::uint64_t{1} << 62);
  return static_cast<std::int64_t>(extent);
}

Problem problem_of(const Operation& o, const Layout& a, const Layout& b, const Layout& c, const Layout& d) {
  require(a.type == b.type && a.type == c.type && a.type == d.type, CUBLAS_STATUS_NOT_SUPPORTED);
  check_types(o, a.type);
  for (const std::int32_t op : {o.transpose_a, o.transpose_b}) require(op == CUBLAS_OP_N || op == CUBLAS_OP_T);
  for (const Layout* l : {&a, &b, &c, &d}) require(l->leading >= whole(l->rows));
  Problem p{};
  p.type = a.type;
  p.scale = o.scale;
  p.compute = o.compute;
  p.transpose_a = o.transpose_a == CUBLAS_OP_T;
  p.transpose_b = o.transpose_b == CUBLAS_OP_T;
  p.m = whole(d.rows);
  p.n = whole(d.columns);
  p.k = whole(p.transpose_a ? a.rows : a.columns);
  require((p.transpose_a ? a.columns : a.rows) == d.rows && (p.transpose_b ? b.rows : b.columns) == d.columns);
  require((p.transpose_b ? b.columns : b.rows) == static_cast<std::uint64_t>(p.k));
  require(c.rows == d.rows && c.columns == d.columns);
  require(o.epilogue == CUBLASLT_EPILOGUE_DEFAULT || o.epilogue == CUBLASLT_EPILOGUE_BIAS, CUBLAS_STATUS_NOT_SUPPORTED);
  p.bias = o.epilogue == CUBLASLT_EPILOGUE_BIAS;
  // "Bias vector elements are the same type as the elements of the output matrix."
  require(!p.bias || o.bias_type == -1 || o.bias_type == d.type, CUBLAS_STATUS_NOT_SUPPORTED);
  p.ld_a = a.leading;
  p.ld_b = b.leading;
  p.ld_c = c.leading;
  p.ld_d = d.leading;
  return p;
}

std::uintptr_t alignment_of(const void* pointer) {
  const auto bits = reinterpret_cast<std::uintptr_t>(pointer) | 16;
  return bits & (~bits + 1);
}
bool is_aligned(const void* pointer, std::uintptr_t alignment) {
  return reinterpret_cast<std::uintptr_t>(pointer) % alignment == 0;
}

}  // namespace

std::vector<std::string> take_algorithms_run() {
  const std::scoped_lock lock(library().mutex);
  return std::exchange(library().algorithms_run, {});
}

std::size_t live_cublas_objects() {
  const std::scoped_lock lock(library().mutex);
  return library().handles.size() + library().layouts.size() + library().operations.size() +
         library().preferences.size();
}

}  // namespace retort::standin

using namespace retort::standin;

extern "C" {

const char* cublasLtGetStatusString(cublasStatus_t status) {
  switch (status) {
    case CUBLAS_STATUS_SUCCESS:
      return "success";
    case CUBLAS_STATUS_NOT_INITIALIZED:
      return "the library was not initialized";
    case CUBLAS_STATUS_ALLOC_FAILED:
      return "the resource allocation failed";
    case CUBLAS_STATUS_INVALID_VALUE:
      return "an invalid value was passed in";
    case CUBLAS_STATUS_NOT_SUPPORTED:
      return "the functionality is not supported";
    case CUBLAS_STATUS_EXECUTION_FAILED:
      return "the function failed to launch on the GPU";
    default:
      return "an internal operation failed";
  }
}

cublasStatus_t cublasLtCreate(cublasLtHandle_t* handle) {
  return entry("cublasLtCreate", CUBLAS_STATUS_NOT_INITIALIZED, [&] {
    require(handle != nullptr);
    *handle = reinterpret_cast<cublasLtHandle_t>(library().next += 16);
    library().handles.insert(*handle);
  });
}

cublasStatus_t cublasLtDestroy(cublasLtHandle_t handle) {
  return destroy("cublasLtDestroy", library().handles, handle);
}

cublasStatus_t cublasLtMatrixLayoutCreate(cublasLtMatrixLayout_t* layout, cudaDataType type, std::uint64_t rows,
                                          std::uint64_t columns, std::int64_t leading) {
  return entry("cublasLtMatrixLayoutCreate", CUBLAS_STATUS_ALLOC_FAILED, [&] {
    create(library().layouts, layout, Layout{type, rows, columns, leading});
  });
}
cublasStatus_t cublasLtMatrixLayoutDestroy(cublasLtMatrixLayout_t layout) {
  return destroy("cublasLtMatrixLayoutDestroy", library().layouts, layout);
}
cublasStatus_t cublasLtMatrixLayoutSetAttribute(cublasLtMatrixLayout_t layout, cublasLtMatrixLayoutAttribute_t name,
                                                const void* value, std::size_t bytes) {
  return entry("cublasLtMatrixLayoutSetAttribute", CUBLAS_STATUS_INTERNAL_ERROR, [&] {
    find(library().layouts, layout);
    switch (name) {
      case CUBLASLT_MATRIX_LAYOUT_ORDER:
        return expect(std::int32_t{CUBLASLT_ORDER_COL}, value, bytes);
      case CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT:
        return expect(std::int32_t{1}, value, bytes);
      case CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET:
      case CUBLASLT_MATRIX_LAYOUT_PLANE_OFFSET:
        return expect(std::int64_t{0}, value, bytes);
      default:
        require(false);
    }
  });
}

cublasStatus_t cublasLtMatrixLayoutGetAttribute(cublasLtMatrixLayout_t layout, cublasLtMatrixLayoutAttribute_t name,
                                                void* value, std::size_t bytes, std::size_t* written) {
  return entry("cublasLtMatrixLayoutGetAttribute", CUBLAS_STATUS_INTERNAL_ERROR, [&] {
    const Layout& l = find(library().layouts, layout);
    switch (name) {
      case CUBLASLT_MATRIX_LAYOUT_TYPE:
        return give(static_cast<std::uint32_t>(l.type), value, bytes, written);
      case CUBLASLT_MATRIX_LAYOUT_ORDER:
        return give(std::int32_t{CUBLASLT_ORDER_COL}, value, bytes, written);
      case CUBLASLT_MATRIX_LAYOUT_ROWS:
        return give(l.rows, value, bytes, written);
      case CUBLASLT_MATRIX_LAYOUT_COLS:
        return give(l.columns, value, bytes, written);
      case CUBLASLT_MATRIX_LAYOUT_LD:
        return give(l.leading, value, bytes, written);
      case CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT:
        return give(std::int32_t{1}, value, bytes, written);
      default:
        require(false);
    }
  });
}

cublasStatus_t cublasLtMatmulDescCreate(cublasLtMatmulDesc_t* operation, cublasComputeType_t compute,
                                        cudaDataType_t scale) {
  return entry("cublasLtMatmulDescCreate", CUBLAS_STATUS_ALLOC_FAILED, [&] {
    create(library().operations, operation, Operation{compute, scale});
  });
}
cublasStatus_t cublasLtMatmulDescDestroy(cublasLtMatmulDesc_t operation) {
  return destroy("cublasLtMatmulDescDestroy", library().operations, operation);
}
cublasStatus_t cublasLtMatmulDescSetAttribute(cublasLtMatmulDesc_t operation, cublasLtMatmulDescAttributes_t name,
                                              const void* value, std::size_t bytes) {
  return entry("cublasLtMatmulDescSetAttribute", CUBLAS_STATUS_INTERNAL_ERROR, [&] {
    Operation& o = find(library().operations, operation);
    switch (name) {
      case CUBLASLT_MATMUL_DESC_TRANSA:
        return assign(o.transpose_a, value, bytes);
      case CUBLASLT_MATMUL_DESC_TRANSB:
        return assign(o.transpose_b, value, bytes);
      case CUBLASLT_MATMUL_DESC_TRANSC:
        return expect(std::int32_t{CUBLAS_OP_N}, value, bytes);
      case CUBLASLT_MATMUL_DESC_POINTER_MODE:
        return expect(std::int32_t{CUBLASLT_POINTER_MODE_HOST}, value, bytes);
      case CUBLASLT_MATMUL_DESC_EPILOGUE:
        return assign(o.epilogue, value, bytes);
      case CUBLASLT_MATMUL_DESC_BIAS_POINTER:
        return assign(o.bias, value, bytes);
      case CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE:
        return assign(o.bias_type, value, bytes);
      default:
        require(false);
    }
  });
}

cublasStatus_t cublasLtMatmulDescGetAttribute(cublasLtMatmulDesc_t operation, cublasLtMatmulDescAttributes_t name,
                                              void* value, std::size_t bytes, std::size_t* written) {
  return entry("cublasLtMatmulDescGetAttribute", CUBLAS_STATUS_INTERNAL_ERROR, [&] {
    const Operation& o = find(library().operations, operation);
    switch (name) {
      case CUBLASLT_MATMUL_DESC_COMPUTE_TYPE:
        return give(static_cast<std::int32_t>(o.compute), value, bytes, written);
      case CUBLASLT_MATMUL_DESC_SCALE_TYPE:
        return give(static_cast<std::int32_t>(o.scale), value, bytes, written);
      case CUBLASLT_MATMUL_DESC_POINTER_MODE:
        return give(std::int32_t{CUBLASLT_POINTER_MODE_HOST}, value, bytes, written);
      case CUBLASLT_MATMUL_DESC_TRANSA:
        return give(o.transpose_a, value, bytes, written);
      case CUBLASLT_MATMUL_DESC_TRANSB:
        return give(o.transpose_b, value, bytes, written);
      case CUBLASLT_MATMUL_DESC_EPILOGUE:
        return give(o.epilogue, value, bytes, written);
      case CUBLASLT_MATMUL_DESC_BIAS_POINTER:
        return give(o.bias, value, bytes, written);
      case CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE:
        return give(o.bias_type, value, bytes, written);
      default:
        require(false);
    }
  });
}

cublasStatus_t cublasLtMatmulPreferenceCreate(cublasLtMatmulPreference_t* preference) {
  return entry("cublasLtMatmulPreferenceCreate", CUBLAS_STATUS_ALLOC_FAILED,
               [&] { create(library().preferences, preference, Preference{}); });
}
cublasStatus_t cublasLtMatmulPreferenceDestroy(cublasLtMatmulPreference_t preference) {
  return destroy("cublasLtMatmulPreferenceDestroy", library().preferences, preference);
}
cublasStatus_t cublasLtMatmulPreferenceSetAttribute(cublasLtMatmulPreference_t preference,
                                                    cublasLtMatmulPreferenceAttributes_t name, const void* value,
                                                    std::size_t bytes) {
  return entry("cublasLtMatmulPreferenceSetAttribute", CUBLAS_STATUS_INTERNAL_ERROR, [&] {
    Preference& p = find(library().preferences, preference);
    switch (name) {
      case CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES:
        return assign(p.workspace_bytes, value, bytes);
      case CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK:
        return assign(p.reduction_schemes, value, bytes);
      case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES:
        return assign(p.alignments[0], value, bytes);
      case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES:
        return assign(p.alignments[1], value, bytes);
      case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES:
        return assign(p.alignments[2], value, bytes);
      case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES:
        return assign(p.alignments[3], value, bytes);
      default:
        require(false);
    }
  });
}

cublasStatus_t cublasLtMatmulPreferenceGetAttribute(cublasLtMatmulPreference_t preference,
                                                    cublasLtMatmulPreferenceAttributes_t name, void* value,
                                                    std::size_t bytes, std::size_t* written) {
  return entry("cublasLtMatmulPreferenceGetAttribute", CUBLAS_STATUS_INTERNAL_ERROR, [&] {
    const Preference& p = find(library().preferences, preference);
    switch (name) {
      case CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES:
        return give(p.workspace_bytes, value, bytes, written);
      case CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK:
        return give(p.reduction_schemes, value, bytes, written);
      case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES:
        return give(p.alignments[0], value, bytes, written);
      case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES:
        return give(p.alignments[1], value, bytes, written);
      case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES:
        return give(p.alignments[2], value, bytes, written);
      case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES:
        return give(p.alignments[3], value, bytes, written);
      default:
        require(false);
    }
  });
}

cublasStatus_t cublasLtMatmulAlgoGetHeuristic(cublasLtHandle_t handle, cublasLtMatmulDesc_t operation,
                                              cublasLtMatrixLayout_t a, cublasLtMatrixLayout_t b,
                                              cublasLtMatrixLayout_t c, cublasLtMatrixLayout_t d,
                                              cublasLtMatmulPreference_t preference, int requested,
                                              cublasLtMatmulHeuristicResult_t results[], int* count) {
  return entry("cublasLtMatmulAlgoGetHeuristic", CUBLAS_STATUS_INTERNAL_ERROR, [&] {
    require(library().handles.contains(handle) && requested > 0 && results != nullptr && count != nullptr);
    const Operation& o = find(library().operations, operation);
    auto& layouts = library().layouts;
    const Problem problem = problem_of(o, find(layouts, a), find(layouts, b), find(layouts, c), find(layouts, d));
    const Preference& wanted = find(library().preferences, preference);
    for (const std::uint32_t alignment : wanted.alignments) {
      require(alignment >= size_of(problem.type), CUBLAS_STATUS_NOT_SUPPORTED);
    }
    *count = 0;
    for (const Algorithm& algorithm : kAlgorithms) {
      const std::size_t workspace = workspace_of(algorithm, problem);
      if (*count == requested || workspace > wanted.workspace_bytes ||
          (algorithm.scheme & ~wanted.reduction_schemes) != 0) {
        continue;
      }
      cublasLtMatmulHeuristicResult_t& result = results[(*count)++];
      result = {};
      result.algo.data[0] = library().proposals.size();
      result.workspaceSize = workspace;
      result.state = CUBLAS_STATUS_SUCCESS;
      // "Routines that don't dereference this pointer depend on its value to determine expected pointer alignment."
      library().proposals.push_back({problem, wanted.alignments, alignment_of(o.bias), workspace, &algorithm});
    }
    require(*count > 0, CUBLAS_STATUS_NOT_SUPPORTED);
  });
}

cublasStatus_t cublasLtMatmul(cublasLtHandle_t handle, cublasLtMatmulDesc_t operation, const void* alpha, const void* a,
                              cublasLtMatrixLayout_t a_layout, const void* b, cublasLtMatrixLayout_t b_layout,
                              const void* beta, const void* c, cublasLtMatrixLayout_t c_layout, void* d,
                              cublasLtMatrixLayout_t d_layout, const cublasLtMatmulAlgo_t* algo, void* workspace,
                              std::size_t workspace_bytes, cudaStream_t stream) {
  return entry("cublasLtMatmul", CUBLAS_STATUS_EXECUTION_FAILED, [&] {
    require(library().handles.contains(handle) && algo != nullptr && alpha != nullptr && beta != nullptr);
    require(algo->data[0] < library().proposals.size());
    const Proposal& proposal = library().proposals[algo->data[0]];
    const Operation& o = find(library().operations, operation);
    auto& layouts = library().layouts;
    const Problem problem = problem_of(o, find(layouts, a_layout), find(layouts, b_layout), find(layouts, c_layout),
                                       find(layouts, d_layout));
    require(problem == proposal.problem);
    const std::array<const void*, 4> pointers{a, b, c, d};
    for (std::size_t i = 0; i < 4; ++i) {
      require(pointers[i] != nullptr && is_aligned(pointers[i], proposal.alignments[i]));
    }
    require(!problem.bias || (o.bias != nullptr && is_aligned(o.bias, proposal.bias_alignment)));
    require(workspace_bytes >= proposal.workspace_bytes);
    require(proposal.workspace_bytes == 0 || (workspace != nullptr && is_aligned(workspace, 16)));
    require(proposal.algorithm->runs, CUBLAS_STATUS_NOT_SUPPORTED);
    const bool wide = problem.scale == CUDA_R_64F;
    const auto scale = [wide](const void* value) { return wide ? load<double>(value, 0) : load<float>(value, 0); };
    const Call call{problem,   proposal.algorithm,      scale(alpha), scale(beta), a, b, c, o.bias, d,
                    workspace, proposal.workspace_bytes};
    require(lies_apart(call));
    const cudaError_t error = queue(call, stream);
    require(error == cudaSuccess,
            error == cudaErrorMemoryAllocation ? CUBLAS_STATUS_ALLOC_FAILED : CUBLAS_STATUS_EXECUTION_FAILED);
    library().algorithms_run.emplace_back(proposal.algorithm->name);
  });
}

}  // extern "C"
