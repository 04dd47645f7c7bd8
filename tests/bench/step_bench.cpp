// One training step, as ./train runs it, on real-sized random images: images a second, and memory.
//
//   step_bench --arch resnet18 --batch 128 --steps 10 --warmup 3 [--device cpu] [--precision f32] [--json]
//   step_bench --augment crop_flip|all --json      augmentation alone; OMP_NUM_THREADS=1 for one core
#include <fmt/core.h>
#include <sys/resource.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <nlohmann/json.hpp>
#include <numeric>

#include "data/augment_config.h"
#include "data/random_stream.h"
#include "distill/session.h"
#include "distill/training_step.h"
#include "engine/stream.h"
#include "tools/program.h"

namespace retort {
namespace {

struct Options {
  std::string arch = "resnet18", stem = "cifar", device = "cpu", precision = "f32", augment;
  std::int64_t batch = 128, classes = 100, steps = 10, warmup = 3;
  int size = 32;
  bool json = false;
};

DeviceData random_data(std::int64_t count, int size, std::int64_t classes, Device device) {
  RandomStream random(1, kPurposeSynthetic, 0, 0);
  ImageSet set;
  set.count = count;
  set.height = set.width = size;
  set.images.resize(static_cast<std::size_t>(count * size * size * 3));
  for (auto& value : set.images) value = static_cast<std::uint8_t>(random.word() >> 24);
  set.labels.resize(static_cast<std::size_t>(count));
  for (auto& label : set.labels) label = static_cast<std::int32_t>(random.below(static_cast<std::uint32_t>(classes)));
  return DeviceData::upload(set, device);
}

kernels::AugmentParams augmentation(const std::string& which, int size) {
  std::vector<AugmentStepConfig> steps{{"crop", {}}, {"flip", {}}};
  if (which == "all")
    steps = {{"flip", {}}, {"crop", {}}, {"color_jitter", {}}, {"rotation", {}}, {"resized_crop", {}}};
  return make_augment_params(steps, normalization_preset("cifar100"), 1, {size, size});
}

struct Times {
  double median, min, max;  // ms
};

Times summary(std::vector<double> ms) {
  std::sort(ms.begin(), ms.end());
  return {ms[ms.size() / 2], ms.front(), ms.back()};
}

// Milliseconds of each of `rounds` calls, the device awaited after each, after `warmup` uncounted ones.
template <typename F>
Times measure(F work, std::int64_t warmup, std::int64_t rounds, kernels::Backend& backend, Stream stream) {
  std::vector<double> ms;
  for (std::int64_t i = 0; i < warmup + rounds; ++i) {
    const auto start = std::chrono::steady_clock::now();
    work(i);
    backend.synchronize(stream);
    const std::chrono::duration<double, std::milli> elapsed = std::chrono::steady_clock::now() - start;
    if (i >= warmup) ms.push_back(elapsed.count());
  }
  return summary(std::move(ms));
}

void report(const Options& o, nlohmann::ordered_json values, const Times& times, std::int64_t images,
            const kernels::Backend& backend) {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  const kernels::MemoryStats memory = backend.memory_stats();
  values["images_per_second"] = 1000.0 * static_cast<double>(images) / times.median;
  values["median_ms"] = times.median;
  values["min_ms"] = times.min;
  values["max_ms"] = times.max;
  values["peak_bytes"] = memory.peak_bytes;
  values["rss_bytes"] = static_cast<std::int64_t>(usage.ru_maxrss) * 1024;
  values["device"] = backend.description();
  if (o.json) {
    fmt::print("{}\n", values.dump());
    return;
  }
  for (const auto& [key, value] : values.items()) fmt::print("{}: {}\n", key, value.dump());
}

int run(int argc, char** argv) {
  Options o;
  CLI::App app{"Times a training step.", "step_bench"};
  app.add_option("--arch", o.arch)->capture_default_str();
  app.add_option("--stem", o.stem)->capture_default_str();
  app.add_option("--batch", o.batch)->capture_default_str()->check(CLI::PositiveNumber);
  app.add_option("--classes", o.classes)->capture_default_str()->check(CLI::PositiveNumber);
  app.add_option("--size", o.size, "Height and width of the images")->capture_default_str()->check(CLI::PositiveNumber);
  app.add_option("--steps", o.steps, "Counted steps")->capture_default_str()->check(CLI::PositiveNumber);
  app.add_option("--warmup", o.warmup, "Uncounted steps before them")->capture_default_str();
  app.add_option("--device", o.device)->capture_default_str();
  app.add_option("--precision", o.precision)
      ->capture_default_str()
      ->check(CLI::IsMember({"f32", "tf32", "bf16", "f64"}));
  app.add_option("--augment", o.augment, "Times augmentation alone")->check(CLI::IsMember({"crop_flip", "all"}));
  app.add_flag("--json", o.json, "One JSON object on one line");
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return tools::usage(app, error);
  }

  const Device device = resolve_device(o.device);
  kernels::Backend& backend = kernels::backend(device);
  const Stream stream = backend.create_stream();
  const StreamGuard guard(device, stream);
  TrainConfig config;
  config.precision = o.precision;
  const Arithmetic arithmetic = arithmetic_of(config);
  const DeviceData data = random_data(4 * o.batch, o.size, o.classes, device);
  std::vector<std::int32_t> order(static_cast<std::size_t>(4 * o.batch));
  std::iota(order.begin(), order.end(), 0);
  const auto batches = batches_of(order, o.batch);
  const auto batch_of = [&](std::int64_t i) { return batches[static_cast<std::size_t>(i) % batches.size()]; };

  if (!o.augment.empty()) {
    BatchBuffers buffers(data, o.batch, arithmetic.dtype, augmentation(o.augment, o.size));
    const Times times = measure([&](std::int64_t i) { buffers.fill(batch_of(i), static_cast<int>(i)); }, o.warmup,
                                o.steps, backend, stream);
    report(o, {{"augment", o.augment}, {"batch", o.batch}}, times, o.batch, backend);
    return 0;
  }

  ModelSpec spec;
  spec.arch = o.arch;
  spec.stem = o.stem;
  spec.classes = o.classes;
  const std::unique_ptr<Model> model = make_model(spec);
  model->parameters().materialize(device, arithmetic.dtype, 1);
  OptimizerOptions optimizer_options;
  optimizer_options.momentum = 0.9;
  optimizer_options.weight_decay = 5e-4;
  Optimizer optimizer(model->parameters(), optimizer_options);
  CrossEntropyObjective objective(*model, 0.0);
  StepOptions step_options;
  step_options.augment = augmentation("crop_flip", o.size);
  step_options.dtype = arithmetic.dtype;
  step_options.math = arithmetic.math;
  TrainingStep step(*model, objective, optimizer, data, step_options);
  const Times times = measure(
      [&](std::int64_t i) {
        if (step.full()) step.drain();
        step.run(batch_of(i), static_cast<int>(i / 4), 0.01);
      },
      o.warmup, o.steps, backend, stream);
  report(o, {{"arch", o.arch}, {"batch", o.batch}, {"precision", o.precision}}, times, o.batch, backend);
  return 0;
}

}  // namespace
}  // namespace retort

int main(int argc, char** argv) {
  return retort::tools::guarded([&] { return retort::run(argc, argv); });
}
