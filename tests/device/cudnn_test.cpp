// What the stand-in for cuDNN computes, against a direct evaluation of the definition in f64, and how its engines differ.
#include "tests/device/cudnn.h"

#include <gmock/gmock.h>

#include <algorithm>
#include <cmath>
#include <memory>

#include "tests/device/cudnn_graphs.h"
#include "tests/device/device_array.h"

namespace retort::standin {
namespace {

Number number_of(cudnnDataType_t type) {
  switch (type) {
    case CUDNN_DATA_DOUBLE:
      return Number::f64;
    case CUDNN_DATA_FLOAT:
      return Number::f32;
    case CUDNN_DATA_BFLOAT16:
      return Number::bf16;
    default:
      return Number::f16;
  }
}

// Elements of a tensor by N, C, H, W, whatever its strides.
struct Elements {
  Four dims, strides;
  std::vector<double> values;

  double& at(std::int64_t a, std::int64_t b, std::int64_t c, std::int64_t d) {
    return values[static_cast<std::size_t>(a * strides[0] + b * strides[1] + c * strides[2] + d * strides[3])];
  }
};

std::int64_t reach(const TensorSpec& t) {
  std::int64_t last = 0;
  for (std::size_t i = 0; i < 4; ++i) last += (t.dims[i] - 1) * t.strides[i];
  return last + 1;
}

// Tensors on the device and what is in them.
class Memory {
 public:
  explicit Memory(const DeviceStream& stream) : stream_(stream) {}

  void fill(const TensorSpec& t, std::uint32_t seed) {
    const Number type = number_of(t.type);
    Elements e{t.dims, t.strides, random_values(type, reach(t), seed)};
    auto bytes = std::make_unique<DeviceBytes>(stream_, e.values.size() * size_of(type));
    bytes->write(encode(type, e.values));
    pointers[t.id] = bytes->data();
    held_[t.id] = std::move(bytes);
    before.insert_or_assign(t.id, std::move(e));
  }
  Elements read(const TensorSpec& t) const {
    return {t.dims, t.strides, decode(number_of(t.type), held_.at(t.id)->read())};
  }

  std::map<std::int64_t, void*> pointers;
  std::map<std::int64_t, Elements> before;

