// What a training step minimises.
#pragma once

#include <string>
#include <vector>

#include "data/loader.h"
#include "models/model.h"

namespace retort {

struct LossTerms {
  Tensor total;                // [1] in the accumulation type: what is minimised
  std::vector<Tensor> values;  // one [1] a term, unweighted, in the order of Objective::names()
  Tensor logits;               // the trained network's, for the metrics
};

class Objective {
 public:
  virtual ~Objective() = default;
  virtual std::vector<std::string> names() const = 0;  // fixed for the life of the objective
  virtual LossTerms evaluate(const BatchBuffers& batch, const ForwardMode& mode) = 0;
};

// Cross-entropy with label smoothing on the network's logits.
class CrossEntropyObjective final : public Objective {
 public:
  CrossEntropyObjective(const Model& model, double label_smoothing) : model_(model), smoothing_(label_smoothing) {}
  std::vector<std::string> names() const override { return {"cross_entropy"}; }
  LossTerms evaluate(const BatchBuffers& batch, const ForwardMode& mode) override;

 private:
  const Model& model_;
  double smoothing_;
};

}  // namespace retort
