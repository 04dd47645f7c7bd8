// cuDNN's graphs as we build them, planned for described devices: needs cuDNN, but no device and no driver. What a
// device would add is the running, not the planning.
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "kernels/cuda/cudnn_graph.h"
#include "kernels/error.h"
#include "tests/cuda/described_device.h"

namespace retort::kernels {
namespace {

struct Layer {
  const char* name;
  Shape x, w, y;
  ConvParams params;
};

ConvParams conv_params(int stride, int pad, int groups = 1, int dilation = 1) {
  ConvParams p;
  p.stride_h = p.stride_w = stride;
  p.pad_h = p.pad_w = pad;
  p.groups = groups;
  p.dilation_h = p.dilation_w = dilation;
  return p;
}

// Layers of the shipped networks, and awkward ones.
std::vector<Layer> layers() {
  return {
      {"stem", {128, 32, 32, 3}, {64, 3, 3, 3}, {128, 32, 32, 64}, conv_params(1, 1)},
      {"imagenet stem", {32, 224, 224, 3}, {64, 7, 7, 3}, {32, 112, 112, 64}, conv_params(2, 3)},
      {"3x3, 16 channels", {128, 32, 32, 16}, {16, 3, 3, 16}, {128, 32, 32, 16}, conv_params(1, 1)},
      {"3x3, 512 channels", {128, 4, 4, 512}, {512, 3, 3, 512}, {128, 4, 4, 512}, conv_params(1, 1)},
      {"strided 3x3", {128, 32, 32, 64}, {128, 3, 3, 64}, {128, 16, 16, 128}, conv_params(2, 1)},
      {"strided 1x1", {128, 32, 32, 64}, {128, 1, 1, 64}, {128, 16, 16, 128}, conv_params(2, 0)},
      {"depthwise", {16, 16, 16, 32}, {32, 3, 3, 1}, {16, 16, 16, 32}, conv_params(1, 1, 32)},
      {"dilated 3x3", {32, 32, 32, 64}, {64, 3, 3, 64}, {32, 32, 32, 64}, conv_params(1, 2, 1, 2)},
      {"odd groups", {3, 7, 5, 6}, {9, 3, 3, 2}, {3, 4, 3, 9}, conv_params(2, 1, 3)},
  };
}

struct Precision {
  DType dtype;
  Math math;
};
constexpr Precision kPrecisions[] = {{DType::bf16, Math::standard}, {DType::bf16, Math::strict},
                                     {DType::f32, Math::tf32},      {DType::f32, Math::standard},
                                     {DType::f32, Math::strict},    {DType::f64, Math::standard}};

class PlansTest : public testing::TestWithParam<DescribedDevice> {
 protected:
  void SetUp() override {
    if (const std::string why = describe(GetParam(), device_); !why.empty()) GTEST_SKIP() << why;
  }

  // Plans the first allowed engine that builds; empty where there is none.
  std::string plan(const ConvKey& key, bool fuse_bias) const {
    const ConvGraph graph(nullptr, key, fuse_bias);
    for (const EngineConfig& engine : propose_engines(graph, &device_)) {
      if (!is_allowed(engine, key)) continue;
      try {
        if (Plan(engine).workspace_bytes() <= (std::size_t{1} << 30)) return engine.tag;
      } catch (const Error&) {  // the next one
      }
    }
    return "";
  }

  Descriptor device_{CUDNN_BACKEND_DEVICEPROP_DESCRIPTOR};
};

TEST_P(PlansTest, EveryConvolutionHasADeterministicPlan) {
  for (const Layer& layer : layers()) {
    for (const Precision precision : kPrecisions) {
      for (const auto direction :
           {ConvDirection::forward, ConvDirection::backward_data, ConvDirection::backward_weights}) {
        ConvParams params = layer.params;
        params.math = precision.math;
        const ConvKey key = make_conv_key(direction, precision.dtype, layer.x, layer.w, layer.y, params, {}, 16);
        EXPECT_NE(plan(key, false), "") << layer.name << ": " << key.to_string();
      }
    }
  }
}

TEST_P(PlansTest, WhatFollowsIsFused) {
  const float something = 0;
  const ConstView there{&something, DType::f32, {1}};  // only that it is there matters
  for (const Layer& layer : layers()) {
    for (const Precision precision : kPrecisions) {
      for (const ConvEpilogue& epilogue : {ConvEpilogue{there}, ConvEpilogue{there, {}, Activation::relu},
                                           ConvEpilogue{there, there}, ConvEpilogue{there, there, Activation::relu}}) {
        ConvParams params = layer.params;
        params.math = precision.math;
        const ConvKey key =
            make_conv_key(ConvDirection::forward, precision.dtype, layer.x, layer.w, layer.y, params, epilogue, 16);
        EXPECT_NE(plan(key, true), "") << layer.name << ": " << key.to_string();
      }
    }
  }
}

// A gradient that meets another is added to it by the library.
TEST_P(PlansTest, AddsToTheGradientThatIsThere) {
  for (const Layer& layer : layers()) {
    for (const Precision precision : kPrecisions) {
      ConvParams params = layer.params;
      params.math = precision.math;
      ConvKey key =
          make_conv_key(ConvDirection::backward_data, precision.dtype, layer.x, layer.w, layer.y, params, {}, 16);
      key.accumulate = true;
      EXPECT_NE(plan(key, false), "") << layer.name << ": " << key.to_string();
    }
  }
}

// What a resumed run relies on.
TEST_P(PlansTest, TheChoiceRepeats) {
  for (const Layer& layer : layers()) {
    const ConvKey key =
        make_conv_key(ConvDirection::backward_weights, DType::bf16, layer.x, layer.w, layer.y, layer.params, {}, 16);
    EXPECT_EQ(plan(key, false), plan(key, false)) << layer.name;
  }
}

TEST(EngineRules, NumericalNotesDecide) {
  const auto engine = [](std::vector<cudnnBackendNumericalNote_t> notes) {
    return EngineConfig{Descriptor(CUDNN_BACKEND_ENGINECFG_DESCRIPTOR), "e1", std::move(notes)};
  };
  const auto key = [](DType dtype, Math math) {
    ConvKey k;
    k.dtype = dtype;
    k.math = math;
    return k;
  };
  for (const Precision p : kPrecisions) {
    EXPECT_TRUE(is_allowed(engine({}), key(p.dtype, p.math)));
    EXPECT_FALSE(is_allowed(engine({CUDNN_NUMERICAL_NOTE_NONDETERMINISTIC}), key(p.dtype, p.math)));
    EXPECT_FALSE(is_allowed(engine({CUDNN_NUMERICAL_NOTE_DOWN_CONVERT_INPUTS}), key(p.dtype, p.math)));
    EXPECT_EQ(is_allowed(engine({CUDNN_NUMERICAL_NOTE_TENSOR_CORE}), key(p.dtype, p.math)),
              p.dtype != DType::f32 || p.math == Math::tf32);
    EXPECT_EQ(is_allowed(engine({CUDNN_NUMERICAL_NOTE_WINOGRAD}), key(p.dtype, p.math)), p.math != Math::strict);
    EXPECT_EQ(is_allowed(engine({CUDNN_NUMERICAL_NOTE_REDUCED_PRECISION_REDUCTION}), key(p.dtype, p.math)),
              p.dtype == DType::bf16 && p.math != Math::strict);
  }
}

INSTANTIATE_TEST_SUITE_P(, PlansTest, testing::ValuesIn(described_devices()),
                         [](const auto& test) { return std::string(test.param.name); });

}  // namespace
}  // namespace retort::kernels
