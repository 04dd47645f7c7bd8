// What the stand-in for cuBLASLt computes, against a direct evaluation in f64, and what it refuses.
#include "tests/device/cublas.h"

#include <cublasLt.h>
#include <gmock/gmock.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <functional>
#include <string>
#include <vector>

#include "tests/device/device_array.h"

namespace retort::standin {
namespace {

using testing::Contains;
using testing::ElementsAre;
using testing::Not;

cudaDataType_t cuda_type(Number type) {
  switch (type) {
    case Number::f64:
      return CUDA_R_64F;
    case Number::f32:
      return CUDA_R_32F;
    case Number::bf16:
      return CUDA_R_16BF;
    default:
      return CUDA_R_16F;
  }
}

// D [m, n] = alpha op(A) op(B) + beta C (+ bias), column-major.
struct Wanted {
  Number type = Number::f32;
  cublasComputeType_t compute = CUBLAS_COMPUTE_32F;
  std::int64_t m = 5, n = 4, k = 7;
  bool transpose_a = false, transpose_b = false, bias = false;
  std::int64_t gap = 0;  // of the leading dimensions beyond the rows
  double alpha = 1, beta = 0;
  std::uint32_t alignment = 8, schemes = CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE;
  std::uint64_t workspace_limit = 1 << 20;
};

// The descriptors of a product; what a test wants wrong it changes in them.
struct Described {
  explicit Described(const Wanted& w) : wanted(w) {
    const auto type = cuda_type(w.type);
    status = cublasLtMatmulDescCreate(&operation, w.compute, w.type == Number::f64 ? CUDA_R_64F : CUDA_R_32F);
    rows_a = w.transpose_a ? w.k : w.m;
    rows_b = w.transpose_b ? w.n : w.k;
    make(a, type, rows_a, w.transpose_a ? w.m : w.k, rows_a + w.gap);
    make(b, type, rows_b, w.transpose_b ? w.k : w.n, rows_b + w.gap);
    make(d, type, w.m, w.n, w.m + w.gap);
    set(CUBLASLT_MATMUL_DESC_TRANSA, std::int32_t{w.transpose_a ? CUBLAS_OP_T : CUBLAS_OP_N});
    set(CUBLASLT_MATMUL_DESC_TRANSB, std::int32_t{w.transpose_b ? CUBLAS_OP_T : CUBLAS_OP_N});
    if (w.bias) set(CUBLASLT_MATMUL_DESC_EPILOGUE, std::uint32_t{CUBLASLT_EPILOGUE_BIAS});
    EXPECT_EQ(cublasLtMatmulPreferenceCreate(&preference), CUBLAS_STATUS_SUCCESS);
    prefer(CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, w.workspace_limit);
    prefer(CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, w.schemes);
    for (const auto name : {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES,
                            CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES}) {
      prefer(name, w.alignment);
    }
  }
  ~Described() {
    EXPECT_EQ(cublasLtMatmulDescDestroy(operation), CUBLAS_STATUS_SUCCESS);
    for (const auto layout : {a, b, d}) EXPECT_EQ(cublasLtMatrixLayoutDestroy(layout), CUBLAS_STATUS_SUCCESS);
    EXPECT_EQ(cublasLtMatmulPreferenceDestroy(preference), CUBLAS_STATUS_SUCCESS);
  }
  Described(const Described&) = delete;
  Described& operator=(const Described&) = delete;

  static void make(cublasLtMatrixLayout_t& layout, cudaDataType_t type, std::int64_t rows, std::int64_t columns,
                   std::int64_t leading) {
    if (layout != nullptr) {
      EXPECT_EQ(cublasLtMatrixLayoutDestroy(layout), CUBLAS_STATUS_SUCCESS);
    }
    EXPECT_EQ(cublasLtMatrixLayoutCreate(&layout, type, static_cast<std::uint64_t>(rows),
                                         static_cast<std::uint64_t>(columns), leading),
              CUBLAS_STATUS_SUCCESS);
  }
  template <typename T>
  void set(cublasLtMatmulDescAttributes_t name, T value) {
    EXPECT_EQ(cublasLtMatmulDescSetAttribute(operation, name, &value, sizeof value), CUBLAS_STATUS_SUCCESS);
  }
  template <typename T>
  void prefer(cublasLtMatmulPreferenceAttributes_t name, T value) {
    EXPECT_EQ(cublasLtMatmulPreferenceSetAttribute(preference, name, &value, sizeof value), CUBLAS_STATUS_SUCCESS);
  }

