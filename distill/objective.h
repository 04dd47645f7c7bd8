// What a training step minimises.
#pragma once

#include <string>
#include <vector>

#include "data/loader.h"
#include "distill/teacher.h"
#include "engine/parameters.h"
#include "models/model.h"

namespace retort {

struct StepInputs {
  const BatchBuffers& batch;
  const ForwardMode& mode;
  const Teachers* teachers = nullptr;    // null where nothing is distilled
  const TeacherBatch* taught = nullptr;  // valid on the current stream after await()
};

struct LossTerms {
  Tensor total;                  // [1] in the accumulation type: what is minimised
  std::vector<Tensor> values;    // one [1] a term, unweighted, in the order of Objective::names(); undefined where the
                                 // term is not active
  std::vector<Tensor> weighted;  // the same as they enter the total
  Tensor logits;                 // the trained network's, for the metrics
};

class Objective {
 public:
  virtual ~Objective() = default;
  virtual std::vector<std::string> names() const = 0;  // fixed for the life of the objective
  // Before the step's work is queued, outside of any recording.
  virtual void prepare(int /*epoch*/) {}
  virtual LossTerms evaluate(const StepInputs& inputs) = 0;
  // The weights at the epoch last prepared, for the log.
  virtual std::vector<double> weights() const { return std::vector<double>(names().size(), 1.0); }
  // The terms that count at the epoch last prepared; the others are not computed. Another set is other work, which
  // needs a recording of its own.
  virtual std::vector<bool> active() const { return std::vector<bool>(names().size(), true); }
  // Whether a part belongs to a term that is not active, and is to stay as it is.
  virtual bool rests(const Parameter& /*part*/) const { return false; }
  // Trainable parts of the losses; may hold nothing.
  virtual ParameterStore* parts() { return nullptr; }
};

// Cross-entropy with label smoothing on the network's logits.
class CrossEntropyObjective final : public Objective {
 public:
  CrossEntropyObjective(const Model& model, double label_smoothing) : model_(model), smoothing_(label_smoothing) {}
  std::vector<std::string> names() const override { return {"cross_entropy"}; }
  LossTerms evaluate(const StepInputs& inputs) override;

 private:
  const Model& model_;
  double smoothing_;
};

}  // namespace retort
