#include "tests/device/cublas.h"

#include <cublasLt.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cstring>
#include <map>
#include <mutex>
#include <set>
#include <utility>

#include "kernels/bf16.h"
#include "tests/device/convolve.h"
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

// What a product is, with nothing but its pointers left out: an algorithm is good for this and for nothing else.
struct Problem {
  cudaDataType_t type, scale;
  cublasComputeType_t compute;
  bool transpose_a, transpose_b, bias;
  std::int64_t m, n, k, ld_a, ld_b, ld_c, ld_d;

  bool operator==(const Problem&) const = default;
};

struct Algorithm {
  const char* name;
  std::uint32_t scheme;         // of cublasLtReductionScheme_t; in place: in no order, so other low bits at every run
  std::size_t workspace_bytes;  // beside the sums, which lie in the workspace between two kernels in COMPUTE_TYPE
  std::int64_t terms;           // of a sum that are added before the next partial sum begins
  bool runs = true;
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

std::size_t size_of(cudaDataType_t type) {
  return type == CUDA_R_64F ? 8 : type == CUDA_R_32F ? 4 : 2;
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

std::size_t workspace_of(const Algorithm& algorithm, const Problem& p) {
  const std::size_t sum = p.type == CUDA_R_64F ? sizeof(double) : sizeof(float);
  return algorithm.workspace_bytes + (algorithm.scheme == CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE
                                          ? static_cast<std::size_t>(p.m * p.n) * sum
                                          : std::size_t{0});
}

template <typename T>
T read_element(cudaDataType_t type, const void* data, std::int64_t index) {
  switch (type) {
    case CUDA_R_64F:
      return static_cast<T>(load<double>(data, index));
    case CUDA_R_32F:
      return static_cast<T>(load<float>(data, index));
    case CUDA_R_16BF:
      return static_cast<T>(static_cast<float>(load<bf16>(data, index)));
    default:
      return static_cast<T>(load<_Float16>(data, index));
  }
}
template <typename T>
void write_element(cudaDataType_t type, void* data, std::int64_t index, T value) {
  switch (type) {
    case CUDA_R_64F:
      return store(data, index, static_cast<double>(value));
    case CUDA_R_32F:
      return store(data, index, static_cast<float>(value));
    case CUDA_R_16BF:
      return store(data, index, bf16(static_cast<float>(value)));
    default:
      return store(data, index, static_cast<_Float16>(value));
  }
}

struct Call {
  Problem problem;
  const Algorithm* algorithm;
  double alpha, beta;
  const void *a, *b, *c, *bias;
  void *d, *workspace;
  std::size_t workspace_bytes;

  std::size_t bytes(std::int64_t rows, std::int64_t columns, std::int64_t leading) const {
    return static_cast<std::size_t>((columns - 1) * leading + rows) * size_of(problem.type);
  }
};

// What the multiplier makes of an input.
template <typename T>
T taken(cublasComputeType_t compute, T value) {
  if (compute == CUBLAS_COMPUTE_32F_FAST_TF32) return static_cast<T>(truncate_to_tf32(static_cast<float>(value)));
  if (compute == CUBLAS_COMPUTE_32F_FAST_16BF) return round_significand(value, 8);
  return value;
}

// op(A) op(B), column-major and dense.
template <typename T>
std::vector<T> sums_of(const Call& call) {
  const Problem& p = call.problem;
  std::vector<T> a(static_cast<std::size_t>(p.k * p.m)), column(static_cast<std::size_t>(p.k));
  for (std::int64_t l = 0; l < p.k; ++l) {
    for (std::int64_t i = 0; i < p.m; ++i) {
      const std::int64_t at = p.transpose_a ? i * p.ld_a + l : l * p.ld_a + i;
      a[static_cast<std::size_t>(l * p.m + i)] = taken(p.compute, read_element<T>(p.type, call.a, at));
    }
  }
  std::vector<T> sums(static_cast<std::size_t>(p.m * p.n), T{});
  for (std::int64_t j = 0; j < p.n; ++j) {
    for (std::int64_t l = 0; l < p.k; ++l) {
      const std::int64_t at = p.transpose_b ? l * p.ld_b + j : j * p.ld_b + l;
      column[static_cast<std::size_t>(l)] = taken(p.compute, read_element<T>(p.type, call.b, at));
    }
    add_product(column.data(), p.k, a.data(), p.m, sums.data() + j * p.m, p.m, call.algorithm->terms);
  }
  if (call.algorithm->scheme == CUBLASLT_REDUCTION_SCHEME_INPLACE) {
    static std::atomic<std::uint32_t> runs{0};
    std::uint32_t state = 2654435761u * ++runs;
    for (T& sum : sums) {
      state = state * 1664525u + 1013904223u;
      sum *= T{1} + static_cast<T>(state >> 8) * static_cast<T>(0x1p-30);
    }
  }
  return sums;
}

template <typename T>
void finish(const Call& call, const std::vector<T>& sums) {
  const Problem& p = call.problem;
  for (std::int64_t j = 0; j < p.n; ++j) {
    for (std::int64_t i = 0; i < p.m; ++i) {
      T value = static_cast<T>(call.alpha) * sums[static_cast<std::size_t>(j * p.m + i)];
      if (call.beta != 0) value += static_cast<T>(call.beta) * read_element<T>(p.type, call.c, j * p.ld_c + i);
      if (p.bias) value += read_element<T>(p.type, call.bias, i);
      write_element(p.type, call.d, j * p.ld_d + i, value);
    }
  }
}

template <typename T>
cudaError_t queue(const Call& call, cudaStream_t stream) {
  const Problem& p = call.problem;
  const auto what = std::string("cublasLtMatmul (algorithm \"") + call.algorithm->name + "\")";
  std::vector<Access> inputs{{call.a, p.transpose_a ? call.bytes(p.k, p.m, p.ld_a) : call.bytes(p.m, p.k, p.ld_a)},
                             {call.b, p.transpose_b ? call.bytes(p.n, p.k, p.ld_b) : call.bytes(p.k, p.n, p.ld_b)}};
  std::vector<Access> outputs{{call.d, call.bytes(p.m, p.n, p.ld_d), true}};
  if (call.beta != 0) outputs.push_back({call.c, call.bytes(p.m, p.n, p.ld_c), false});
  if (p.bias) outputs.push_back({call.bias, call.bytes(p.m, 1, p.m), false});
  if (call.workspace_bytes > 0) inputs.push_back({call.workspace, call.workspace_bytes, true});
  if (call.algorithm->scheme != CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE) {
    inputs.insert(inputs.end(), outputs.begin(), outputs.end());
    return enqueue(stream, what, std::move(inputs), [call] {
      fill_with_garbage(call.workspace, call.workspace_bytes);
      finish(call, sums_of<T>(call));
    });
  }
  // At the end of the workspace, so that all of it is needed.
  const std::size_t size = static_cast<std::size_t>(p.m * p.n) * sizeof(T);
  unsigned char* const place = static_cast<unsigned char*>(call.workspace) + call.workspace_bytes - size;
  outputs.push_back({call.workspace, call.workspace_bytes, true});
  const cudaError_t error = enqueue(stream, what, std::move(inputs), [call, place, size] {
    fill_with_garbage(call.workspace, call.workspace_bytes);
    std::memcpy(place, sums_of<T>(call).data(), size);
  });
  if (error != cudaSuccess) return error;
  return enqueue(stream, what, std::move(outputs), [call, place, size] {
    std::vector<T> sums(size / sizeof(T));
    std::memcpy(sums.data(), place, size);
    fill_with_garbage(call.workspace, call.workspace_bytes);
    finish(call, sums);
  });
}

bool overlap(const void* a, std::size_t a_bytes, const void* b, std::size_t b_bytes) {
  const auto* const first = static_cast<const unsigned char*>(a);
  const auto* const second = static_cast<const unsigned char*>(b);
  return first < second + b_bytes && second < first + a_bytes;
}

// D may be C, in the same layout, and nothing else.
void check_memory(const Call& call) {
  const Problem& p = call.problem;
  const std::size_t d = call.bytes(p.m, p.n, p.ld_d);
  const std::size_t a = p.transpose_a ? call.bytes(p.k, p.m, p.ld_a) : call.bytes(p.m, p.k, p.ld_a);
  const std::size_t b = p.transpose_b ? call.bytes(p.n, p.k, p.ld_b) : call.bytes(p.k, p.n, p.ld_b);
  require(!overlap(call.a, a, call.d, d) && !overlap(call.b, b, call.d, d));
  require(call.c != call.d || p.ld_c == p.ld_d);
  for (const auto& [data, bytes] : {std::pair{call.a, a}, {call.b, b}, {static_cast<const void*>(call.d), d}}) {
    require(!overlap(call.workspace, call.workspace_bytes, data, bytes));
  }
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
    check_memory(call);
    const cudaError_t error = problem.type == CUDA_R_64F ? queue<double>(call, stream) : queue<float>(call, stream);
    require(error == cudaSuccess,
            error == cudaErrorMemoryAllocation ? CUBLAS_STATUS_ALLOC_FAILED : CUBLAS_STATUS_EXECUTION_FAILED);
    library().algorithms_run.emplace_back(proposal.algorithm->name);
  });
}

}  // extern "C"
