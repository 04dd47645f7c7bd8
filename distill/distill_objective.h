// The weighted sum of the losses of a [[loss]] list.
#pragma once

#include <string>
#include <vector>

#include "distill/distill_config.h"
#include "distill/objective.h"

namespace retort {

class DistillObjective final : public Objective {
 public:
  // Builds the losses, makes their trainable parts, and tells `teachers` what they will be asked for. The references
  // must outlive the objective. Throws Error, naming the [[loss]] block, where one does not fit the networks or the
  // batches.
  DistillObjective(const Model& model, const StudentConfig& student, Teachers& teachers, const DistillConfig& config,
                   const Session& session);

  std::vector<std::string> names() const override { return names_; }
  void prepare(int epoch) override;
  LossTerms evaluate(const StepInputs& inputs) override;
  std::vector<double> weights() const override { return weights_; }
  ParameterStore* parts() override { return &parts_; }

 private:
  struct Term {
    Loss loss;
    double weight;
    WeightSchedule schedule;
    int teacher;
  };

  const Model& model_;
  int epochs_;
  std::vector<Term> terms_;
  std::vector<std::string> names_;  // a type, numbered from its second use on
  TapNames taps_;
  ParameterStore parts_;
  std::vector<double> weights_;
  Tensor device_weights_;  // [terms] in the accumulation type
};

}  // namespace retort
