#include "distill/training_run.h"
#include "engine/ops.h"
#include "engine/safetensors.h"

namespace retort {

void Trainer::test(TrainSummary& summary) {
  summary.learners.resize(learners_.size());
  if (!config_.train.evaluate_test) return;
  if (job_.teachers != nullptr) {
    summary.teacher_logits =
        evaluate_logits([&](const Tensor& input) { return job_.teachers->evaluation_logits(input); },
                        session_.test_data, session_.test, evaluate_options());
    for (const Tensor& logits : summary.teacher_logits) {
      check(all_finite(logits), "{}: the teachers' logits on the test images hold NaN or infinity", summary.run_path);
    }
  }
  for (std::size_t n = 0; n < learners_.size(); ++n) {
    summary.learners[n] = test(learners_[n], summary.teacher_logits);
  }
}

LearnerResult Trainer::test(Learner& learner, const std::vector<Tensor>& teacher_logits) {
  EvaluateOptions options = evaluate_options();
  if (job_.teachers != nullptr) options.teacher = &teacher_logits;
  LearnerResult result;
  result.test_last = measure(learner, "last", options);
  if (learner.state.best_epoch < 0) return result;  // no validation split, nothing was selected
  load_best(learner);
  result.test_best = measure(learner, "best", options);
  return result;
}

Metrics Trainer::measure(Learner& learner, const char* checkpoint, const EvaluateOptions& options) {
  const Metrics m = evaluate(*learner.model, session_.test_data, session_.test, options);
  if (!all_finite(m)) {
    fail("{}: the loss of the {} checkpoint on the test images is {} and {} logits are not finite; first bad: {}",
         learner.folder, checkpoint, m.loss, m.nonfinite,
         first_nonfinite(*learner.model, session_.test_data, session_.test, options));
  }
  Json line = {{"kind", "test"}, {"checkpoint", checkpoint}};
  line.update(to_json(m));
  learner.log->append(line);
  record(learner,
         {{fmt::format("test_{}_top1", checkpoint), m.top1}, {fmt::format("test_{}_loss", checkpoint), m.loss}});
  console_.print("{}test, {} checkpoint: loss {} top-1 {:.2f} % top-5 {:.2f} %", label(learner), checkpoint,
                 loss_text(m.loss), 100 * m.top1, 100 * m.top5);
  return m;
}

void Trainer::load_best(Learner& learner) const {
  const std::string file = learner.file("best.safetensors");
  const LearnerState& s = learner.state;
  const WeightFile found = read_safetensors(file);
  const std::string epoch = found.metadata_or("epoch", "?"), step = found.metadata_or("step", "?");
  const bool known = s.best_step >= 0;  // states of earlier versions tell the epoch only
  check(epoch == std::to_string(s.best_epoch + 1) && (!known || step == std::to_string(s.best_step)),
        "{}: is of epoch {}, step {}, but the best validation was in epoch {}{}: another program has replaced it", file,
        epoch, step, s.best_epoch + 1, known ? fmt::format(", step {}", s.best_step) : "");
  load_weights(*learner.model, file);
}

}  // namespace retort
