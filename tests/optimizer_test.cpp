#include "engine/optimizer.h"

#include <gmock/gmock.h>

#include <cmath>
#include <map>

#include "distill/config.h"
#include "tests/support/files.h"

namespace retort {
namespace {

using test::error_of;
using test::TemporaryFolder;
using testing::HasSubstr;
using Rule = OptimizerOptions::Rule;

struct Net {
  ParameterStore store;
  std::shared_ptr<Parameter> weight, bias, gamma;

  explicit Net(DType compute = DType::f64, std::uint64_t seed = 5) {
    weight = store.parameter("w", {30, 10}, ParameterKind::linear_weight, Initializer::normal(1));
    bias = store.parameter("b", {30}, ParameterKind::bias, Initializer::normal(1));
    gamma = store.parameter("g", {7}, ParameterKind::norm_scale, Initializer::normal(1));
    store.materialize({}, compute, seed);
  }
  // Gradients that depend on parameter and step.
  void fill_gradients(int step) {
    for (const auto& p : store.parameters()) {
      std::vector<double> g(static_cast<std::size_t>(p->shape.numel()));
      for (std::size_t i = 0; i < g.size(); ++i) {
        g[i] = std::sin(0.37 * static_cast<double>(i) + 1.3 * step + static_cast<double>(p->name[0]));
      }
      const Tensor exact = Tensor::from(g, p->shape);
      p->grad.copy_from(exact.to(p->grad.dtype()));
    }
  }
};

// PyTorch's documented update rules (torch.optim.SGD, Adam, AdamW), one scalar at a time.
struct Reference {
  OptimizerOptions o;
  double p = 0, m = 0, v = 0;
  bool decays = true;

