#include "distill/evaluation.h"

#include <algorithm>
#include <filesystem>
#include <numeric>

#include "data/dataset.h"
#include "data/split.h"
#include "distill/output_kind.h"
#include "distill/session.h"
#include "engine/project_folder.h"

namespace retort {
namespace {

namespace fs = std::filesystem;

// What the run that a checkpoint belongs to was told; nothing for a file on its own. A student's folder lies in its
// run's, and a distillation's config has more in it than is asked for here.
std::optional<TrainConfig> config_of_run(const std::string& checkpoint) {
  const fs::path folder = fs::path(checkpoint).parent_path();
  for (const fs::path& place : {folder, folder.parent_path()}) {
    const fs::path file = place / "config.cfg";
    if (!fs::exists(file)) continue;
    const ConfigValue tree = load_config_tree(file.string());
    ConfigSection top(tree, "");
    return read_train_config(top, "run");
  }
  return std::nullopt;
}

struct Images {
  Dataset dataset;
  DeviceData data;
  std::vector<std::int32_t> indices, labels;  // labels in the order of the indices
};

Images load_images(const EvaluationRequest& request, const Classifier& classifier) {
  const std::optional<TrainConfig> run = config_of_run(classifier.file);
  const std::string recorded = classifier.metadata_or("dataset", run ? run->data.dataset : "");
  const std::string name = request.dataset.empty() ? recorded : request.dataset;
  check(!name.empty(), "{}: does not say which data set it is for; give --data", classifier.file);
  const bool own = run && run->data.dataset == name;
  const std::string root = in_project(request.root.empty() && own ? run->data.root : request.root);
  Images images;
  if (request.split == "test") {
    images.dataset = load_test_images(name, root);
    images.data = DeviceData::upload(images.dataset.test, classifier.model->parameters().device());
    images.labels = images.dataset.test.labels;
    images.indices.resize(images.labels.size());
    std::iota(images.indices.begin(), images.indices.end(), 0);
    return images;
  }
  check(
      own && run->data.validation > 0,
      "{}: which images are the validation split is said by the config.cfg of a run on {} that has one; there is none",
      classifier.file, name);
  images.dataset = load_dataset(name, root, run->data.train_files);
  images.data = DeviceData::upload(images.dataset.train, classifier.model->parameters().device());
  const std::vector<std::int32_t>& labels = images.dataset.train.labels;
  images.indices = split_train_validation(labels, run->data.validation, run->seed).validation;
  for (const std::int32_t index : images.indices) images.labels.push_back(labels[static_cast<std::size_t>(index)]);
  return images;
}

kernels::AugmentParams preprocessing_of(const Classifier& classifier, const std::string& preset, const ImageSet& set) {
  return make_augment_params({}, normalization_of(classifier, preset), 0, {set.height, set.width});
}

void check_finite(const Classifier& classifier, const Metrics& metrics, const Images& images,
                  const EvaluateOptions& options) {
  if (all_finite(metrics)) return;
  fail("{}: {} of its logits for the {} images are NaN or infinite; first bad: {}", classifier.file, metrics.nonfinite,
       metrics.samples, first_nonfinite(*classifier.model, images.data, images.indices, options));
}

LogitsOf logits_of(const Classifier& classifier, Math math) {
  return [&model = *classifier.model, math](const Tensor& input) {
    ForwardMode mode;
    mode.math = math;
    return model.forward(input, mode).logits;
  };
}

// The logits of every batch, whatever the network's outputs are; what they are goes into its note.
std::vector<Tensor> all_logits(Classifier& classifier, const Images& images, const EvaluateOptions& options) {
  std::vector<Tensor> outputs =
      evaluate_logits(logits_of(classifier, options.math), images.data, images.indices, options);
  std::vector<float> rows;
  for (const Tensor& batch : outputs) {
    const std::vector<float> values = batch.to(DType::f32).to_host<float>();
    rows.insert(rows.end(), values.begin(), values.end());
  }
  const OutputKind kind = output_kind(rows, classifier.model->spec().classes, options.dtype);
  for (Tensor& batch : outputs) batch = as_logits(kind, batch);
  classifier.note = joined_notes(classifier.note, note_about(kind));
  return outputs;
}

LogitsOf replayed(const std::vector<Tensor>& logits) {
  return [next = logits.begin()](const Tensor&) mutable { return *next++; };
}

}  // namespace

Normalization normalization_of(const Classifier& classifier, const std::string& preset) {
  if (!preset.empty()) return normalization_preset(preset);
  check(classifier.normalization.has_value(),
        "{}: does not say how its images are normalised; give --normalize (imagenet, cifar10, ...)", classifier.file);
  return *classifier.normalization;
}

Evaluation evaluate_classifier(const EvaluationRequest& request) {
  const Arithmetic arithmetic = arithmetic_of(request.precision);
  const Device device = resolve_device(request.device);
  const auto load = [&](const NetworkChoice& choice) {
    ClassifierOptions options = choice.options;
    options.device = device;
    options.dtype = arithmetic.dtype;
    return load_classifier(options);
  };
  Classifier classifier = load(request.network);
  const std::int64_t classes = classifier.model->spec().classes;

  Evaluation result;
  result.file = classifier.file;
  result.arch = classifier.model->spec().arch;
  result.split = request.split;
  result.device = kernels::backend(device).description();
  result.precision = request.precision;
  result.parameters = classifier.model->parameters().parameter_count();
  {
    const Images images = load_images(request, classifier);
    const ImageSet& set = request.split == "test" ? images.dataset.test : images.dataset.train;
    check(classes >= images.dataset.class_count(), "{}: tells {} classes apart, {} has {}", classifier.file, classes,
          images.dataset.name, images.dataset.class_count());
    result.dataset = images.dataset.name;
    result.class_names = named_classes(images.dataset.class_names, classes);
    result.height = set.height;
    result.width = set.width;

    EvaluateOptions options;
    options.dtype = arithmetic.dtype;
    options.math = arithmetic.math;
    std::vector<Tensor> teacher_logits;
    if (request.teacher) {
      Classifier teacher = load(*request.teacher);
      check(teacher.model->spec().classes == classes, "{}: the teacher tells {} classes apart, {} {}", teacher.file,
            teacher.model->spec().classes, classifier.file, classes);
      options.preprocessing = preprocessing_of(teacher, request.teacher->normalize, set);
      teacher_logits = all_logits(teacher, images, options);
      result.teacher_file = teacher.file;
      result.teacher_arch = teacher.model->spec().arch;
      result.teacher_note = teacher.note;
      result.teacher_metrics = evaluate(replayed(teacher_logits), images.data, images.indices, options);
      check_finite(teacher, result.teacher_metrics, images, options);
      options.teacher = &teacher_logits;
    }
    options.preprocessing = preprocessing_of(classifier, request.network.normalize, set);
    const std::vector<Tensor> own = all_logits(classifier, images, options);
    result.note = classifier.note;
    std::vector<float> logits;
    result.metrics = evaluate(replayed(own), images.data, images.indices, options, &logits);
    check_finite(classifier, result.metrics, images, options);
    result.report = classification_report(logits, images.labels, classes);
  }  // what is measured now has the memory to itself
  result.multiply_adds = multiply_adds(*classifier.model, result.height, result.width);
  if (request.speed_seconds > 0) {
    const kernels::ImageSize size{static_cast<int>(result.height), static_cast<int>(result.width)};
    result.speed =
        measure_speed(logits_of(classifier, arithmetic.math), size, arithmetic.dtype, device, request.speed_seconds);
  }
  return result;
}

}  // namespace retort
