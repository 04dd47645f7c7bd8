#include "engine/parameters.h"

#include <gmock/gmock.h>

#include <cmath>
#include <cstdlib>
#include <cstring>

#include "models/model.h"
#include "tests/support/files.h"

namespace retort {
namespace {

using test::error_of;
using test::TemporaryFolder;
using testing::EndsWith;
using testing::HasSubstr;
using testing::StartsWith;

struct SmallNet {
  ParameterStore store;
  std::shared_ptr<Parameter> conv, gamma, beta, weight, bias;
  std::shared_ptr<Buffer> mean, counter;

  explicit SmallNet(DType compute = DType::f32, std::uint64_t seed = 3) {
    const Shape conv_shape{8, 3, 3, 5}, linear_shape{10, 8};
    conv = store.parameter("conv1.weight", conv_shape, ParameterKind::conv_weight,
                           Initializer::kaiming_normal(conv_shape));
    gamma = store.parameter("bn1.weight", {8}, ParameterKind::norm_scale, Initializer::constant(1));
    beta = store.parameter("bn1.bias", {8}, ParameterKind::norm_shift, Initializer::constant(0));
    weight = store.parameter("fc.weight", linear_shape, ParameterKind::linear_weight,
                             Initializer::kaiming_uniform(linear_shape));
    bias = store.parameter("fc.bias", {10}, ParameterKind::bias, Initializer::kaiming_uniform(linear_shape));
    mean = store.buffer("bn1.running_mean", {8}, DType::f32, 0.25);
    counter = store.buffer("bn1.num_batches_tracked", {1}, DType::i32, 0);
    store.materialize({}, compute, seed);
  }
  WeightFile as_file() const { return {"mem", {}, store.to_arrays()}; }
};

NamedArray& array(WeightFile& file, const std::string& name) {
  return const_cast<NamedArray&>(*file.find(name));
}

std::vector<float> floats(const NamedArray& a) {
  std::vector<float> out(a.bytes.size() / 4);
  std::memcpy(out.data(), a.bytes.data(), a.bytes.size());
  return out;
}

TEST(Parameters, LieInOneArenaWithZeroPadding) {
  const SmallNet net;
  EXPECT_EQ(net.store.parameter_count(), 8 * 45 + 8 + 8 + 80 + 10);
  EXPECT_EQ(net.store.values().numel() % kernels::kArenaChunk, 0);
  const std::vector<float> all = net.store.values().to_host<float>();
  std::vector<bool> used(all.size(), false);
  for (const auto& p : net.store.parameters()) {
    EXPECT_EQ(p->first % kernels::kArenaChunk, 0) << p->name;
    const std::vector<float> own = p->value.to_host<float>();
    for (std::size_t i = 0; i < own.size(); ++i) {
      EXPECT_EQ(all[static_cast<std::size_t>(p->first) + i], own[i]);
      EXPECT_FALSE(used[static_cast<std::size_t>(p->first) + i]);
      used[static_cast<std::size_t>(p->first) + i] = true;
    }
  }
  for (std::size_t i = 0; i < all.size(); ++i) {
    if (!used[i]) {
      EXPECT_EQ(all[i], 0.0f);
    }
  }
  EXPECT_EQ(net.store.parameters()[3]->name, "fc.weight");  // order of registration
  EXPECT_EQ(net.mean->value.to_doubles(), std::vector<double>(8, 0.25));

  const std::vector<float> table =
      net.store.chunk_table([](const Parameter& p) { return p.kind == ParameterKind::conv_weight ? 2.0 : 0.5; })
          .to_host<float>();
  EXPECT_EQ(table, (std::vector<float>{2, 2, 0.5f, 0.5f, 0.5f, 0.5f}));  // 360 elements take two chunks
}

TEST(Parameters, InitialValuesHaveTheRightDistribution) {
  ParameterStore store;
  const Shape conv{64, 3, 3, 128}, linear{512, 300};
  const auto normal = store.parameter("n", conv, ParameterKind::conv_weight, Initializer::kaiming_normal(conv));
  const auto uniform = store.parameter("u", linear, ParameterKind::linear_weight, Initializer::kaiming_uniform(linear));
  store.materialize({}, DType::f32, 1);
  const auto moments = [](const Parameter& p) {
    double sum = 0, square = 0, fourth = 0, largest = 0;
    for (const double v : p.value.to_doubles()) {
      sum += v;
      square += v * v;
      fourth += v * v * v * v;
      largest = std::max(largest, std::abs(v));
    }
    const auto n = static_cast<double>(p.shape.numel());
    return std::vector<double>{sum / n, square / n, fourth / n, largest};
  };
  const double variance = 2.0 / (64 * 9);  // 73,728 draws: a standard error of 0.5 % in the variance
  const std::vector<double> m = moments(*normal);
  EXPECT_NEAR(m[0], 0, 5 * std::sqrt(variance / 73728));
  EXPECT_NEAR(m[1] / variance, 1, 0.027);
  EXPECT_NEAR(m[2] / (variance * variance), 3, 0.2);
  EXPECT_GT(m[3], 4 * std::sqrt(variance));
  const double bound = 1 / std::sqrt(300.0);  // 153,600 draws
  const std::vector<double> u = moments(*uniform);
  EXPECT_NEAR(u[0] / bound, 0, 0.0075);
  EXPECT_NEAR(u[1] / (bound * bound), 1.0 / 3, 0.004);
  EXPECT_LE(u[3], bound * (1 + 1e-7));
  EXPECT_GT(u[3], 0.999 * bound);
}

TEST(Parameters, TheSameSeedGivesTheSameValuesInEveryPrecision) {
  const SmallNet a(DType::f32), same(DType::f32), f64(DType::f64), half(DType::bf16), other(DType::f32, 4);
  EXPECT_EQ(a.store.values().to_host<float>(), same.store.values().to_host<float>());
  EXPECT_EQ(a.store.values().to_doubles(), f64.store.values().to_doubles());
  EXPECT_EQ(a.store.values().to_host<float>(), half.store.values().to_host<float>());
  EXPECT_NE(a.store.values().to_host<float>(), other.store.values().to_host<float>());
  EXPECT_EQ(f64.mean->value.dtype(), DType::f64);
  EXPECT_EQ(f64.counter->value.dtype(), DType::i32);
}

TEST(Parameters, InBf16OnlyWeightsUseTheShadow) {
  const SmallNet net(DType::bf16);
  EXPECT_EQ(net.conv->data.dtype(), DType::bf16);
  EXPECT_EQ(net.weight->data.dtype(), DType::bf16);
  EXPECT_EQ(net.bias->data.dtype(), DType::f32);
  EXPECT_EQ(net.gamma->data.dtype(), DType::f32);
  const std::vector<float> master = net.conv->value.to_host<float>();
  const std::vector<bf16> rounded = net.conv->data.to_host<bf16>();
  for (std::size_t i = 0; i < master.size(); ++i) EXPECT_EQ(rounded[i].bits, bf16(master[i]).bits);
  EXPECT_FALSE(SmallNet().store.shadow().defined());
}

TEST(Parameters, GradientsArriveInTheArena) {
  SmallNet net;
  for (const auto& p : net.store.parameters()) {
    EXPECT_TRUE(p->data.requires_grad());
    EXPECT_FALSE(p->data.grad().defined());
  }
  net.store.gradients().fill(7.0);
  net.store.zero_grad();
  net.store.finish_grad();  // nothing has contributed: zero everywhere but in the padding, which nobody touched
  EXPECT_EQ(net.weight->grad.to_doubles(), std::vector<double>(80, 0.0));
  EXPECT_EQ(net.weight->data.grad().to_doubles(), std::vector<double>(80, 0.0));
  net.weight->grad.fill(2.0);
  EXPECT_EQ(net.store.gradients().to_host<float>()[static_cast<std::size_t>(net.weight->first)], 2.0f);
  EXPECT_EQ(net.weight->data.grad().to_doubles()[79], 2.0);

  net.store.freeze([](const Parameter& p) { return p.name == "fc.weight"; });
  EXPECT_FALSE(net.weight->data.requires_grad());
  EXPECT_TRUE(net.bias->data.requires_grad());
  EXPECT_EQ(net.weight->grad.to_doubles(), std::vector<double>(80, 0.0));
}

TEST(Parameters, FilesHavePyTorchsLayout) {
  const SmallNet net;
  WeightFile file = net.as_file();
  ASSERT_EQ(file.arrays.size(), 7u);
  const NamedArray& conv = array(file, "conv1.weight");
  EXPECT_EQ(conv.shape, (std::vector<std::int64_t>{8, 5, 3, 3}));
  const std::vector<float> oihw = floats(conv), ohwi = net.conv->value.to_host<float>();
  for (std::size_t o = 0; o < 8; ++o) {
    for (std::size_t i = 0; i < 5; ++i) {
      for (std::size_t h = 0; h < 3; ++h) {
        for (std::size_t w = 0; w < 3; ++w) {
          ASSERT_EQ(oihw[((o * 5 + i) * 3 + h) * 3 + w], ohwi[((o * 3 + h) * 3 + w) * 5 + i]);
        }
      }
    }
  }
  EXPECT_EQ(floats(array(file, "fc.weight")), net.weight->value.to_host<float>());
  EXPECT_EQ(array(file, "bn1.num_batches_tracked").dtype, FileType::i64);
  EXPECT_TRUE(array(file, "bn1.num_batches_tracked").shape.empty());
  EXPECT_EQ(SmallNet(DType::f64).as_file().arrays[0].dtype, FileType::f64);
}

TEST(Parameters, ReadBackWhatTheyWrote) {
  const TemporaryFolder folder;
  for (const DType compute : {DType::f32, DType::f64, DType::bf16}) {
    const SmallNet net(compute);
    net.mean->value.fill(0.125);
    net.counter->value.fill(391);
    write_safetensors(folder / "w", net.store.to_arrays());
    SmallNet other(compute, 99);
    const LoadReport report = other.store.load(read_safetensors(folder / "w"));
    EXPECT_TRUE(report.missing.empty() && report.unexpected.empty());
    EXPECT_EQ(other.store.values().to_doubles(), net.store.values().to_doubles());
    EXPECT_EQ(other.mean->value.to_doubles(), net.mean->value.to_doubles());
    EXPECT_EQ(other.counter->value.item(), 391);
    if (compute == DType::bf16) {
      EXPECT_EQ(other.store.shadow().to_doubles(), net.store.shadow().to_doubles());
    }
  }
}

TEST(Parameters, AcceptOthersNamesAndTypes) {
  const SmallNet net;
  WeightFile file = net.as_file();
  for (NamedArray& a : file.arrays) {
    if (a.name.starts_with("fc.")) a.name = "linear." + a.name.substr(3);
    a.name = "module." + a.name;
  }
  std::erase_if(file.arrays, [](const NamedArray& a) { return a.name.ends_with("num_batches_tracked"); });
  NamedArray& bias = array(file, "module.linear.bias");  // as bf16
  bias.dtype = FileType::bf16;
  std::vector<bf16> rounded;
  for (const float v : net.bias->value.to_host<float>()) rounded.emplace_back(v);
  bias.bytes.resize(20);
  std::memcpy(bias.bytes.data(), rounded.data(), 20);
  SmallNet other(DType::f64, 99);
  other.store.load(file);
  EXPECT_EQ(other.conv->value.to_doubles(), net.conv->value.to_doubles());
  EXPECT_EQ(other.bias->value.to_doubles()[3], static_cast<double>(static_cast<float>(rounded[3])));
  EXPECT_EQ(other.counter->value.item(), 0);
}

TEST(Parameters, RefuseWhatDoesNotFitAndStayAsTheyWere) {
  SmallNet net(DType::f32, 99);
  const std::vector<float> before = net.store.values().to_host<float>();
  const WeightFile good = SmallNet().as_file();
  const auto refusal = [&](const WeightFile& file, const LoadOptions& options = {}) {
    const std::string text = error_of([&] { net.store.load(file, options); });
    EXPECT_THAT(text, StartsWith("mem: "));
    EXPECT_EQ(net.store.values().to_host<float>(), before);
    return text;
  };
  WeightFile file = good;
  array(file, "conv1.weight").shape = {8, 3, 3, 5};
  EXPECT_EQ(refusal(file), "mem: \"conv1.weight\" has shape [8, 3, 3, 5], expected [8, 5, 3, 3]");
  file = good;
  array(file, "bn1.running_mean").dtype = FileType::i32;
  EXPECT_EQ(refusal(file), "mem: \"bn1.running_mean\" is I32, expected a floating type");
  file = good;
  array(file, "bn1.num_batches_tracked").bytes.back() = std::byte{0x80};
  EXPECT_THAT(refusal(file), EndsWith("which is out of range"));
  file = good;
  file.arrays.erase(file.arrays.begin(), file.arrays.begin() + 4);
  array(file, "fc.bias").name = "head.bias";
  EXPECT_EQ(
      refusal(file),
      "mem: does not fit the network; 5 missing (conv1.weight, bn1.weight, bn1.bias, ...); 1 unexpected (head.bias)");
  LoadOptions lenient;
  lenient.strict = false;
  SmallNet another;
  const LoadReport report = another.store.load(file, lenient);
  EXPECT_EQ(report.missing.size(), 5u);
  EXPECT_THAT(report.unexpected, testing::ElementsAre("head.bias"));

  file = good;
  file.arrays.push_back(array(file, "fc.bias"));
  file.arrays.back().name = "linear.bias";
  EXPECT_THAT(refusal(file), HasSubstr("are both fc.bias"));
}

TEST(Parameters, ACheckpointOfAnotherModelIsCalledByItsName) {
  SmallNet net;
  WeightFile file = net.as_file();
  file.metadata = {{"arch", "resnet20"}, {"classes", "10"}};
  LoadOptions options;
  options.arch = "resnet32";
  options.classes = 100;
  EXPECT_EQ(error_of([&] { net.store.load(file, options); }),
            "mem: holds resnet20 (10 classes), the config asks for resnet32 (100 classes)");
  options.arch = "resnet20";
  EXPECT_EQ(error_of([&] { net.store.load(file, options); }),
            "mem: holds resnet20 (10 classes), the config asks for resnet20 (100 classes)");
  // Who skips the classifier may have another number of classes, and keeps his own.
  options.skip = {"fc."};
  const std::vector<double> own = net.weight->value.to_doubles();
  array(file, "fc.weight").shape = {100, 8};
  array(file, "fc.weight").bytes.resize(3200);
  net.conv->value.fill(0);
  net.store.load(file, options);
  EXPECT_EQ(net.weight->value.to_doubles(), own);
  EXPECT_NE(net.conv->value.to_doubles(), std::vector<double>(360, 0.0));
}

TEST(Parameters, RegistrationErrors) {
  ParameterStore store;
  store.parameter("a", {2}, ParameterKind::bias, Initializer::constant(0));
  EXPECT_THAT(error_of([&] { store.parameter("a", {2}, ParameterKind::bias, Initializer::constant(0)); }),
              HasSubstr("registered twice"));
  EXPECT_THAT(error_of([&] { store.buffer("a", {2}, DType::f32, 0); }), HasSubstr("registered twice"));
  EXPECT_THAT(error_of([&] { store.to_arrays(); }), HasSubstr("before materialize()"));
  store.materialize({}, DType::f32, 1);
  EXPECT_THAT(error_of([&] { store.parameter("b", {2}, ParameterKind::bias, Initializer::constant(0)); }),
              HasSubstr("after materialize()"));
  EXPECT_THAT(error_of([&] { store.materialize({}, DType::f32, 1); }), HasSubstr("second time"));
}

TEST(Parameters, ThePretrainedNetworksOfCifar10Load) {
  const char* const root = std::getenv("RETORT_DATASETS");
  const std::filesystem::path folder = std::filesystem::path(root ? root : "datasets") / "pretrained_resnet_cifar10";
  if (!std::filesystem::exists(folder)) GTEST_SKIP() << folder << " is not there";
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    if (entry.path().extension() != ".safetensors") continue;
    ModelSpec spec;
    spec.arch = entry.path().filename().string().substr(0, 8);
    spec.shortcut = "pad";
    const auto model = make_model(spec);
    model->parameters().materialize({}, DType::f32, 1);
    const LoadReport report = model->parameters().load(read_safetensors(entry.path().string()));
    EXPECT_TRUE(report.missing.empty() && report.unexpected.empty()) << entry.path();
    spec.arch = spec.arch == "resnet20" ? "resnet32" : "resnet20";
    const auto other = make_model(spec);
    other->parameters().materialize({}, DType::f32, 1);
    EXPECT_THAT(error_of([&] { other->parameters().load(read_safetensors(entry.path().string())); }),
                testing::AnyOf(HasSubstr("missing"), HasSubstr("unexpected")));
  }
}

}  // namespace
}  // namespace retort