 private:
  const DeviceStream& stream_;
  std::map<std::int64_t, std::unique_ptr<DeviceBytes>> held_;
};

TensorSpec tensor(std::int64_t id, cudnnDataType_t type, const Four& dims, bool channels_first = false) {
  return {id, type, dims, channels_first ? channels_first_strides(dims) : channels_last_strides(dims), 8, false};
}

struct Shape {
  const char* name;
  Four x, w;
  Two stride{1, 1}, pre{0, 0}, post{0, 0}, dilation{1, 1};
};

ConvSpec spec_of(const Shape& s, cudnnDataType_t type, ConvSpec::Direction direction, bool channels_first = false) {
  ConvSpec c;
  c.direction = direction;
  c.stride = s.stride;
  c.pre = s.pre;
  c.post = s.post;
  c.dilation = s.dilation;
  c.compute = type == CUDNN_DATA_DOUBLE ? CUDNN_DATA_DOUBLE : CUDNN_DATA_FLOAT;
  Four y{s.x[0], s.w[0], 0, 0};
  for (std::size_t i = 0; i < 2; ++i) {
    std::int64_t count = 0;  // positions at which the dilated filter fits
    while (count * s.stride[i] + s.dilation[i] * (s.w[2 + i] - 1) < s.x[2 + i] + s.pre[i] + s.post[i]) ++count;
    y[2 + i] = count;
  }
  c.x = tensor(1, type, s.x, channels_first);
  c.w = tensor(2, type, s.w, channels_first);
  c.y = tensor(3, type, y, channels_first);
  return c;
}

const TensorSpec& result_of(const ConvSpec& c) {
  return c.direction == ConvSpec::forward ? c.y : c.direction == ConvSpec::data ? c.x : c.w;
}

// The definition, one product after the other: y[n, k, p, q] += x[n, g C + c, h, w] w[k, c, r, s].
Elements evaluate(const ConvSpec& c, std::map<std::int64_t, Elements> m) {
  Elements result = m.at(result_of(c).id), sums = result;
  std::fill(sums.values.begin(), sums.values.end(), 0.0);
  Elements &x = m.at(1), &w = m.at(2), &y = m.at(3);
  const std::int64_t groups = c.x.dims[1] / c.w.dims[1], filters = c.w.dims[0] / groups;
  for (std::int64_t n = 0; n < c.y.dims[0]; ++n) {
    for (std::int64_t k = 0; k < c.y.dims[1]; ++k) {
      for (std::int64_t p = 0; p < c.y.dims[2]; ++p) {
        for (std::int64_t q = 0; q < c.y.dims[3]; ++q) {
          for (std::int64_t r = 0; r < c.w.dims[2]; ++r) {
            for (std::int64_t s = 0; s < c.w.dims[3]; ++s) {
              const std::int64_t row = p * c.stride[0] + r * c.dilation[0] - c.pre[0];
              const std::int64_t column = q * c.stride[1] + s * c.dilation[1] - c.pre[1];
              if (row < 0 || column < 0 || row >= c.x.dims[2] || column >= c.x.dims[3]) continue;
              const bool flip = c.mode == CUDNN_CONVOLUTION;
              const std::int64_t i = flip ? c.w.dims[2] - 1 - r : r, j = flip ? c.w.dims[3] - 1 - s : s;
              for (std::int64_t channel = 0; channel < c.w.dims[1]; ++channel) {
                const std::int64_t input = k / filters * c.w.dims[1] + channel;
                if (c.direction == ConvSpec::forward) {
                  sums.at(n, k, p, q) += x.at(n, input, row, column) * w.at(k, channel, i, j);
                } else if (c.direction == ConvSpec::data) {
                  sums.at(n, input, row, column) += y.at(n, k, p, q) * w.at(k, channel, i, j);
                } else {
                  sums.at(k, channel, i, j) += x.at(n, input, row, column) * y.at(n, k, p, q);
                }
              }
            }
          }
        }
      }
    }
  }
  for (std::size_t i = 0; i < result.values.size(); ++i) {
    result.values[i] = c.alpha * sums.values[i] + c.beta * result.values[i];
  }
  return result;
}

double error_of(const Elements& got, const Elements& want) {
  double error = 0, scale = 0;
  for (std::size_t i = 0; i < want.values.size(); ++i) {
    if (!std::isfinite(got.values[i])) return INFINITY;
    error = std::max(error, std::abs(got.values[i] - want.values[i]));
    scale = std::max(scale, std::abs(want.values[i]));
  }
  return error / scale;
}

double bound_of(cudnnDataType_t type) {
  switch (type) {
    case CUDNN_DATA_DOUBLE:
      return 1e-14;
    case CUDNN_DATA_FLOAT:
      return 1e-6;
    case CUDNN_DATA_BFLOAT16:
      return 4e-3;
    default:
      return 5e-4;
  }
}

class CudnnStandIn : public testing::Test {
 protected:
  CudnnStandIn() {
    EXPECT_EQ(cudnnCreate(&handle_), CUDNN_STATUS_SUCCESS);
    EXPECT_EQ(cudnnSetStream(handle_, stream_.get()), CUDNN_STATUS_SUCCESS);
  }
  ~CudnnStandIn() override { EXPECT_EQ(cudnnDestroy(handle_), CUDNN_STATUS_SUCCESS); }

  // The relative error of what the engine computes; NaN where it cannot.
  double run(const ConvSpec& c, std::int64_t engine, std::vector<unsigned char>* bytes = nullptr) {
    GraphOf graph(c);
    EXPECT_EQ(graph.status(), CUDNN_STATUS_SUCCESS) << graph.error();
    const PlanOf plan(graph, engine);
    Memory memory(stream_);
    for (const TensorSpec* t : {&c.x, &c.w, &c.y}) memory.fill(*t, static_cast<std::uint32_t>(t->id));
    const DeviceBytes workspace(stream_, plan.workspace_bytes());
    if (plan.execute(handle_, memory.pointers, workspace.data()) != CUDNN_STATUS_SUCCESS) return NAN;
    const Elements got = memory.read(result_of(c));
    if (bytes != nullptr) *bytes = encode(Number::f64, got.values);
    return error_of(got, evaluate(c, memory.before));
  }

