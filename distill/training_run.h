// The training loop's own header: what trainer.cpp (beginning and end of a run), training_loop.cpp (steps), epoch_end.cpp
// (validation, files) and final_test.cpp share.
#pragma once

#include <chrono>
#include <optional>
#include <string>
#include <vector>

#include "distill/train_state.h"
#include "distill/trainer.h"
#include "distill/training_step.h"

namespace retort {

// Files and position change only where nothing can be interrupted: a stop in a step waits for its end, one in a
// validation or a test throws Interrupted and leaves all as it was, and a resumed run does that evaluation again.
class Trainer {
 public:
  Trainer(const TrainingJob& job, RunDirectory& run, Console& console, const TrainerOptions& options);

  TrainSummary run();

 private:
  using Json = nlohmann::ordered_json;
  using Clock = std::chrono::steady_clock;

  // trainer.cpp
  void start();
  void resume();
  void announce();
  void train_and_test(TrainSummary& summary);
  bool trained() const;
  bool stop_requested() const;
  EvaluateOptions evaluate_options() const;
  void record(const Learner& learner, const Json& values);
  std::string label(const Learner& l) const { return l.name.empty() ? "" : fmt::format("{:<{}}  ", l.name, width_); }

  // training_loop.cpp
  void train_epoch();
  void take_stock();
  void collect();
  void log_step(std::size_t learner, const StepRecords& records);
  void log_gradient_norms();
  [[noreturn]] void stop_nonfinite(std::size_t learner, const StepRecords& records) const;

  // epoch_end.cpp
  void end_epoch();
  std::vector<std::optional<Metrics>> validate(bool last) const;
  bool close_epoch_of(std::size_t learner, const std::optional<Metrics>& validation, bool last);
  void prepare_saving() const;
  void save_position();
  void save_state();
  void save_cut_short(const std::vector<LearnerState>& before);
  void save_best();
  void record_best(const Learner& learner);
  void save_weights(const Learner& learner, const char* file, int epoch, std::optional<double> validation_top1) const;
  std::string kept(const Learner& learner) const;

  // final_test.cpp
  void test(TrainSummary& summary);
  LearnerResult test(Learner& learner, const std::vector<Tensor>& teacher_logits);
  Metrics measure(Learner& learner, const char* checkpoint, const EvaluateOptions& options);
  void load_best(Learner& learner) const;

  const TrainingJob& job_;
  const TrainConfig& config_;
  const Session& session_;
  std::vector<Learner>& learners_;
  const TrainerOptions& options_;
  std::int64_t steps_;
  TrainingStep step_;
  RunDirectory& run_;
  Console& console_;
  TrainState state_;
  Clock::time_point counted_, saved_;  // until when state_ counts the time; when the state was last written
  std::size_t width_ = 0;              // of the longest learner's name
  Json students_ = Json::object();     // of run.json, where there are several learners
};

nlohmann::ordered_json to_json(const Metrics& metrics);

}  // namespace retort
