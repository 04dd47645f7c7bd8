#include "engine/trace.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <set>

#include "engine/ops.h"
#include "models/model.h"
#include "tests/operators/operator_table.h"

namespace retort {
namespace {

using ::testing::HasSubstr;
using testing::Input;
using testing::OperatorCase;

// Rows of the operator table whose operator does not record itself: it takes no part in inference, or only in that of
// networks read from ONNX files, which nobody exports. Names up to a '_'.
const std::set<std::string>& not_recorded() {
  static const std::set<std::string> names{"sum", "mean", "dropout", "batch_norm_training", "cross_entropy",
                                           // The losses and what they are made of.
                                           "standardize_rows", "soft_targets", "soft_cross_entropy", "decoupled_kd",
                                           "pearson_distance", "reverse_gradient", "smooth_l1", "binary_cross_entropy",
                                           "channel_energy", "channels_first", "neuron_selectivity",
                                           "variational_information", "pairwise_squared_distances", "distance_loss",
                                           "angle_loss", "probability_transfer", "correlation_congruence",
                                           // engine/ops/frozen.h
                                           "unary", "binary", "strided_copy"};
  return names;
}

bool is_prefix(const std::string& prefix, const std::string& name) {
  return name == prefix || name.starts_with(prefix + "_");
}

bool records(const OperatorCase& row) {
  std::vector<Tensor> inputs;
  for (const Input& input : row.inputs) {
    const bool labels = input.kind == Input::Kind::labels;
    inputs.push_back(Tensor::full(input.shape, labels ? 0.0 : 0.25, labels ? DType::i32 : DType::f32, {}));
  }
  Trace trace(inputs);
  Tensor result;
  {
    const TraceGuard guard(trace);
    result = row.apply(inputs);
  }
  try {
    trace.check_complete(result);
    if (trace.source_of(result, row.name).kind != TraceSource::Kind::step) return false;
  } catch (const Error&) {
    return false;
  }
  // Who records, records all that it reads.
  for (const Tensor& input : inputs) {
    const auto reads = [&](const TraceStep& step) {
      return std::any_of(step.inputs.begin(), step.inputs.end(),
                         [&](const Tensor& t) { return t && t.view().data == input.view().data; });
    };
    EXPECT_TRUE(std::any_of(trace.steps().begin(), trace.steps().end(), reads)) << row.name;
  }
  return true;
}

TEST(Trace, EveryOperatorRecordsItselfOrIsListed) {
  std::set<std::string> seen;
  for (const OperatorCase& row : testing::operator_cases()) {
    std::string match;
    for (const std::string& name : not_recorded()) {
      if (is_prefix(name, row.name)) match = name;
    }
    if (!match.empty()) seen.insert(match);
    EXPECT_EQ(records(row), match.empty())
        << row.name << ": an operator that inference may use calls trace::record(); any other is listed here";
  }
  EXPECT_EQ(seen, not_recorded()) << "the list names an operator that has no row";
}

TEST(Trace, KeepsOperatorsAttributesAndTensors) {
  const Tensor x = Tensor::full({2, 5, 6, 4}, 1.0, DType::f32, {});
  const Tensor weight = Tensor::full({8, 3, 3, 2}, 0.1, DType::f32, {});
  Trace trace({x});
  Tensor y;
  {
    const TraceGuard guard(trace);
    y = relu6(conv2d(x, weight, {}, {.stride_h = 2, .stride_w = 1, .pad_h = 1, .pad_w = 0, .groups = 2}));
  }
  relu(y);  // the guard is gone
  ASSERT_EQ(trace.steps().size(), 2U);
  const TraceStep &conv = trace.steps()[0], &act = trace.steps()[1];
  EXPECT_EQ(conv.op, "conv2d");
  ASSERT_EQ(conv.inputs.size(), 3U);
  EXPECT_FALSE(conv.inputs[2].defined());
  const auto& attributes = std::get<ConvAttributes>(conv.attributes);
  EXPECT_EQ(attributes.params.stride_h, 2);
  EXPECT_EQ(attributes.params.pad_w, 0);
  EXPECT_EQ(attributes.params.groups, 2);
  EXPECT_EQ(conv.output.shape(), (Shape{2, 3, 4, 8}));
  EXPECT_EQ(std::get<kernels::Activation>(act.attributes), kernels::Activation::relu6);

  EXPECT_EQ(trace.source_of(conv.inputs[0], "").kind, TraceSource::Kind::given);
  EXPECT_EQ(trace.source_of(conv.inputs[1], "").kind, TraceSource::Kind::constant);
  EXPECT_EQ(trace.source_of(act.inputs[0], "").kind, TraceSource::Kind::step);
  EXPECT_EQ(trace.source_of(y.detach(), "").index, 1U);
  trace.check_complete(y);
}

std::string error_of(const std::function<Tensor(const Tensor&)>& forward) {
  const Tensor x = Tensor::full({2, 4}, 1.0, DType::f32, {});
  Trace trace({x});
  Tensor y;
  {
    const TraceGuard guard(trace);
    y = forward(x);
  }
  try {
    trace.check_complete(y);
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

TEST(Trace, FindsWhatDoesNotRecordItself) {
  const Tensor outside = Tensor::full({2, 4}, 2.0, DType::f32, {});
  EXPECT_EQ(error_of([&](const Tensor& x) { return add(x, outside); }), "");
  // Only renamed, without the operator for it.
  const char* const unrecorded = "was made in the forward pass by something that does not record itself";
  EXPECT_EQ(error_of([](const Tensor& x) {
              return relu(x.reshaped({4, 2}));
            }),
            std::string("activation: its input f32 [4, 2] ") + unrecorded);
  EXPECT_EQ(error_of([](const Tensor& x) {
              return relu(relu(x).slice(4, {1, 4}));
            }),
            std::string("activation: its input f32 [1, 4] ") + unrecorded);
  // New memory, filled by a kernel that no operator stands for.
  EXPECT_EQ(error_of([](const Tensor& x) { return add(x, x.clone()); }),
            std::string("add: its input f32 [2, 4] ") + unrecorded);
  EXPECT_EQ(error_of([](const Tensor& x) { return square(relu(x)).clone(); }),
            std::string("the result: its input f32 [2, 4] ") + unrecorded);
  // A filled tensor is a constant only as long as nobody writes to it.
  EXPECT_EQ(error_of([](const Tensor& x) { return add(x, Tensor::zeros({2, 4}, x.dtype(), {})); }), "");
  EXPECT_THAT(error_of([](const Tensor& x) {
                const Tensor sum = Tensor::zeros({2, 4}, x.dtype(), {});
                sum.copy_from(x);
                return add(x, sum);
              }),
              HasSubstr("full: f32 [2, 4] filled with 0 was written to"));
  EXPECT_THAT(error_of([&](const Tensor&) { return outside; }), HasSubstr("does not depend on anything"));
}

TEST(Trace, IsCompleteForNetworksFoldedOrNot) {
  for (const ModelSpec& spec : {ModelSpec{.arch = "resnet8"}, ModelSpec{.arch = "resnet20", .shortcut = "pad"},
                                ModelSpec{.arch = "resnet18", .stem = "imagenet"}, ModelSpec{.arch = "resnet50"}}) {
    const auto model = make_model(spec);
    model->parameters().materialize({}, DType::f32, 1);
    for (const bool folded : {false, true}) {
      if (folded) model->fold();
      const Tensor image = Tensor::zeros({1, 32, 32, 3}, DType::f32, {});
      Trace trace({image});
      ModelOutput output;
      {
        const TraceGuard guard(trace);
        output = model->forward(image, {});
      }
      trace.check_complete(output.logits);
      const auto is_norm = [](const TraceStep& step) { return step.op == "batch_norm_inference"; };
      EXPECT_EQ(std::any_of(trace.steps().begin(), trace.steps().end(), is_norm), !folded) << spec.arch;
    }
  }
}

}  // namespace
}  // namespace retort