  DeviceStream stream_;
  cudnnHandle_t handle_ = nullptr;
};

const Shape kShapes[] = {
    {"1x1", {2, 5, 3, 4}, {7, 5, 1, 1}},
    {"3x3", {2, 4, 6, 5}, {3, 4, 3, 3}, {1, 1}, {1, 1}, {1, 1}},
    {"strides apart", {1, 3, 9, 8}, {4, 3, 3, 2}, {2, 3}, {1, 0}, {1, 0}},
    {"paddings apart", {1, 3, 5, 6}, {4, 3, 2, 3}, {1, 2}, {2, 0}, {0, 1}},
    {"dilations apart", {2, 2, 9, 11}, {3, 2, 3, 3}, {1, 1}, {2, 1}, {1, 3}, {2, 3}},
    {"groups", {2, 6, 5, 4}, {9, 2, 3, 3}, {2, 1}, {1, 1}, {1, 1}},
    {"depthwise", {1, 8, 6, 6}, {8, 1, 3, 3}, {1, 1}, {1, 1}, {1, 1}},
    {"wide", {2, 70, 3, 3}, {65, 70, 3, 3}, {1, 1}, {1, 1}, {1, 1}},
};

TEST_F(CudnnStandIn, ComputesTheDefinitionInEveryDirectionTypeAndLayout) {
  for (const Shape& shape : kShapes) {
    for (const auto type : {CUDNN_DATA_DOUBLE, CUDNN_DATA_FLOAT, CUDNN_DATA_BFLOAT16, CUDNN_DATA_HALF}) {
      for (const auto direction : {ConvSpec::forward, ConvSpec::data, ConvSpec::weights}) {
        for (const bool channels_first : {false, true}) {
          const ConvSpec c = spec_of(shape, type, direction, channels_first);
          for (const std::int64_t engine : {10, 8, 20}) {
            EXPECT_LE(run(c, engine), bound_of(type)) << shape.name << ", type " << type << ", direction " << direction;
          }
        }
      }
    }
  }
}

TEST_F(CudnnStandIn, TurnsTheFilterForConvolutionAsOpposedToCrossCorrelation) {
  for (const auto direction : {ConvSpec::forward, ConvSpec::data, ConvSpec::weights}) {
    ConvSpec c = spec_of(kShapes[3], CUDNN_DATA_FLOAT, direction);
    c.mode = CUDNN_CONVOLUTION;
    EXPECT_LE(run(c, 10), 1e-6) << direction;
  }
}

TEST_F(CudnnStandIn, ScalesAndAddsToWhatWasThere) {
  for (const auto type : {CUDNN_DATA_DOUBLE, CUDNN_DATA_FLOAT, CUDNN_DATA_BFLOAT16}) {
    for (const auto direction : {ConvSpec::forward, ConvSpec::data, ConvSpec::weights}) {
      ConvSpec c = spec_of(kShapes[1], type, direction);
      c.alpha = -0.75;
      c.beta = 1.5;
      for (const std::int64_t engine : {10, 8}) EXPECT_LE(run(c, engine), bound_of(type)) << direction;
    }
  }
}

// --- what follows the convolution -----------------------------------------------------------------------------------

struct Chain {
  bool residual, bias, relu;
  double upper = INFINITY;
};

class CudnnChain : public CudnnStandIn {
 protected:
  // y = act(conv + residual + bias) by the engine, and by hand.
  void expect_chain(const Chain& chain, cudnnDataType_t type, cudnnDataType_t between, std::int64_t engine) {
    ConvSpec c = spec_of(kShapes[1], type, ConvSpec::forward);
    const TensorSpec y = tensor(3, type, c.y.dims);
    TensorSpec residual = tensor(4, type, c.y.dims), bias = tensor(5, type, {1, c.y.dims[1], 1, 1});
    std::vector<StepSpec> steps;
    if (chain.residual) steps.push_back({CUDNN_POINTWISE_ADD, {residual}, {}, {}});
    if (chain.bias) steps.push_back({CUDNN_POINTWISE_ADD, {bias}, {}, {}});
    if (chain.relu) steps.push_back({CUDNN_POINTWISE_RELU_FWD, {}, {}, {}});
    if (std::isfinite(chain.upper)) steps.back().clips[CUDNN_ATTR_POINTWISE_RELU_UPPER_CLIP] = chain.upper;
    c.y = tensor(10, between, y.dims);
    c.y.is_virtual = true;
    for (std::size_t i = 0; i < steps.size(); ++i) {
      steps[i].y = i + 1 == steps.size() ? y : tensor(11 + static_cast<std::int64_t>(i), between, y.dims);
      steps[i].y.is_virtual = i + 1 < steps.size();
    }
    GraphOf graph(c, steps);
    ASSERT_EQ(graph.status(), CUDNN_STATUS_SUCCESS) << graph.error();
    const PlanOf plan(graph, engine);
    ASSERT_EQ(plan.status(), CUDNN_STATUS_SUCCESS);
    Memory memory(stream_);
    memory.fill(c.x, 1);
    memory.fill(c.w, 2);
    memory.fill(y, 3);
    if (chain.residual) memory.fill(residual, 4);
    if (chain.bias) memory.fill(bias, 5);
    const DeviceBytes workspace(stream_, plan.workspace_bytes());
    ASSERT_EQ(plan.execute(handle_, memory.pointers, workspace.data()), CUDNN_STATUS_SUCCESS);
    ConvSpec alone = c;
    alone.y = y;
    Elements want = evaluate(alone, memory.before);
    for (std::size_t i = 0; i < want.values.size(); ++i) {
      double& value = want.values[i];
      if (chain.residual) value += memory.before.at(4).values[i];
      if (chain.bias) value += memory.before.at(5).values[i % static_cast<std::size_t>(y.dims[1])];
      if (chain.relu) value = std::clamp(value, 0.0, chain.upper);
    }
    EXPECT_LE(error_of(memory.read(y), want), bound_of(type)) << chain.residual << chain.bias << chain.relu;
  }
};

TEST_F(CudnnChain, AddsResidualAndBiasAndClips) {
  for (const Chain& chain : {Chain{false, true, false},
                             {false, false, true},
                             {false, true, true},
                             {true, true, false},
                             {true, true, true},
                             {true, true, true, 0.5}}) {
    for (const std::int64_t engine : {10, 8}) {
      expect_chain(chain, CUDNN_DATA_DOUBLE, CUDNN_DATA_DOUBLE, engine);
      expect_chain(chain, CUDNN_DATA_FLOAT, CUDNN_DATA_FLOAT, engine);
      expect_chain(chain, CUDNN_DATA_BFLOAT16, CUDNN_DATA_FLOAT, engine);
    }
  }
}

// --- engines --------------------------------------------------------------------------------------------------------

TEST_F(CudnnStandIn, EnginesAreAsGoodAsTheirNotesSay) {
  const ConvSpec f32 = spec_of(kShapes[7], CUDNN_DATA_FLOAT, ConvSpec::forward);
  EXPECT_LE(run(f32, 10), 1e-6);
  const double tensor_core = run(f32, 6), winograd = run(f32, 7), reduced = run(f32, 5), halves = run(f32, 1);
  EXPECT_TRUE(tensor_core > 5e-5 && tensor_core < 2e-3) << tensor_core;
  EXPECT_TRUE(winograd > 2e-6 && winograd < 1e-5) << winograd;
  EXPECT_TRUE(reduced > 1e-3 && reduced < 1e-2) << reduced;
  EXPECT_TRUE(halves > 1e-3 && halves < 1e-2) << halves;
  const ConvSpec bf16 = spec_of(kShapes[7], CUDNN_DATA_BFLOAT16, ConvSpec::forward);
  EXPECT_EQ(run(bf16, 6), run(bf16, 10));  // tensor cores take bf16 as it is
  EXPECT_LE(run(bf16, 5), 8e-3);
  EXPECT_GT(run(bf16, 1), 1e-2);
  EXPECT_LE(run(spec_of(kShapes[7], CUDNN_DATA_DOUBLE, ConvSpec::forward), 6), 1e-14);
}

TEST_F(CudnnStandIn, RepeatsToTheBitButForTheNondeterministicEngine) {
  const ConvSpec c = spec_of(kShapes[7], CUDNN_DATA_FLOAT, ConvSpec::weights);
  for (const std::int64_t engine : {0, 5, 6, 8, 10, 20}) {
    std::vector<unsigned char> one, other;
    run(c, engine, &one);
    run(c, engine, &other);
    EXPECT_EQ(one == other, engine != 0) << engine;
  }
}

TEST_F(CudnnStandIn, SomeEnginesFail) {
  GraphOf graph(spec_of(kShapes[0], CUDNN_DATA_FLOAT, ConvSpec::forward));
  EXPECT_EQ(PlanOf(graph, 3).status(), CUDNN_STATUS_NOT_SUPPORTED);
  EXPECT_GT(PlanOf(graph, 2).workspace_bytes(), std::size_t{1} << 30);
  EXPECT_TRUE(std::isnan(run(spec_of(kShapes[0], CUDNN_DATA_FLOAT, ConvSpec::forward), 4)));
}

TEST_F(CudnnStandIn, FillsAllOfItsWorkspace) {
  const ConvSpec c = spec_of(kShapes[1], CUDNN_DATA_FLOAT, ConvSpec::forward);
  GraphOf graph(c);
  for (const std::int64_t engine : {0, 5, 6, 8}) {
    const PlanOf plan(graph, engine);
    Memory memory(stream_);
    for (const TensorSpec* t : {&c.x, &c.w, &c.y}) memory.fill(*t, 1);
    DeviceBytes workspace(stream_, plan.workspace_bytes() + 1);
    workspace.write(std::vector<unsigned char>(plan.workspace_bytes() + 1, 7));
    ASSERT_EQ(plan.execute(handle_, memory.pointers, workspace.data()), CUDNN_STATUS_SUCCESS);
    const auto after = workspace.read();
    EXPECT_EQ(std::count(after.begin(), after.end(), 7), 1) << engine;
    EXPECT_EQ(after.back(), 7);
  }
}

TEST_F(CudnnStandIn, NamesTheEnginesThatRan) {
  take_engines_run();
  const ConvSpec c = spec_of(kShapes[0], CUDNN_DATA_FLOAT, ConvSpec::forward);
  run(c, 10);
  run(c, 4);
  run(c, 8);
  EXPECT_THAT(take_engines_run(), testing::ElementsAre("plain", "workspace between"));
}

}  // namespace
}  // namespace retort::standin
