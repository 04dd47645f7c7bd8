#include "distill/prediction.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <future>
#include <nlohmann/json.hpp>
#include <numeric>

#include "distill/session.h"
#include "distill/text_table.h"
#include "engine/autograd.h"
#include "engine/json_text.h"
#include "engine/safetensors.h"
#include "engine/text.h"

namespace retort {
namespace {

constexpr std::size_t kBatch = 32;

Classifier load(const PredictionRequest& request, DType dtype) {
  ClassifierOptions options = request.network.options;
  options.device = resolve_device(request.device);
  options.dtype = dtype;
  Classifier classifier = load_classifier(options);
  const ModelSpec& spec = classifier.model->spec();
  if (!request.class_names_file.empty()) {
    classifier.class_names = read_class_names(request.class_names_file, spec.classes);
  }
  if (classifier.height == 0) classifier.height = classifier.width = spec.stem == "imagenet" ? 224 : 32;
  return classifier;
}

std::vector<Guess> best_of(const std::vector<float>& logits, std::size_t top) {
  std::vector<std::int64_t> order(logits.size());
  std::iota(order.begin(), order.end(), 0);
  const auto logit = [&](std::int64_t k) { return static_cast<double>(logits[static_cast<std::size_t>(k)]); };
  const auto end = order.begin() + static_cast<std::ptrdiff_t>(std::min(top, order.size()));
  std::partial_sort(order.begin(), end, order.end(),
                    [&](std::int64_t a, std::int64_t b) { return logit(a) != logit(b) ? logit(a) > logit(b) : a < b; });
  double sum = 0;
  for (const float v : logits) sum += std::exp(static_cast<double>(v) - logit(order[0]));
  std::vector<Guess> best;
  for (auto k = order.begin(); k != end; ++k) best.push_back({*k, std::exp(logit(*k) - logit(order[0])) / sum});
  return best;
}

// What is wrong with logits that are not all finite; "" for others.
std::string unusable(const std::vector<float>& logits) {
  const auto bad = std::find_if(logits.begin(), logits.end(), [](float v) { return !std::isfinite(v); });
  if (bad == logits.end()) return "";
  return fmt::format("the network's logit of class {} is {}, so there is no prediction", bad - logits.begin(),
                     std::isnan(*bad) ? "not a number" : "infinite");
}

// What the network's outputs are, by what it says about a grey image.
OutputKind output_kind_of(const Classifier& classifier, const InputPlan& plan, Math math) {
  const autograd::NoGradGuard no_grad;
  const Model& model = *classifier.model;
  const DType dtype = model.parameters().compute();
  ForwardMode mode;
  mode.math = math;
  const Tensor grey = Tensor::full({1, plan.height, plan.width, 3}, 0.5, dtype, model.parameters().device());
  const Tensor outputs = model.forward(grey, mode).logits.to(DType::f32);
  return output_kind(outputs.to_host<float>(), model.spec().classes, dtype);
}

}  // namespace

Predictor::Predictor(const PredictionRequest& request)
    : classifier_(load(request, arithmetic_of(request.precision).dtype)),
      plan_(input_plan(classifier_.height, classifier_.width, request.resize, request.crop)),
      normalization_(normalization_of(classifier_, request.network.normalize)),
      top_(
          std::min(static_cast<std::size_t>(request.top), static_cast<std::size_t>(classifier_.model->spec().classes))),
      math_(arithmetic_of(request.precision).math),
      output_kind_(output_kind_of(classifier_, plan_, math_)) {
  classifier_.note = joined_notes(classifier_.note, note_about(output_kind_));
}

std::string Predictor::description() const {
  const std::string text =
      fmt::format("{}, {} classes, {}; images: {}, mean {:.4g}, deviation {:.4g}", classifier_.model->spec().arch,
                  classifier_.model->spec().classes, classifier_.file, plan_.text(),
                  fmt::join(normalization_.mean, " "), fmt::join(normalization_.std, " "));
  return joined_notes(text, classifier_.note);
}

void Predictor::run(const std::vector<std::string>& files, const std::function<void(const Prediction&)>& found,
                    const std::function<void(const std::string&)>& failed) const {
  const autograd::NoGradGuard no_grad;
  const Model& model = *classifier_.model;
  const Device device = model.parameters().device();
  const auto classes = static_cast<std::size_t>(model.spec().classes);
  const auto params = make_augment_params({}, normalization_, 0, {plan_.height, plan_.width});
  ForwardMode mode;
  mode.math = math_;
  const std::span<const std::string> all(files);
  const auto read = [&](std::size_t begin) {
    return std::async(std::launch::async, [&, begin] {
      return read_images(all.subspan(begin, std::min(kBatch, all.size() - begin)), plan_);
    });
  };
  std::future<ImageBatch> next;
  if (!files.empty()) next = read(0);
  for (std::size_t begin = 0; begin < files.size(); begin += kBatch) {
    const ImageBatch batch = next.get();
    if (begin + kBatch < files.size()) next = read(begin + kBatch);
    for (const std::string& error : batch.errors) failed(error);
    const auto count = static_cast<std::int64_t>(batch.which.size());
    if (count == 0) continue;
    const DeviceData data{
        Tensor::from_bytes(batch.pixels.data(), {count, plan_.height, plan_.width, 3}, DType::u8, device),
        Tensor::zeros({count}, DType::i32, device)};
    std::vector<std::int32_t> indices(batch.which.size());
    std::iota(indices.begin(), indices.end(), 0);
    BatchBuffers buffers(data, count, model.parameters().compute(), params);
    buffers.fill(indices, 0);
    const Tensor outputs = as_logits(output_kind_, model.forward(buffers.input, mode).logits);
    const std::vector<float> logits = outputs.to(DType::f32).to_host<float>();
    for (std::size_t n = 0; n < batch.which.size(); ++n) {
      const auto row = logits.begin() + static_cast<std::ptrdiff_t>(n * classes);
      Prediction prediction{files[begin + batch.which[n]], {}, {row, row + static_cast<std::ptrdiff_t>(classes)}};
      if (const std::string bad = unusable(prediction.logits); !bad.empty()) {
        failed(fmt::format("{}: {}: {}", prediction.file, classifier_.file, bad));
        continue;
      }
      prediction.best = best_of(prediction.logits, top_);
      found(prediction);
    }
  }
}

std::string csv_header(std::size_t guesses) {
  std::string line = "file,label,probability";
  for (std::size_t k = 2; k <= guesses; ++k) line += fmt::format(",label_{},probability_{}", k, k);
  return line + "\n";
}

std::string csv_line(const Prediction& prediction, const Predictor& predictor) {
  std::string line = csv_field(prediction.file);
  for (const Guess& guess : prediction.best) {
    line += fmt::format(",{},{:.6f}", csv_field(predictor.class_name(guess.number)), guess.probability);
  }
  return line + "\n";
}

void write_logits(const std::string& path, const std::vector<float>& logits, const std::vector<std::string>& files,
                  const Predictor& predictor) {
  const std::int64_t classes = predictor.classifier().model->spec().classes;
  write_safetensors(
      path, {float_array("logits", {std::ssize(files), classes}, logits)},
      {{"files", json_text(nlohmann::json(files))},
       {"arch", predictor.classifier().model->spec().arch},
       {"class_names", valid_utf8(fmt::format("{}", fmt::join(predictor.classifier().class_names, "\n")))}});
}

}  // namespace retort
