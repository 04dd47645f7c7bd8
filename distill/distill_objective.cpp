#include "distill/distill_objective.h"

#include <algorithm>
#include <map>

namespace retort {
namespace {

std::int64_t smallest_batch(const TrainConfig& config, const Session& session) {
  const auto images = std::ssize(session.train);
  const std::int64_t rest = images % config.data.batch_size;
  return rest > 0 ? rest : std::min<std::int64_t>(images, config.data.batch_size);
}

// A loss on feature maps needs one teacher, or several that look alike there.
void check_teacher_of(const LossContext& context, const LossConfig& loss, const Teachers& teachers, Combine combine) {
  if (loss.teacher > 0 || context.teacher_taps.empty() || teachers.all().size() < 2) return;
  if (combine != Combine::random) {
    context.reject("compares feature maps and there are several teachers: say which one with teacher = 1, 2, ...");
  }
  for (const Teacher& other : teachers.all()) {
    for (const std::string& tap : context.teacher_taps) {
      const auto found = other.shape().taps.find(tap);
      if (found != other.shape().taps.end() && found->second == context.teacher.taps.at(tap)) continue;
      context.reject(
          fmt::format("a teacher drawn at random must always have the same feature map \"{}\", but {} and {} "
                      "differ there",
                      tap, context.teacher.arch, other.shape().arch));
    }
  }
}

}  // namespace

DistillObjective::DistillObjective(const Model& model, const StudentConfig& student, Teachers& teachers,
                                   const DistillConfig& config, const Session& session)
    : model_(model), teachers_(teachers), epochs_(student.train.train.epochs), weights_(student.losses.size(), 1.0) {
  const DType dtype = session.arithmetic.dtype;
  const NetworkShape own = network_shape(model, session, dtype), nobody;
  std::map<std::string, int> uses;
  for (const LossConfig& loss : student.losses) {
    const int use = ++uses[loss.type];
    names_.push_back(use == 1 ? loss.type : fmt::format("{}_{}", loss.type, use));
    const auto number = static_cast<std::size_t>(std::max(0, loss.teacher - 1));
    LossContext context{
        .where = loss.where,
        .student = own,
        .teacher = teachers.all().empty() ? nobody : teachers.all()[number].shape(),
        .smallest_batch = smallest_batch(student.train, session),
        .label_smoothing = student.train.train.label_smoothing,
        .base_lr = student.train.optimizer.lr,
        .parts = parts_,
        .prefix = names_.back() + ".",
    };
    Term term{loss.build(context), loss.weight, loss.schedule, loss.teacher, context.student_taps, {}};
    check_teacher_of(context, loss, teachers, config.combine);
    if (context.uses_teacher) term.request = teachers.request(loss.teacher, context.teacher_taps);
    terms_.push_back(std::move(term));
    notes_.insert(notes_.end(), context.notes.begin(), context.notes.end());
  }
  for (int epoch = 0; epoch < epochs_; ++epoch) {
    const bool any = std::any_of(terms_.begin(), terms_.end(),
                                 [&](const Term& term) { return term.weight_at(epoch, epochs_) != 0; });
    check(any, "{}: every [[loss]] has the weight 0 in epoch {}, which leaves nothing to learn from",
          student.losses.at(0).where, epoch + 1);
  }
  activate(std::vector<bool>(terms_.size(), true));
  // Another seed than the student's: equal shapes must not start equal.
  parts_.materialize(session.device, dtype, student.train.seed + 0x9e3779b97f4a7c15u);
  device_weights_ = Tensor::zeros({static_cast<std::int64_t>(terms_.size())}, accumulation_type(dtype), session.device);
}

void DistillObjective::activate(std::vector<bool> active) {
  if (active == active_) return;
  active_ = std::move(active);
  taps_.clear();
  uses_teachers_ = false;
  for (std::size_t i = 0; i < terms_.size(); ++i) {
    const Term& term = terms_[i];
    if (term.request) teachers_.hold(*term.request, active_[i]);
    if (!active_[i]) continue;
    taps_.insert(term.student_taps.begin(), term.student_taps.end());
    uses_teachers_ = uses_teachers_ || term.request;
  }
}

bool DistillObjective::rests(const Parameter& part) const {
  for (std::size_t i = 0; i < terms_.size(); ++i) {
    if (part.name.starts_with(names_[i] + ".")) return !active_[i];
  }
  return false;
}

void DistillObjective::prepare(int epoch) {
  std::vector<bool> active;
  for (std::size_t i = 0; i < terms_.size(); ++i) {
    weights_[i] = terms_[i].weight_at(epoch, epochs_);
    active.push_back(weights_[i] != 0);
  }
  activate(std::move(active));
  if (device_weights_.dtype() == DType::f64) {
    device_weights_.copy_from_host(weights_.data());
  } else {
    const std::vector<float> rounded(weights_.begin(), weights_.end());
    device_weights_.copy_from_host(rounded.data());
  }
}

LossTerms DistillObjective::evaluate(const StepInputs& inputs) {
  const ModelOutput output = model_.forward(inputs.batch.input, inputs.mode, taps_);
  if (uses_teachers_) inputs.teachers->await(*inputs.taught);
  LossTerms terms;
  terms.logits = output.logits;
  for (std::size_t i = 0; i < terms_.size(); ++i) {
    if (!active_[i]) {
      terms.values.emplace_back();
      terms.weighted.emplace_back();
      continue;
    }
    const LossInputs seen{inputs.batch.labels, inputs.mode, output, *inputs.taught, terms_[i].teacher};
    terms.values.push_back(terms_[i].loss(seen));
    terms.weighted.push_back(scale_by(terms.values.back(), device_weights_.slice(static_cast<std::int64_t>(i), {1})));
    terms.total = terms.total ? add(terms.total, terms.weighted[i]) : terms.weighted[i];
  }
  return terms;
}

}  // namespace retort
