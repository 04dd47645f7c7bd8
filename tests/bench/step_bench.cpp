// One training step, as ./train runs it, on real-sized random images: images a second, and memory.
//
//   step_bench --arch resnet18 --batch 128 --steps 10 --warmup 3 [--device cpu] [--precision f32] [--json]
//   step_bench --teacher resnet50 [--students 5]   a step of ./distill: knowledge distillation from a frozen teacher
//   step_bench --augment crop_flip|all --json      augmentation alone; OMP_NUM_THREADS=1 for one core
#include <fmt/core.h>
#include <sys/resource.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <numeric>

#include "data/augment_config.h"
#include "data/random_stream.h"
#include "distill/distill_config.h"
#include "distill/distill_objective.h"
#include "distill/learner.h"
#include "distill/session.h"
#include "distill/training_step.h"
#include "engine/safetensors.h"
#include "engine/stream.h"
#include "tools/program.h"

namespace retort {
namespace {

struct Options {
  std::string arch = "resnet18", stem = "cifar", device = "cpu", precision = "f32", augment, teacher;
  std::int64_t batch = 128, classes = 100, steps = 10, warmup = 3, students = 1;
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

// A batch at a time of a small data set that never ends.
class Batches {
 public:
  explicit Batches(const Options& o) : order_(static_cast<std::size_t>(4 * o.batch)) {
    std::iota(order_.begin(), order_.end(), 0);
    batches_ = batches_of(order_, o.batch);
  }
  Batches(const Batches&) = delete;  // batches_ points into order_
  Batches& operator=(const Batches&) = delete;
  const std::vector<std::int32_t>& order() const { return order_; }
  std::span<const std::int32_t> operator[](std::int64_t i) const {
    return batches_[static_cast<std::size_t>(i) % batches_.size()];
  }

 private:
  std::vector<std::int32_t> order_;
  std::vector<std::span<const std::int32_t>> batches_;
};

// What ./train and ./distill would have read from data and config.
Session make_session(const Options& o, const TrainConfig& config, const Batches& batches) {
  Session session;
  session.device = resolve_device(o.device);
  session.arithmetic = arithmetic_of(config);
  session.train_data = random_data(4 * o.batch, o.size, o.classes, session.device);
  session.train = batches.order();
  session.augment = augmentation(o.augment.empty() ? "crop_flip" : o.augment, o.size);
  session.height = session.width = o.size;
  session.classes = o.classes;
  return session;
}

// A checkpoint of a network that knows nothing, for as long as the object lives.
class RandomCheckpoint {
 public:
  RandomCheckpoint(const Options& o, const std::string& arch)
      : path_((std::filesystem::temp_directory_path() / fmt::format("step_bench-{}.safetensors", getpid())).string()) {
    ModelSpec spec;
    spec.arch = arch;
    spec.stem = o.stem;
    spec.classes = o.classes;
    const std::unique_ptr<Model> model = make_model(spec);
    model->parameters().materialize({}, DType::f32, 2);
    const std::map<std::string, std::string> metadata{{"arch", arch}, {"stem", o.stem}};
    write_safetensors(path_, model->parameters().to_arrays(), metadata);
  }
  ~RandomCheckpoint() {
    std::error_code ignored;
    std::filesystem::remove(path_, ignored);
  }
  RandomCheckpoint(const RandomCheckpoint&) = delete;
  RandomCheckpoint& operator=(const RandomCheckpoint&) = delete;
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

// The published form of knowledge distillation (temperature 4); without a teacher plain cross-entropy.
DistillConfig config_of(const Options& o, const std::string& teacher_file) {
  std::string text = fmt::format(
      "precision = \"{}\"\n[data]\nbatch_size = {}\n[model]\narch = \"{}\"\nstem = \"{}\"\nclasses = {}\n"
      "[optimizer]\nmomentum = 0.9\nweight_decay = 5e-4\n[[student]]\nname = \"student\"\nruns = {}\n",
      o.precision, o.batch, o.arch, o.stem, o.classes, o.students);
  if (teacher_file.empty()) {
    text += "[[loss]]\ntype = \"cross_entropy\"\n";
  } else {
    text += fmt::format("[[teacher]]\npath = '{}'\n[[loss]]\ntype = \"cross_entropy\"\nweight = 0.1\n", teacher_file);
    text += "[[loss]]\ntype = \"soft_targets\"\nweight = 0.9\n";
  }
  return distill_config_of(parse_config_tree(text, "step_bench"), "step_bench");
}

void time_augmentation(const Options& o, kernels::Backend& backend, Stream stream) {
  const Batches batches(o);
  TrainConfig config;
  config.precision = o.precision;
  const Session session = make_session(o, config, batches);
  BatchBuffers buffers(session.train_data, o.batch, session.arithmetic.dtype, session.augment);
  const Times times = measure([&](std::int64_t i) { buffers.fill(batches[i], static_cast<int>(i)); }, o.warmup, o.steps,
                              backend, stream);
  report(o, {{"augment", o.augment}, {"batch", o.batch}}, times, o.batch, backend);
}

void time_step(const Options& o, kernels::Backend& backend, Stream stream) {
  std::optional<RandomCheckpoint> checkpoint;
  if (!o.teacher.empty()) checkpoint.emplace(o, o.teacher);
  const DistillConfig config = config_of(o, checkpoint ? checkpoint->path() : "");
  const Batches batches(o);
  const Session session = make_session(o, config.run, batches);
  Teachers teachers(config.teachers, config.combine, config.run, session);
  std::vector<Learner> learners;
  std::vector<TrainedNetwork> networks;
  for (const StudentConfig& student : config.students) {
    std::unique_ptr<Model> model = make_network(student.train, session);
    std::unique_ptr<Objective> objective;
    if (checkpoint) {
      objective = std::make_unique<DistillObjective>(*model, student, teachers, config, session);
    } else {
      objective = std::make_unique<CrossEntropyObjective>(*model, 0.0);
    }
    learners.emplace_back(student.name, student.group, student.train, std::move(model), std::move(objective), session);
  }
  for (Learner& l : learners) networks.push_back({*l.model, *l.objective, l.optimizers(), l.config.seed});
  TrainingStep step(networks, checkpoint ? &teachers : nullptr, session.train_data,
                    {session.augment, session.arithmetic.dtype, session.arithmetic.math});
  const std::vector<double> lr(networks.size(), 0.01);
  const auto one = [&](std::int64_t i) {
    if (step.full()) step.drain();
    step.run(batches[i], static_cast<int>(i / 4), lr);
  };
  const Times times = measure(one, o.warmup, o.steps, backend, stream);
  nlohmann::ordered_json values{{"arch", o.arch}, {"batch", o.batch}, {"precision", o.precision}};
  if (checkpoint) values["teacher"] = o.teacher;
  values["students"] = o.students;
  report(o, std::move(values), times, o.batch, backend);
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
  app.add_option("--teacher", o.teacher, "Distils from a frozen network of this arch, with random weights");
  app.add_option("--students", o.students, "Networks that share the batch and the teacher")
      ->capture_default_str()
      ->check(CLI::PositiveNumber);
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
  if (o.augment.empty()) {
    time_step(o, backend, stream);
  } else {
    time_augmentation(o, backend, stream);
  }
  return 0;
}

}  // namespace
}  // namespace retort

int main(int argc, char** argv) {
  return retort::tools::guarded([&] { return retort::run(argc, argv); });
}
