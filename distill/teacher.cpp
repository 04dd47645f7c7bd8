#include "distill/teacher.h"

#include <algorithm>
#include <cmath>
#include <sstream>

#include "data/random_stream.h"
#include "distill/classifier.h"
#include "engine/autograd.h"
#include "engine/ops.h"
#include "engine/stream.h"

namespace retort {
namespace {

std::optional<double> number(const std::string& text) {
  std::istringstream in(text);
  double value = 0;
  return in >> value ? std::optional(value) : std::nullopt;
}

TrainConfig with_precision(const TrainConfig& run, const std::string& precision) {
  TrainConfig config = run;
  if (!precision.empty()) config.precision = precision;
  return config;
}

// z with softmax(z / temperature) the mean of the teachers' softmaxes. Losses at a temperature of their own do not see a
// constant in z, so T log C is added: the type then holds the differences between logits, and not that constant.
Tensor softened_mean(const std::vector<Tensor>& logits, double temperature) {
  if (temperature == 1) return mean_softmax_logits(logits, 1);
  std::vector<Tensor> wide;
  for (const Tensor& z : logits) wide.push_back(cast(z, DType::f64));
  const Tensor mean = mean_softmax_logits(wide, temperature);
  const double constant = temperature * std::log(static_cast<double>(mean.dim(1)));
  return cast(add(mean, Tensor::full(mean.shape(), constant, DType::f64, mean.device())), logits[0].dtype());
}

}  // namespace

NetworkShape network_shape(const Model& model, const Session& session, DType dtype) {
  const autograd::NoGradGuard no_grad;
  const std::vector<std::string> names = model.tap_names();
  const Tensor image = Tensor::zeros({1, session.height, session.width, 3}, dtype, session.device);
  const ModelOutput output = model.forward(image, {}, TapNames(names.begin(), names.end()));
  NetworkShape shape;
  shape.arch = model.spec().arch;
  shape.classes = model.spec().classes;
  shape.stages = model.stage_names();
  for (const auto& [name, value] : output.taps) shape.taps[name] = value.shape();
  return shape;
}

Combine combine_of(const std::string& name) {
  return name == "mean_logits" ? Combine::mean_logits : name == "random" ? Combine::random : Combine::mean_softmax;
}
std::vector<std::string> combine_names() {
  return {"mean_softmax", "mean_logits", "random"};
}

const ModelOutput& TeacherBatch::output(int teacher) const {
  const ModelOutput& found = outputs_.at(static_cast<std::size_t>(std::max(0, teacher - 1)));
  check(found.logits.defined(), "teacher {}: asked for without request()", teacher);
  return found;
}

const Tensor& TeacherBatch::tap(int teacher, const std::string& name) const {
  return output(teacher).taps.at(name);
}

void TeacherBatch::adopt() const {
  for (const ModelOutput& output : outputs_) {
    if (output.logits) output.logits.adopt();
    for (const auto& [name, tap] : output.taps) tap.adopt();
  }
}

Tensor TeacherBatch::logits(int teacher, double temperature) const {
  if (teacher > 0 || outputs_.size() == 1) return output(teacher).logits;
  Tensor& result = combined_[temperature];
  if (result) return result;
  const autograd::NoGradGuard no_grad;
  std::vector<Tensor> logits;
  for (std::size_t k = 1; k <= outputs_.size(); ++k) logits.push_back(output(static_cast<int>(k)).logits);
  if (combine_ == Combine::mean_softmax) return result = softened_mean(logits, temperature);
  Tensor sum = logits[0];
  for (std::size_t k = 1; k < logits.size(); ++k) sum = add(sum, logits[k]);
  return result = scale(sum, 1.0 / static_cast<double>(logits.size()));
}

Teacher::Teacher(const TeacherConfig& config, const TrainConfig& run, const Session& session)
    : arithmetic_(arithmetic_of(with_precision(run, config.precision))) {
  ClassifierOptions options;
  options.where = config.where;
  options.path = config.path;
  options.arch = config.arch;
  options.stem = config.stem;
  options.shortcut = config.shortcut;
  options.classes = session.classes;
  options.fold = config.fold;
  options.device = session.device;
  options.dtype = arithmetic_.dtype;
  Classifier classifier = load_classifier(options);
  file_ = classifier.file;
  model_ = std::move(classifier.model);
  shape_ = network_shape(*model_, session, arithmetic_.dtype);
  recorded_top1_ = number(classifier.metadata_or("validation_top1", ""));
  if (recorded_top1_ && !(*recorded_top1_ >= 0 && *recorded_top1_ <= 1)) recorded_top1_.reset();  // not in our words
  recorded_dataset_ = classifier.metadata_or("dataset", "");

  note_ = classifier.note;
  const auto& theirs = classifier.normalization;
  const auto& ours = run.data.normalize;
  if (!theirs || (std::equal(ours.mean.begin(), ours.mean.end(), theirs->mean) &&
                  std::equal(ours.std.begin(), ours.std.end(), theirs->std))) {
    return;
  }
  std::vector<double> factor, offset;
  for (std::size_t c = 0; c < 3; ++c) {
    factor.push_back(ours.std[c] / theirs->std[c]);
    offset.push_back((ours.mean[c] - theirs->mean[c]) / theirs->std[c]);
  }
  const DType type = accumulation_type(arithmetic_.dtype);
  scale_ = Tensor::from(factor, {3}, session.device).to(type);
  shift_ = Tensor::from(offset, {3}, session.device).to(type);
  zero_ = Tensor::zeros({3}, type, session.device);
  one_ = Tensor::full({3}, 1.0, type, session.device);
  note_ = joined_notes(note_, "it was trained with another normalisation, which its input is converted to");
}

void Teacher::set_output_kind(OutputKind kind) {
  output_kind_ = kind;
  note_ = joined_notes(note_, note_about(kind));
}

ModelOutput Teacher::forward(const Tensor& input, const TapNames& taps) const {
  const autograd::NoGradGuard no_grad;
  Tensor x = input.to(arithmetic_.dtype);
  if (scale_) {
    BatchNormParams exact;
    exact.epsilon = 0;
    x = batch_norm_inference(x, Tensor(), scale_, shift_, {zero_, one_, Tensor()}, exact);
  }
  ForwardMode mode;
  mode.math = arithmetic_.math;
  ModelOutput output = model_->forward(x, mode, taps);
  output.logits = as_logits(output_kind_, output.logits).to(input.dtype());
  for (auto& [name, tap] : output.taps) tap = tap.to(input.dtype());
  return output;
}

namespace {

std::vector<Teacher> load_teachers(const std::vector<TeacherConfig>& configs, const TrainConfig& run,
                                   const Session& session) {
  std::vector<Teacher> teachers;
  for (const TeacherConfig& config : configs) {
    try {
      teachers.emplace_back(config, run, session);
    } catch (const Error& e) {
      const std::string text = e.what();
      fail("{}{}", text.starts_with(config.where) ? "" : config.where + ": ", text);
    }
  }
  return teachers;
}

}  // namespace

Teachers::Teachers(const std::vector<TeacherConfig>& configs, Combine combine, const TrainConfig& run,
                   const Session& session)
    : teachers_(load_teachers(configs, run, session)),
      used_(configs.size(), false),
      taps_(configs.size()),
      combine_(combine),
      seed_(run.seed),
      device_(session.device),
      stream_(kernels::backend(session.device).create_stream()) {}

Teachers::~Teachers() {
  kernels::backend(device_).destroy_stream(stream_);
}

std::size_t Teachers::request(int teacher, const TapNames& taps) {
  requests_.push_back({teacher, taps, false});
  hold(requests_.size() - 1, true);
  return requests_.size() - 1;
}

void Teachers::hold(std::size_t request, bool holds) {
  if (requests_.at(request).holds == holds) return;
  requests_[request].holds = holds;
  for (std::size_t k = 0; k < teachers_.size(); ++k) {
    used_[k] = false;
    taps_[k].clear();
    for (const Request& r : requests_) {
      const bool meant = r.teacher == 0 || k + 1 == static_cast<std::size_t>(r.teacher);
      if (!r.holds || !meant) continue;
      used_[k] = true;
      taps_[k].insert(r.taps.begin(), r.taps.end());
    }
  }
}

int Teachers::draw(std::int64_t step) const {
  if (combine_ != Combine::random || teachers_.size() < 2) return 0;
  const auto number = static_cast<std::uint64_t>(step);
  RandomStream random(seed_, kPurposeTeacher, static_cast<std::uint32_t>(number >> 32),
                      static_cast<std::uint32_t>(number));
  return static_cast<int>(random.below(static_cast<std::uint32_t>(teachers_.size())));
}

TeacherBatch Teachers::forward(const Tensor& input, int drawn) const {
  if (std::none_of(used_.begin(), used_.end(), [](bool u) { return u; })) return {};
  kernels::Backend& backend = kernels::backend(device_);
  backend.wait(stream_, current_stream(device_));
  const StreamGuard guard(device_, stream_);
  std::vector<ModelOutput> outputs;
  if (combine_ == Combine::random) {
    const auto chosen = static_cast<std::size_t>(drawn);
    outputs.push_back(teachers_[chosen].forward(input, taps_[chosen]));
  } else {
    for (std::size_t k = 0; k < teachers_.size(); ++k) {
      outputs.push_back(used_[k] ? teachers_[k].forward(input, taps_[k]) : ModelOutput());
    }
  }
  return TeacherBatch(std::move(outputs), combine_);
}

void Teachers::await(const TeacherBatch& batch) const {
  if (batch.empty()) return;
  kernels::backend(device_).wait(current_stream(device_), stream_);
  batch.adopt();
}

Tensor Teachers::evaluation_logits(const Tensor& input) const {
  std::vector<ModelOutput> outputs;
  for (const Teacher& teacher : teachers_) outputs.push_back(teacher.forward(input, {}));
  return TeacherBatch(std::move(outputs), combine_ == Combine::mean_logits ? combine_ : Combine::mean_softmax)
      .logits(0, 1);
}

}  // namespace retort