  Wanted wanted;
  cublasStatus_t status;
  std::int64_t rows_a, rows_b;
  cublasLtMatmulDesc_t operation = nullptr;
  cublasLtMatrixLayout_t a = nullptr, b = nullptr, d = nullptr;
  cublasLtMatmulPreference_t preference = nullptr;
};

class CublasStandIn : public testing::Test {
 protected:
  CublasStandIn() {
    EXPECT_EQ(cublasLtCreate(&handle_), CUBLAS_STATUS_SUCCESS);
    take_algorithms_run();
  }
  ~CublasStandIn() override {
    EXPECT_EQ(cublasLtDestroy(handle_), CUBLAS_STATUS_SUCCESS);
    EXPECT_EQ(live_cublas_objects(), 0u);
  }

  std::vector<cublasLtMatmulHeuristicResult_t> propose(const Described& p, cublasStatus_t expected = {}) {
    std::vector<cublasLtMatmulHeuristicResult_t> results(8);
    int count = 0;
    EXPECT_EQ(cublasLtMatmulAlgoGetHeuristic(handle_, p.operation, p.a, p.b, p.d, p.d, p.preference, 8, results.data(),
                                             &count),
              expected);
    results.resize(static_cast<std::size_t>(count));
    return results;
  }

  // The operands of a product on the device, at `shift` bytes from an aligned address.
  struct Operands {
    Operands(const DeviceStream& stream, const Wanted& w, std::size_t shift = 0)
        : type(w.type),
          a_values(values(w, w.transpose_a ? w.k : w.m, w.transpose_a ? w.m : w.k, 1)),
          b_values(values(w, w.transpose_b ? w.n : w.k, w.transpose_b ? w.k : w.n, 2)),
          d_values(values(w, w.m, w.n, 3)),
          bias_values(random_values(w.type, w.m, 4)),
          a(stream, a_values, type, shift),
          b(stream, b_values, type, shift),
          d(stream, d_values, type, shift),
          bias(stream, bias_values, type, shift) {}

    static std::vector<double> values(const Wanted& w, std::int64_t rows, std::int64_t columns, std::uint32_t seed) {
      return random_values(w.type, (columns - 1) * (rows + w.gap) + rows, seed);
    }

    struct Operand {
      Operand(const DeviceStream& stream, const std::vector<double>& v, Number number, std::size_t offset)
          : bytes(stream, v.size() * size_of(number) + offset), shift(offset) {
        bytes.write(encode(number, v), offset);
      }
      void* data() const { return bytes.data(shift); }
      DeviceBytes bytes;
      std::size_t shift;
    };

    Number type;
    std::vector<double> a_values, b_values, d_values, bias_values;
    Operand a, b, d, bias;
  };

  cublasStatus_t multiply(Described& p, const cublasLtMatmulHeuristicResult_t& algorithm, const Operands& o,
                          void* workspace, std::size_t workspace_bytes) {
    if (p.wanted.bias) p.set(CUBLASLT_MATMUL_DESC_BIAS_POINTER, static_cast<const void*>(o.bias.data()));
    const std::array<float, 2> singles{static_cast<float>(p.wanted.alpha), static_cast<float>(p.wanted.beta)};
    const std::array<double, 2> doubles{p.wanted.alpha, p.wanted.beta};
    const bool wide = p.wanted.type == Number::f64;
    const void* alpha = wide ? static_cast<const void*>(&doubles[0]) : &singles[0];
    const void* beta = wide ? static_cast<const void*>(&doubles[1]) : &singles[1];
    return cublasLtMatmul(handle_, p.operation, alpha, o.a.data(), p.a, o.b.data(), p.b, beta, o.d.data(), p.d,
                          o.d.data(), p.d, &algorithm.algo, workspace, workspace_bytes, stream_.get());
  }

  static std::vector<double> evaluate(const Wanted& w, const Operands& o) {
    std::vector<double> d = o.d_values;
    const std::int64_t ld_a = (w.transpose_a ? w.k : w.m) + w.gap, ld_b = (w.transpose_b ? w.n : w.k) + w.gap;
    for (std::int64_t i = 0; i < w.m; ++i) {
      for (std::int64_t j = 0; j < w.n; ++j) {
        double sum = 0;
        for (std::int64_t l = 0; l < w.k; ++l) {
          sum += o.a_values[static_cast<std::size_t>(w.transpose_a ? i * ld_a + l : l * ld_a + i)] *
                 o.b_values[static_cast<std::size_t>(w.transpose_b ? l * ld_b + j : j * ld_b + l)];
        }
        double& result = d[static_cast<std::size_t>(j * (w.m + w.gap) + i)];
        result = w.alpha * sum + w.beta * result + (w.bias ? o.bias_values[static_cast<std::size_t>(i)] : 0.0);
      }
    }
    return d;
  }

