// A frozen teacher's forward pass, unfolded and folded (Model::fold) in turn in one process: images a second.
//
//   fold_bench                                    the three teachers below
//   fold_bench --arch resnet18 --batch 128 [--rounds 15] [--warmup 2] [--device cpu] [--precision f32] [--cpu] [--json]
#include <fmt/core.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <cmath>
#include <ctime>
#include <nlohmann/json.hpp>

#include "distill/session.h"
#include "engine/autograd.h"
#include "engine/stream.h"
#include "models/model.h"
#include "tools/program.h"

namespace retort {
namespace {

struct Options {
  std::string arch, stem = "cifar", device = "cpu", precision = "f32";
  std::int64_t batch = 64, classes = 100, rounds = 15, warmup = 2;
  int size = 32;
  bool processor_time = false, json = false;
};

double now_ms(bool processor_time) {
  if (processor_time) return 1e3 * static_cast<double>(std::clock()) / CLOCKS_PER_SEC;
  return std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

nlohmann::ordered_json summary(std::vector<double> ms, std::int64_t images) {
  std::sort(ms.begin(), ms.end());
  const double median = ms[ms.size() / 2];
  return {{"images_per_second", 1000.0 * static_cast<double>(images) / median},
          {"median_ms", median},
          {"min_ms", ms.front()},
          {"max_ms", ms.back()}};
}

std::unique_ptr<Model> make_teacher(const Options& o, Device device, DType dtype) {
  auto model = make_model({.arch = o.arch, .classes = o.classes, .stem = o.stem});
  model->parameters().materialize(device, dtype, 1);
  return model;
}

void measure(const Options& o, Device device) {
  kernels::Backend& backend = kernels::backend(device);
  TrainConfig config;
  config.precision = o.precision;
  const Arithmetic arithmetic = arithmetic_of(config);
  const auto unfolded = make_teacher(o, device, arithmetic.dtype), folded = make_teacher(o, device, arithmetic.dtype);
  folded->fold();
  std::vector<float> pixels(static_cast<std::size_t>(o.batch * o.size * o.size * 3));
  for (std::size_t i = 0; i < pixels.size(); ++i) pixels[i] = static_cast<float>(i * 37 % 101) / 50.0f - 1.0f;
  const Tensor x = Tensor::from(pixels, {o.batch, o.size, o.size, 3}).to(arithmetic.dtype).to(device);
  ForwardMode mode;
  mode.math = arithmetic.math;

  const autograd::NoGradGuard no_grad;
  std::array<std::vector<double>, 2> ms;
  std::vector<double> ratios;
  for (std::int64_t round = -o.warmup; round < o.rounds; ++round) {
    std::array<double, 2> elapsed{};
    for (const std::size_t which :
         round % 2 == 0 ? std::array<std::size_t, 2>{0, 1} : std::array<std::size_t, 2>{1, 0}) {
      const double start = now_ms(o.processor_time);
      (which == 0 ? unfolded : folded)->forward(x, mode);
      backend.synchronize(current_stream(device));
      elapsed[which] = now_ms(o.processor_time) - start;
    }
    if (round < 0) continue;
    for (const std::size_t which : {0, 1}) ms[which].push_back(elapsed[which]);
    ratios.push_back(elapsed[0] / elapsed[1]);
  }
  std::sort(ratios.begin(), ratios.end());
  nlohmann::ordered_json result{{"arch", o.arch},
                                {"batch", o.batch},
                                {"precision", o.precision},
                                {"clock", o.processor_time ? "processor" : "wall"},
                                {"rounds", o.rounds},
                                {"unfolded", summary(ms[0], o.batch)},
                                {"folded", summary(ms[1], o.batch)},
                                {"speedup_median", ratios[ratios.size() / 2]},
                                {"speedup_quartiles", {ratios[ratios.size() / 4], ratios[ratios.size() * 3 / 4]}},
                                {"device", backend.description()}};
  if (o.json) {
    fmt::print("{}\n", result.dump());
    return;
  }
  const auto line = [&](const char* which) {
    const auto& r = result[which];
    fmt::print("{:<10} batch {:>3} {:<8} {:8.1f} images/s; median {:.1f} ms, {:.1f} to {:.1f}\n", o.arch, o.batch,
               which, r["images_per_second"].get<double>(), r["median_ms"].get<double>(), r["min_ms"].get<double>(),
               r["max_ms"].get<double>());
  };
  line("unfolded");
  line("folded");
  fmt::print("{:<10} folded is {:.3f} times as fast (median of the rounds; quartiles {:.3f} and {:.3f})\n", o.arch,
             ratios[ratios.size() / 2], ratios[ratios.size() / 4], ratios[ratios.size() * 3 / 4]);
}

int run(int argc, char** argv) {
  Options o;
  CLI::App app{"Times a teacher's forward pass, unfolded and folded in turn.", "fold_bench"};
  app.add_option("--arch", o.arch, "Default: resnet32x4, resnet50 and resnet56, each with its batch");
  app.add_option("--stem", o.stem)->capture_default_str();
  app.add_option("--batch", o.batch)->capture_default_str()->check(CLI::PositiveNumber);
  app.add_option("--classes", o.classes)->capture_default_str()->check(CLI::PositiveNumber);
  app.add_option("--size", o.size, "Height and width of the images")->capture_default_str()->check(CLI::PositiveNumber);
  app.add_option("--rounds", o.rounds, "Counted rounds")->capture_default_str()->check(CLI::PositiveNumber);
  app.add_option("--warmup", o.warmup, "Uncounted rounds before them")->capture_default_str();
  app.add_option("--device", o.device)->capture_default_str();
  app.add_option("--precision", o.precision)
      ->capture_default_str()
      ->check(CLI::IsMember({"f32", "tf32", "bf16", "f64"}));
  app.add_flag("--cpu", o.processor_time, "Processor time: with OMP_NUM_THREADS=1 on a machine that is busy otherwise");
  app.add_flag("--json", o.json, "One JSON object on one line for each network");
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return tools::usage(app, error);
  }
  const Device device = resolve_device(o.device);
  const Stream stream = kernels::backend(device).create_stream();
  const StreamGuard guard(device, stream);
  if (!o.arch.empty()) {
    measure(o, device);
    return 0;
  }
  for (const auto& [arch, batch] :
       {std::pair<const char*, std::int64_t>{"resnet32x4", 64}, {"resnet50", 32}, {"resnet56", 128}}) {
    o.arch = arch;
    o.batch = batch;
    measure(o, device);
  }
  return 0;
}

}  // namespace
}  // namespace retort

int main(int argc, char** argv) {
  return retort::tools::guarded([&] { return retort::run(argc, argv); });
}
