#include "distill/session.h"

#include <algorithm>
#include <charconv>
#include <numeric>

#include "data/augment_config.h"
#include "data/dataset.h"
#include "data/split.h"
#include "distill/classifier.h"
#include "distill/console.h"
#include "engine/project_folder.h"
#include "engine/safetensors.h"

namespace retort {
namespace {

Normalization normalization_of(const TrainConfig& config) {
  Normalization normalization;
  std::copy_n(config.data.normalize.mean.begin(), 3, normalization.mean);
  std::copy_n(config.data.normalize.std.begin(), 3, normalization.std);
  return normalization;
}

kernels::AugmentParams augment_params(const TrainConfig& config, const ImageSet& images, bool training) {
  std::vector<AugmentStepConfig> steps;
  if (training) {
    for (const AugmentEntry& entry : config.data.augment) steps.push_back({entry.name, entry.options});
  }
  return make_augment_params(steps, normalization_of(config), config.seed, {images.height, images.width});
}

}  // namespace

Device resolve_device(const std::string& name) {
  if (name == "cpu") return {};
  if (name == "auto") return kernels::cuda_device_count() > 0 ? Device{DeviceType::cuda, 0} : Device{};
  Device device{DeviceType::cuda, 0};
  if (name != "cuda") {
    const char* const end = name.data() + name.size();
    const bool numbered = name.starts_with("cuda:") && name.size() > 5;
    const auto parsed = std::from_chars(numbered ? name.data() + 5 : end, end, device.index);
    check(numbered && parsed.ec == std::errc() && parsed.ptr == end,
          "device \"{}\": expected auto, cpu, cuda or cuda:N", name);
  }
  kernels::backend(device);  // says why where there is none
  return device;
}

Arithmetic arithmetic_of(const std::string& precision) {
  Arithmetic a;
  if (precision == "f64") a.dtype = DType::f64;
  if (precision == "bf16") a.dtype = DType::bf16;
  if (precision == "tf32") a.math = Math::tf32;
  return a;
}

Arithmetic arithmetic_of(const TrainConfig& config) {
  Arithmetic a = arithmetic_of(config.precision);
  if (config.strict_math) a.math = Math::strict;
  return a;
}

EvaluateOptions Session::evaluate_options() const {
  EvaluateOptions options;
  options.dtype = arithmetic.dtype;
  options.math = arithmetic.math;
  options.preprocessing = preprocessing;
  return options;
}

std::map<std::string, std::string> checkpoint_metadata(const Model& model, const Session& session,
                                                       const TrainConfig& config) {
  auto metadata =
      network_metadata(model.spec(), session.class_names, normalization_of(config), session.height, session.width);
  metadata["dataset"] = config.data.dataset;
  return metadata;
}

void evaluate_weights(const TrainConfig& config, const std::string& logits_path) {
  check(!config.model.init.empty(), "evaluate-only: [model] init names the weights to evaluate; it is not set");
  const Session session = make_session(config);
  Console console;
  console.print("{}: {} on the {} test images of {}, {}, {}", config.name, config.model.arch,
                counted(session.test_data.count()), config.data.dataset, config.precision,
                kernels::backend(session.device).description());
  const std::unique_ptr<Model> model = make_network(config, session);
  load_weights(*model, config.model.init);
  console.print("weights from {}", config.model.init);
  std::vector<float> logits;
  const Metrics m = evaluate(*model, session.test_data, session.test, session.evaluate_options(),
                             logits_path.empty() ? nullptr : &logits);
  check(all_finite(m), "{}: the logits hold NaN or infinity; first bad: {}", config.model.init,
        first_nonfinite(*model, session.test_data, session.test, session.evaluate_options()));
  console.print("test: loss {:.4f} top-1 {:.2f} % top-5 {:.2f} %", m.loss, 100 * m.top1, 100 * m.top5);
  if (logits_path.empty()) return;
  write_safetensors(logits_path, {float_array("logits", {m.samples, model->spec().classes}, logits)},
                    checkpoint_metadata(*model, session, config));
  console.print("logits in {}", logits_path);
}

void load_weights(Model& model, const std::string& file, const std::vector<std::string>& skip) {
  const WeightFile weights = read_weight_file(in_project(file));
  LoadOptions options;
  options.arch = model.spec().arch;
  if (skip.empty()) options.classes = static_cast<int>(model.spec().classes);
  options.skip = skip;
  model.parameters().load(weights, options);
}

Session make_session(const TrainConfig& config) {
  Session session;
  session.device = resolve_device(config.device);
  session.arithmetic = arithmetic_of(config);

  const Dataset dataset = load_dataset(config.data.dataset, in_project(config.data.root), config.data.train_files);
  session.class_names = dataset.class_names;
  if (config.data.validation > 0) {
    Split split = split_train_validation(dataset.train.labels, config.data.validation, config.seed);
    session.train = std::move(split.train);
    session.validation = std::move(split.validation);
  } else {
    session.train.resize(static_cast<std::size_t>(dataset.train.count));
    std::iota(session.train.begin(), session.train.end(), 0);
  }
  if (config.data.fraction < 1) {
    session.train = take_fraction(session.train, dataset.train.labels, config.data.fraction, config.seed);
  }
  session.test.resize(static_cast<std::size_t>(dataset.test.count));
  std::iota(session.test.begin(), session.test.end(), 0);
  session.train_data = DeviceData::upload(dataset.train, session.device);
  session.test_data = DeviceData::upload(dataset.test, session.device);
  session.augment = augment_params(config, dataset.train, true);
  session.preprocessing = augment_params(config, dataset.train, false);

  const kernels::ImageSize size = kernels::augmented_size(session.augment, {dataset.train.height, dataset.train.width});
  session.height = size.height;
  session.width = size.width;
  session.classes = config.model.classes > 0 ? config.model.classes : dataset.class_count();
  check(session.classes >= dataset.class_count(), "[model] classes = {}: {} has {} classes", session.classes,
        config.data.dataset, dataset.class_count());
  return session;
}

std::unique_ptr<Model> make_network(const TrainConfig& config, const Session& session) {
  ModelSpec spec;
  spec.arch = config.model.arch;
  spec.classes = session.classes;
  spec.stem = config.model.stem;
  spec.shortcut = config.model.shortcut;
  spec.zero_init_residual = config.model.zero_init_residual;
  std::unique_ptr<Model> model = make_model(spec);
  model->parameters().materialize(session.device, session.arithmetic.dtype, config.seed);
  return model;
}

}  // namespace retort
