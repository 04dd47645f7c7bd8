// The weighted sum of the losses of a [[loss]] list. A loss whose weight is 0 at an epoch is not active there: neither
// it nor what only it asks of student and teachers is computed, and its trainable parts rest.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "distill/distill_config.h"
#include "distill/objective.h"

namespace retort {

class DistillObjective final : public Objective {
 public:
  // Builds the losses, makes their trainable parts, and tells `teachers` what they will be asked for. The references
  // must outlive the objective. Throws Error, naming the [[loss]] block, where one does not fit the networks or the
  // batches, or where at some epoch none is active.
  DistillObjective(const Model& model, const StudentConfig& student, Teachers& teachers, const DistillConfig& config,
                   const Session& session);

  std::vector<std::string> names() const override { return names_; }
  void prepare(int epoch) override;
  LossTerms evaluate(const StepInputs& inputs) override;
  std::vector<double> weights() const override { return weights_; }
  std::vector<bool> active() const override { return active_; }
  bool rests(const Parameter& part) const override;
  ParameterStore* parts() override { return &parts_; }
  // What a user should know of the losses, a line each.
  const std::vector<std::string>& notes() const { return notes_; }

 private:
  struct Term {
    Loss loss;
    double weight;
    WeightSchedule schedule;
    int teacher;
    TapNames student_taps;
    std::optional<std::size_t> request;  // of the teachers; none where the loss needs none

    double weight_at(int epoch, int epochs) const { return weight * schedule.factor(epoch, epochs); }
  };

  void activate(std::vector<bool> active);

  const Model& model_;
  Teachers& teachers_;
  int epochs_;
  std::vector<Term> terms_;
  std::vector<std::string> names_;  // a type, numbered from its second use on
  std::vector<std::string> notes_;
  std::vector<bool> active_;
  // Of the active terms.
  TapNames taps_;
  bool uses_teachers_ = false;
  ParameterStore parts_;
  std::vector<double> weights_;
  Tensor device_weights_;  // [terms] in the accumulation type
};

}  // namespace retort
