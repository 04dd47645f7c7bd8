#include "distill/session.h"

#include <algorithm>
#include <charconv>
#include <filesystem>
#include <numeric>

#include "data/augment_config.h"
#include "data/catalog.h"
#include "data/dataset.h"
#include "data/split.h"
#include "distill/classifier.h"
#include "distill/console.h"
#include "distill/foreign_words.h"
#include "distill/memory_need.h"
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
  const auto params = [&] {
    return make_augment_params(steps, normalization_of(config), config.seed, {images.height, images.width});
  };
  if (training) {
    for (const AugmentEntry& entry : config.data.augment) {
      const std::string key = fmt::format("data.augment.{}", steps.size());
      steps.push_back({entry.name, entry.options});
      config.origin.about(key, params);  // the first that does not fit is to blame
    }
  }
  return params();
}

// Training and validation images, and the part of the former that is learned from.
void split_images(const TrainConfig& config, const Dataset& dataset, Session& session) {
  if (config.data.validation > 0) {
    Split split = config.origin.about("data.validation", [&] {
      return split_train_validation(dataset.train.labels, config.data.validation, config.seed);
    });
    session.train = std::move(split.train);
    session.validation = std::move(split.validation);
  } else {
    session.train.resize(static_cast<std::size_t>(dataset.train.count));
    std::iota(session.train.begin(), session.train.end(), 0);
  }
  if (session.validation.empty() && config.train.early_stop_patience > 0) {
    config.origin.reject("train.early_stop_patience", kNothingValidated);
  }
  if (config.data.fraction < 1) {
    session.train = take_fraction(session.train, dataset.train.labels, config.data.fraction, config.seed);
  }
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

Device resolve_device(const TrainConfig& config) {
  return config.origin.about("device", [&] { return resolve_device(config.device); });
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
  if (config.model.init.empty()) {
    config.origin.reject("model.init", "names the weights that --evaluate-only evaluates; it is not set");
  }
  const Session session = make_session(config);
  Console console;
  console.print("{}: {} on the {} test images of {}, {}, {}", config.name, config.model.arch,
                counted(session.test_data.count()), config.data.dataset, config.precision,
                kernels::backend(session.device).description());
  const std::unique_ptr<Model> model = make_network(config, session, NetworkUse::evaluation);
  const std::string note = load_weights(*model, config.model.init);
  console.print("weights from {}{}{}", config.model.init, note.empty() ? "" : "; ", note);
  std::vector<float> logits;
  const Metrics m = evaluate(*model, session.test_data, session.test, session.evaluate_options(),
                             logits_path.empty() ? nullptr : &logits);
  if (!all_finite(m)) {
    fail("{}: the logits hold NaN or infinity; first bad: {}", config.model.init,
         first_nonfinite(*model, session.test_data, session.test, session.evaluate_options()));
  }
  console.print("test: loss {} top-1 {:.2f} % top-5 {:.2f} %", loss_text(m.loss), 100 * m.top1, 100 * m.top5);
  if (logits_path.empty()) return;
  write_safetensors(logits_path, {float_array("logits", {m.samples, model->spec().classes}, logits)},
                    checkpoint_metadata(*model, session, config));
  console.print("logits in {}", logits_path);
}

std::string load_weights(Model& model, const std::string& file, const std::vector<std::string>& skip) {
  WeightFile weights = read_weight_file(in_project(file));
  const ModelSpec& spec = model.spec();
  pass_over_foreign_words(weights, spec.arch, spec.stem, spec.shortcut);
  pass_over_foreign_classes(weights, spec.classes);
  LoadOptions options;
  options.arch = spec.arch;
  if (skip.empty()) options.classes = static_cast<int>(spec.classes);
  options.skip = skip;
  return model.parameters().load(weights, options).note;
}

Session make_session(const TrainConfig& config) {
  Session session;
  session.device = resolve_device(config);
  session.arithmetic = arithmetic_of(config);

  const std::string root = in_project(config.data.root);
  if (!root.empty() && !known_set(config.data.dataset).built_in() && !std::filesystem::is_directory(root)) {
    config.origin.reject("data.root", fmt::format("no such folder; fetch the set into it with ./dataset {} --root {}",
                                                  config.data.dataset, root));
  }
  const Dataset dataset = load_dataset(config.data.dataset, root, config.data.train_files);
  session.class_names = dataset.class_names;
  session.classes = config.model.classes > 0 ? config.model.classes : dataset.class_count();
  if (session.classes < dataset.class_count()) {
    config.origin.reject("model.classes", fmt::format("{} has {} classes", config.data.dataset, dataset.class_count()));
  }
  session.augment = augment_params(config, dataset.train, true);
  session.preprocessing = augment_params(config, dataset.train, false);
  split_images(config, dataset, session);
  session.test.resize(static_cast<std::size_t>(dataset.test.count));
  std::iota(session.test.begin(), session.test.end(), 0);
  session.train_data = DeviceData::upload(dataset.train, session.device);
  session.test_data = DeviceData::upload(dataset.test, session.device);
  const kernels::ImageSize size = kernels::augmented_size(session.augment, {dataset.train.height, dataset.train.width});
  session.height = size.height;
  session.width = size.width;
  return session;
}

ModelSpec model_spec(const TrainConfig& config, const Session& session) {
  ModelSpec spec;
  spec.arch = config.model.arch;
  spec.classes = session.classes;
  spec.stem = config.model.stem;
  spec.shortcut = config.model.shortcut;
  spec.zero_init_residual = config.model.zero_init_residual;
  return spec;
}

std::unique_ptr<Model> make_network(const TrainConfig& config, const Session& session, NetworkUse use) {
  check_memory(config, session, use);
  std::unique_ptr<Model> model = make_model(model_spec(config, session));
  model->parameters().materialize(session.device, session.arithmetic.dtype, config.seed);
  return model;
}

}  // namespace retort