  // Runs every algorithm that is proposed and gives the largest error of those that run, relative to the largest value.
  double largest_error(const Wanted& w) {
    Described described(w);
    double error = 0;
    for (const auto& algorithm : propose(described)) {
      const Operands operands(stream_, w);
      const DeviceBytes workspace(stream_, algorithm.workspaceSize);
      if (multiply(described, algorithm, operands, workspace.data(), algorithm.workspaceSize) !=
          CUBLAS_STATUS_SUCCESS) {
        continue;
      }
      const auto got = decode(w.type, operands.d.bytes.read()), want = evaluate(w, operands);
      double scale = 0;
      for (const double value : want) scale = std::max(scale, std::abs(value));
      for (std::size_t i = 0; i < want.size(); ++i) {
        error = std::isfinite(got[i]) ? std::max(error, std::abs(got[i] - want[i]) / scale) : INFINITY;
      }
    }
    return error;
  }

  DeviceStream stream_;
  cublasLtHandle_t handle_ = nullptr;
};

TEST_F(CublasStandIn, MultipliesInEveryTypeWithLeadingDimensionsScalesAndBias) {
  for (const auto& [type, compute, bound] : {std::tuple{Number::f64, CUBLAS_COMPUTE_64F, 1e-14},
                                             {Number::f32, CUBLAS_COMPUTE_32F, 1e-6},
                                             {Number::f32, CUBLAS_COMPUTE_32F_PEDANTIC, 1e-6},
                                             {Number::bf16, CUBLAS_COMPUTE_32F, 4e-3}}) {
    for (const bool transpose_a : {false, true}) {
      for (const bool transpose_b : {false, true}) {
        Wanted w{type, compute, 35, 19, 70, transpose_a, transpose_b, false, 3};
        w.alignment = static_cast<std::uint32_t>(size_of(type));
        EXPECT_LE(largest_error(w), bound);
        w.bias = true;
        w.alpha = -0.5;
        w.beta = 2;
        EXPECT_LE(largest_error(w), bound);
        EXPECT_THAT(take_algorithms_run(),
                    testing::UnorderedElementsAre("split", "plain", "small", "split", "plain", "small"));
      }
    }
  }
}

TEST_F(CublasStandIn, FastTf32DropsTheLowerBitsOfItsInputs) {
  Wanted w;
  w.compute = CUBLAS_COMPUTE_32F_FAST_TF32;
  const double error = largest_error(w);
  EXPECT_GT(error, 1e-5);
  EXPECT_LE(error, 1e-3);
}

TEST_F(CublasStandIn, ReducesInPlaceOnlyWhereThatIsAllowedAndThenInNoOrder) {
  Wanted w;
  EXPECT_THAT(propose(Described(w)), testing::SizeIs(4));
  w.schemes = CUBLASLT_REDUCTION_SCHEME_MASK;
  Described described(w);
  const auto first = propose(described).front();
  const Operands one(stream_, w), other(stream_, w);
  EXPECT_EQ(multiply(described, first, one, nullptr, 0), CUBLAS_STATUS_SUCCESS);
  EXPECT_EQ(multiply(described, first, other, nullptr, 0), CUBLAS_STATUS_SUCCESS);
  EXPECT_NE(one.d.bytes.read(), other.d.bytes.read());
  EXPECT_THAT(take_algorithms_run(), ElementsAre("in place", "in place"));
}

TEST_F(CublasStandIn, OffersNothingThatNeedsMoreWorkspaceThanAllowed) {
  Wanted w;
  w.workspace_limit = 64;
  for (const auto& algorithm : propose(Described(w))) EXPECT_LE(algorithm.workspaceSize, 64u);
}

TEST_F(CublasStandIn, FillsAllOfItsWorkspace) {
  const Wanted w;
  Described described(w);
  for (const auto& algorithm : propose(described)) {
    const Operands operands(stream_, w);
    DeviceBytes workspace(stream_, algorithm.workspaceSize + 1);
    const std::vector<unsigned char> marks(algorithm.workspaceSize + 1, 7);
    workspace.write(marks);
    if (multiply(described, algorithm, operands, workspace.data(), algorithm.workspaceSize) != CUBLAS_STATUS_SUCCESS) {
      continue;
    }
    const auto after = workspace.read();
    EXPECT_EQ(std::count(after.begin(), after.end(), 7), 1);
    EXPECT_EQ(after.back(), 7);
  }
}

// Descriptions that are wrong in one point: what the heuristics answer.
TEST_F(CublasStandIn, RefusesWrongDescriptions) {
  const auto refused = [&](const char* what, cublasStatus_t expected, const std::function<void(Described&)>& change,
                           const Wanted& wanted = {}) {
    SCOPED_TRACE(what);
    Described described(wanted);
    change(described);
    EXPECT_THAT(propose(described, expected), testing::IsEmpty());
  };
  constexpr auto kInvalid = CUBLAS_STATUS_INVALID_VALUE, kNone = CUBLAS_STATUS_NOT_SUPPORTED;
  refused("leading dimension of A", kInvalid, [](Described& p) { p.make(p.a, CUDA_R_32F, 5, 7, 4); });
  refused("leading dimension of B", kInvalid, [](Described& p) { p.make(p.b, CUDA_R_32F, 7, 4, 6); });
  refused("leading dimension of D", kInvalid, [](Described& p) { p.make(p.d, CUDA_R_32F, 5, 4, 4); });
  refused("sum of A and B", kInvalid, [](Described& p) { p.make(p.b, CUDA_R_32F, 8, 4, 8); });
  refused("rows of A and D", kInvalid, [](Described& p) { p.make(p.a, CUDA_R_32F, 6, 7, 6); });
  refused("columns of B and D", kInvalid, [](Described& p) { p.make(p.b, CUDA_R_32F, 7, 5, 7); });
  refused("transposition of A", kInvalid, [](Described& p) { p.set(CUBLASLT_MATMUL_DESC_TRANSA, CUBLAS_OP_T); });
  refused("transposition of B", kInvalid, [](Described& p) { p.set(CUBLASLT_MATMUL_DESC_TRANSB, CUBLAS_OP_T); });
  refused("nothing to do", kInvalid, [](Described& p) { p.make(p.d, CUDA_R_32F, 0, 4, 1); });
  refused("more than 62 bits", kInvalid, [](Described& p) { p.make(p.d, CUDA_R_32F, -1, 4, 1); });
  refused("types apart", kNone, [](Described& p) { p.make(p.b, CUDA_R_16BF, 7, 4, 7); });
  refused("an epilogue", kNone, [](Described& p) { p.set(CUBLASLT_MATMUL_DESC_EPILOGUE, CUBLASLT_EPILOGUE_RELU); });
  refused("f32 bias of a bf16 result", kNone,
          [](Described& p) { p.set(CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE, std::int32_t{CUDA_R_32F}); },
          {Number::bf16, CUBLAS_COMPUTE_32F, 5, 4, 7, false, false, true});
  refused("f64 data added up in f32", kNone, [](Described&) {}, {Number::f64, CUBLAS_COMPUTE_32F});
  refused("f32 data added up in f64", kNone, [](Described&) {}, {Number::f32, CUBLAS_COMPUTE_64F});
  refused("bf16 data in tf32", kNone, [](Described&) {}, {Number::bf16, CUBLAS_COMPUTE_32F_FAST_TF32});
  refused("halves", kNone, [](Described&) {}, {Number::f16, CUBLAS_COMPUTE_16F});
  refused("alignment below that of an element", kNone,
          [](Described& p) { p.prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, std::uint32_t{2}); });
}

TEST_F(CublasStandIn, RefusesAttributesThatItDoesNotModel) {
  Described p{Wanted{}};
  const auto layout = [&](cublasLtMatrixLayoutAttribute_t name, auto value) {
    return cublasLtMatrixLayoutSetAttribute(p.a, name, &value, sizeof value);
  };
  EXPECT_EQ(layout(CUBLASLT_MATRIX_LAYOUT_ORDER, std::int32_t{CUBLASLT_ORDER_COL}), CUBLAS_STATUS_SUCCESS);
  EXPECT_EQ(layout(CUBLASLT_MATRIX_LAYOUT_ORDER, std::int32_t{CUBLASLT_ORDER_ROW}), CUBLAS_STATUS_NOT_SUPPORTED);
  EXPECT_EQ(layout(CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT, std::int32_t{2}), CUBLAS_STATUS_NOT_SUPPORTED);
  EXPECT_EQ(layout(CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT, std::int64_t{1}), CUBLAS_STATUS_INVALID_VALUE);
  const std::int64_t wide = CUBLAS_OP_T;
  EXPECT_EQ(cublasLtMatmulDescSetAttribute(p.operation, CUBLASLT_MATMUL_DESC_TRANSA, &wide, sizeof wide),
            CUBLAS_STATUS_INVALID_VALUE);
  EXPECT_EQ(cublasLtMatmulDescSetAttribute(p.operation, CUBLASLT_MATMUL_DESC_TRANSA, nullptr, 4),
            CUBLAS_STATUS_INVALID_VALUE);
}

// Calls that are wrong in one point, of a product that is right.
TEST_F(CublasStandIn, RefusesWrongCalls) {
  Wanted w;
  w.alignment = 16;
  Described described(w);
  const auto algorithms = propose(described);
  ASSERT_THAT(algorithms, testing::SizeIs(4));
  const auto &broken = algorithms[0], &split = algorithms[1];
  const Operands right(stream_, w), shifted(stream_, w, 8);
  const DeviceBytes workspace(stream_, split.workspaceSize);
  constexpr auto kInvalid = CUBLAS_STATUS_INVALID_VALUE;
  EXPECT_EQ(multiply(described, broken, right, workspace.data(), broken.workspaceSize), CUBLAS_STATUS_NOT_SUPPORTED);
  EXPECT_EQ(multiply(described, split, right, workspace.data(), split.workspaceSize), CUBLAS_STATUS_SUCCESS);
  EXPECT_EQ(multiply(described, split, right, workspace.data(), split.workspaceSize - 1), kInvalid);
  EXPECT_EQ(multiply(described, split, right, nullptr, split.workspaceSize), kInvalid);
  EXPECT_EQ(multiply(described, split, right, workspace.data(4), split.workspaceSize), kInvalid);
  EXPECT_EQ(multiply(described, split, shifted, workspace.data(), split.workspaceSize), kInvalid);
  EXPECT_EQ(multiply(described, split, right, right.d.data(), split.workspaceSize), kInvalid);
  auto unknown = split;
  unknown.algo.data[0] = 1 << 30;
  EXPECT_EQ(multiply(described, unknown, right, workspace.data(), split.workspaceSize), kInvalid);
  Described other(Wanted{Number::f32, CUBLAS_COMPUTE_32F, 5, 4, 6});
  EXPECT_EQ(multiply(other, split, right, workspace.data(), split.workspaceSize), kInvalid);
  Described pedantic(Wanted{Number::f32, CUBLAS_COMPUTE_32F_PEDANTIC});
  EXPECT_EQ(multiply(pedantic, split, right, workspace.data(), split.workspaceSize), kInvalid);
  EXPECT_THAT(take_algorithms_run(), ElementsAre("split"));
}

TEST_F(CublasStandIn, ExpectsTheAlignmentOfTheBiasThatItWasProposedFor) {
  Wanted w;
  w.bias = true;
  w.alignment = 4;
  Described described(w);
  const Operands right(stream_, w), shifted(stream_, w, 4);
  described.set(CUBLASLT_MATMUL_DESC_BIAS_POINTER, static_cast<const void*>(right.bias.data()));
  const auto algorithm = propose(described).back();
  EXPECT_EQ(multiply(described, algorithm, right, nullptr, 0), CUBLAS_STATUS_SUCCESS);
  EXPECT_EQ(multiply(described, algorithm, shifted, nullptr, 0), CUBLAS_STATUS_INVALID_VALUE);
}

TEST_F(CublasStandIn, RefusesWhatWasDestroyed) {
  cublasLtMatrixLayout_t layout = nullptr;
  ASSERT_EQ(cublasLtMatrixLayoutCreate(&layout, CUDA_R_32F, 1, 1, 1), CUBLAS_STATUS_SUCCESS);
  EXPECT_EQ(cublasLtMatrixLayoutDestroy(layout), CUBLAS_STATUS_SUCCESS);
  EXPECT_EQ(cublasLtMatrixLayoutDestroy(layout), CUBLAS_STATUS_INVALID_VALUE);
}

}  // namespace
}  // namespace retort::standin