  void step(double g, double lr, int t) {
    const double decay = decays ? o.weight_decay : 0;
    if (o.rule == Rule::adamw) {
      p -= lr * decay * p;
    } else {
      g += decay * p;
    }
    if (o.rule == Rule::sgd) {
      if (o.momentum != 0) {
        m = t == 1 ? g : o.momentum * m + g;
        g = o.nesterov ? g + o.momentum * m : m;
      }
      p -= lr * g;
      return;
    }
    m = o.beta1 * m + (1 - o.beta1) * g;
    v = o.beta2 * v + (1 - o.beta2) * g * g;
    const double corrected = m / (1 - std::pow(o.beta1, t));
    p -= lr * corrected / (std::sqrt(v / (1 - std::pow(o.beta2, t))) + o.epsilon);
  }
};

std::map<std::string, OptimizerOptions> all_options() {
  std::map<std::string, OptimizerOptions> out;
  out["plain"] = {};
  out["momentum"].momentum = 0.9;
  out["momentum"].weight_decay = 0.01;
  out["nesterov"] = out["momentum"];
  out["nesterov"].nesterov = true;
  out["decay_all"] = out["momentum"];
  out["decay_all"].decay_all = true;
  out["clip"] = out["momentum"];
  out["clip"].clip_grad_norm = 0.5;
  out["clip_without_effect"] = out["momentum"];
  out["clip_without_effect"].clip_grad_norm = 1e6;
  out["adam"].rule = Rule::adam;
  out["adam"].weight_decay = 0.02;
  out["adamw"].rule = Rule::adamw;
  out["adamw"].weight_decay = 0.1;
  out["adamw"].beta2 = 0.95;
  return out;
}

TEST(Optimizer, FollowsPyTorchsRulesForEveryParameter) {
  for (const auto& [name, options] : all_options()) {
    Net net;
    std::map<std::string, std::vector<Reference>> expected;
    for (const auto& p : net.store.parameters()) {
      for (const double v : p->value.to_doubles()) {
        expected[p->name].push_back({options, v, 0, 0, options.decay_all || is_weight(p->kind)});
      }
    }
    Optimizer optimizer(net.store, options);
    for (int t = 1; t <= 5; ++t) {
      net.fill_gradients(t);
      const double lr = 0.1 / t;
      double square = 0;
      for (const auto& p : net.store.parameters()) {
        for (const double g : p->grad.to_doubles()) square += g * g;
      }
      const double norm = std::sqrt(square);
      const double scale = options.clip_grad_norm > 0 ? std::min(1.0, options.clip_grad_norm / (norm + 1e-6)) : 1.0;
      for (const auto& p : net.store.parameters()) {
        const std::vector<double> g = p->grad.to_doubles();
        for (std::size_t i = 0; i < g.size(); ++i) expected[p->name][i].step(scale * g[i], lr, t);
      }
      optimizer.advance(lr);
      optimizer.step();
      EXPECT_EQ(optimizer.steps(), t);
      if (options.clip_grad_norm > 0) {
        EXPECT_NEAR(optimizer.gradient_norm().item(), norm, 1e-12 * norm);
      }
    }
    for (const auto& p : net.store.parameters()) {
      const std::vector<double> values = p->value.to_doubles();
      for (std::size_t i = 0; i < values.size(); ++i) {
        EXPECT_NEAR(values[i], expected[p->name][i].p, 1e-13 * (1 + std::abs(values[i]))) << name << " " << p->name;
      }
    }
  }
}

TEST(Optimizer, PaddingStaysZero) {
  for (const auto& [name, options] : all_options()) {
    Net net(DType::f32);
    Optimizer optimizer(net.store, options);
    for (int t = 1; t <= 3; ++t) {
      net.fill_gradients(t);
      optimizer.advance(0.1);
      optimizer.step();
    }
    const std::vector<float> values = net.store.values().to_host<float>();
    for (std::size_t i = 300; i < 512; ++i) ASSERT_EQ(values[i], 0.0f) << name;
    for (std::size_t i = 542; i < 768; ++i) ASSERT_EQ(values[i], 0.0f) << name;
  }
}

TEST(Optimizer, FrozenParametersDoNotMove) {
  for (const auto& [name, options] : all_options()) {
    Net net;
    net.store.freeze([](const Parameter& p) { return p.name != "b"; });
    const std::vector<double> weight = net.weight->value.to_doubles(), bias = net.bias->value.to_doubles();
    Optimizer optimizer(net.store, options);
    net.fill_gradients(1);
    optimizer.advance(0.1);
    optimizer.step();
    EXPECT_EQ(net.weight->value.to_doubles(), weight) << name;
    EXPECT_NE(net.bias->value.to_doubles(), bias) << name;
  }
}

TEST(Optimizer, KeepsTheShadowRounded) {
  Net net(DType::bf16);
  Optimizer optimizer(net.store, {});
  net.fill_gradients(1);
  optimizer.advance(0.1);
  optimizer.step();
  const std::vector<float> master = net.weight->value.to_host<float>();
  const std::vector<bf16> shadow = net.weight->data.to_host<bf16>();
  for (std::size_t i = 0; i < master.size(); ++i) ASSERT_EQ(shadow[i].bits, bf16(master[i]).bits);
}

TEST(Optimizer, AResumedRunEqualsAnUninterruptedOneBitForBit) {
  const TemporaryFolder folder;
  for (const DType compute : {DType::f32, DType::f64, DType::bf16}) {
    for (const auto& [name, options] : all_options()) {
      const auto run = [](Net& net, Optimizer& optimizer, int from, int to) {
        for (int t = from; t <= to; ++t) {
          net.fill_gradients(t);
          optimizer.advance(0.1);
          optimizer.step();
        }
      };
      Net whole(compute);
      Optimizer whole_optimizer(whole.store, options);
      run(whole, whole_optimizer, 1, 7);

      {
        Net first(compute);
        Optimizer optimizer(first.store, options);
        run(first, optimizer, 1, 3);
        std::vector<NamedArray> arrays = first.store.to_arrays();
        optimizer.append_state(arrays);
        write_safetensors(folder / "state", arrays);
      }
      Net second(compute, 77);
      Optimizer optimizer(second.store, options);
      WeightFile file = read_safetensors(folder / "state");
      optimizer.read_state(file);
      std::erase_if(file.arrays, [](const NamedArray& a) { return a.name.starts_with(Optimizer::kStatePrefix); });
      second.store.load(file);
      EXPECT_EQ(optimizer.steps(), 3);
      run(second, optimizer, 4, 7);
      EXPECT_EQ(second.store.values().to_doubles(), whole.store.values().to_doubles()) << name;
    }
  }
}

TEST(Optimizer, RefusesTheStateOfAnother) {
  Net net;
  OptimizerOptions adam;
  adam.rule = Rule::adam;
  OptimizerOptions momentum;
  momentum.momentum = 0.9;
  WeightFile file{"mem", {}, {}};
  Optimizer(net.store, momentum).append_state(file.arrays);
  Optimizer wrong(net.store, adam);
  EXPECT_EQ(error_of([&] { wrong.read_state(file); }),
            "mem: \"optimizer.adam.step\" is missing: the state of another optimizer");
  Optimizer right(net.store, momentum);
  WeightFile cut = file;
  cut.arrays.pop_back();
  EXPECT_EQ(error_of([&] { right.read_state(cut); }), "mem: \"optimizer.moment1.g\" is missing");
  Net narrow(DType::f32);
  Optimizer other_type(narrow.store, momentum);
  EXPECT_THAT(error_of([&] { other_type.read_state(file); }), HasSubstr("is F64 of shape [30, 10], expected F32"));
}

TEST(Optimizer, RefusesMisuse) {
  ParameterStore empty;
  EXPECT_THAT(error_of([&] { Optimizer(empty, {}); }), HasSubstr("materialized"));
  Net net;
  Optimizer optimizer(net.store, {});
  EXPECT_THAT(error_of([&] { optimizer.step(); }), HasSubstr("before advance()"));
  EXPECT_THAT(error_of([&] { optimizer.advance(NAN); }), HasSubstr("learning rate"));
}

TEST(Optimizer, ComesFromTheConfig) {
  const ConfigValue tree = parse_config_tree(
      "[optimizer]\ntype = 'adamw'\nweight_decay = 0.05\ndecay = 'all'\nbeta1 = 0.8\nbeta2 = 0.95\nepsilon = 1e-6\n"
      "[train]\nclip_grad_norm = 10",
      "t");
  const OptimizerOptions o = optimizer_options(train_config_of(tree, "t"));
  EXPECT_EQ(o.rule, Rule::adamw);
  EXPECT_EQ(o.weight_decay, 0.05);
  EXPECT_TRUE(o.decay_all);
  EXPECT_EQ(o.beta1, 0.8);
  EXPECT_EQ(o.beta2, 0.95);
  EXPECT_EQ(o.epsilon, 1e-6);
  EXPECT_EQ(o.clip_grad_norm, 10);
  const OptimizerOptions sgd =
      optimizer_options(train_config_of(parse_config_tree("[optimizer]\nmomentum = 0.8\nnesterov = true", "t"), "t"));
  EXPECT_EQ(sgd.rule, Rule::sgd);
  EXPECT_EQ(sgd.momentum, 0.8);
  EXPECT_TRUE(sgd.nesterov);
  EXPECT_FALSE(sgd.decay_all);
}

}  // namespace
}  // namespace retort
