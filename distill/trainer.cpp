#include "distill/trainer.h"

#include <fmt/chrono.h>

#include <algorithm>
#include <ctime>
#include <utility>

#include "distill/batch_of_one.h"
#include "distill/resumption.h"
#include "distill/training_run.h"
#include "engine/terminal.h"
#include "engine/version.h"

namespace retort {
namespace {

std::string build_description() {
#ifdef NDEBUG
  constexpr const char* kind = "release";
#else
  constexpr const char* kind = "debug";
#endif
  return fmt::format("Retort {}, {}, GCC {}.{}", version(), kind, __GNUC__, __GNUC_MINOR__);
}

std::vector<TrainedNetwork> networks_of(std::vector<Learner>& learners) {
  std::vector<TrainedNetwork> networks;
  for (Learner& l : learners) networks.push_back({*l.model, *l.objective, l.optimizers(), l.config.seed});
  return networks;
}

StepOptions step_options(const Session& session) {
  StepOptions options;
  options.augment = session.augment;
  options.dtype = session.arithmetic.dtype;
  options.math = session.arithmetic.math;
  return options;
}

}  // namespace

Trainer::Trainer(const TrainingJob& job, RunDirectory& run, Console& console, const TrainerOptions& options)
    : job_(job),
      config_(job.run),
      session_(job.session),
      learners_(job.learners),
      options_(options),
      steps_(total_steps(job.run, job.session)),
      step_(networks_of(job.learners), job.teachers, job.session.train_data, step_options(job.session)),
      run_(run),
      console_(console),
      counted_(Clock::now()),
      saved_(counted_) {}

void Trainer::announce() {
  const std::string backend = kernels::backend(session_.device).description();
  const bool several = learners_.size() > 1;
  console_.print("{}: {} on {}, {}, {}", config_.name,
                 several ? fmt::format("{} students", learners_.size()) : learners_[0].config.model.arch,
                 config_.data.dataset, config_.precision, backend);
  console_.print("{} parameters{}; {} training, {} validation and {} test images; {}",
                 counted(learners_[0].model->parameters().parameter_count()), several ? " the first" : "",
                 counted(std::ssize(session_.train)), counted(std::ssize(session_.validation)),
                 counted(std::ssize(session_.test)), run_.path().string());
  if (job_.start.resumed) {
    console_.print("resumed after step {}, in epoch {}", state_.step, state_.epoch + 1);
    for (const std::string& note : job_.start.resumed->notes) console_.print("  {}", note);
    if (state_.stopped_early) {
      console_.print("stopped early: no better validation accuracy for {} epochs", config_.train.early_stop_patience);
    }
  }
  Json facts = {{"state", "running"},
                {"dataset", config_.data.dataset},
                {"epochs", config_.train.epochs},
                {"epoch", state_.epoch},
                {"device", session_.device.to_string()},
                {"backend", backend},
                {"build", build_description()},
                {"error", nullptr}};
  for (const Learner& learner : learners_) {
    Json& own = learner.name.empty() ? facts : students_[learner.name];
    own.update({{"arch", learner.config.model.arch}, {"parameters", learner.model->parameters().parameter_count()}});
  }
  if (!students_.empty()) facts["students"] = students_;
  run_.update(facts);
}

void Trainer::start() {
  for (Learner& learner : learners_) {
    learner.open_folder(run_);
    width_ = std::max(width_, learner.name.size());
  }
  if (job_.start.resumed) {
    resume();
  } else {
    run_.update({{"started", fmt::format("{:%F %H:%M}", fmt::localtime(std::time(nullptr)))}});
  }
  record_stretch(run_, job_.start);
  run_.write_config(job_.resolved_config);
  if (!config_.origin.note.empty()) console_.print("{}", config_.origin.note);
  announce();
}

void Trainer::resume() {
  state_ = load_train_state(run_.file(kStateFile), learners_);
  students_ = run_.info().value("students", Json::object());
  if (run_.damaged()) {
    console_.print("{}: is damaged; it is kept as run.json.damaged and written anew", run_.file("run.json"));
    for (const Learner& learner : learners_) record_best(learner);
  }
  save_best();  // that of a process that was killed in front of it
  if (std::exchange(state_.cut_short, false) && state_.step >= steps_) {
    ++state_.epoch;
    state_.batch = 0;
  }
  const bool looked = state_.stopped_early || state_.epoch % config_.train.evaluate_every == 0;
  if (!job_.start.resumed->changes.empty() && looked && state_.batch == 0 && !session_.validation.empty()) {
    // As the loop would have decided, had it known the new length or patience.
    const int patience = config_.train.early_stop_patience;
    state_.stopped_early = patience > 0 && std::all_of(learners_.begin(), learners_.end(), [&](const Learner& l) {
                             return state_.epoch - 1 - l.state.best_epoch >= patience;
                           });
  }
  for (Learner& learner : learners_) {
    const std::string note = learner.log->truncate(state_.step, state_.epoch);
    if (!note.empty()) console_.line(note);
  }
}

bool Trainer::trained() const {
  if (state_.stopped_early || state_.epoch >= config_.train.epochs) return true;
  // An epoch that has begun still has its validation to come, whatever the number of steps.
  return state_.step >= steps_ && state_.batch == 0;
}

bool Trainer::stop_requested() const {
  return (options_.stop_requested && options_.stop_requested()) || output_error() != 0;
}

EvaluateOptions Trainer::evaluate_options() const {
  EvaluateOptions options = session_.evaluate_options();
  options.stop_requested = [this] { return stop_requested(); };
  return options;
}

void Trainer::train_and_test(TrainSummary& summary) {
  while (!trained()) {
    train_epoch();
    end_epoch();
  }
  summary.steps = state_.step;
  summary.seconds = state_.seconds;
  test(summary);
  const kernels::MemoryStats memory = kernels::backend(session_.device).memory_stats();
  console_.print("{} steps in {}; memory: {} at the peak, {} active, {} cached", state_.step,
                 duration_text(state_.seconds), bytes_text(memory.peak_bytes), bytes_text(memory.active_bytes),
                 bytes_text(memory.cached_bytes));
  if (job_.report) job_.report(summary);
  run_.update({{"state", "finished"}, {"seconds", state_.seconds}});
  summary.finished = true;
}

TrainSummary Trainer::run() {
  start();
  TrainSummary summary;
  summary.run_path = run_.path().string();
  try {
    try {
      train_and_test(summary);
      return summary;
    } catch (const Interrupted&) {
      console_.end_progress();
      if (!trained()) save_position();  // else it is saved, and the networks may hold their best weights
      run_.update({{"state", "interrupted"}});
    }
  } catch (const std::exception& error) {
    try {
      run_.update({{"state", "failed"}, {"error", error.what()}});
    } catch (const Error&) {  // a full disk, say; the first error is the one to tell
    }
    throw;
  }
  const bool asked = options_.stop_requested && options_.stop_requested();
  check(
      asked || output_error() == 0,
      "standard output: cannot be written (is its disk full, or has its reader ended?); {} is saved after step {} and "
      "can be resumed",
      summary.run_path, state_.step);
  summary.steps = state_.step;
  return summary;
}

void Trainer::record(const Learner& learner, const Json& values) {
  if (learner.name.empty()) {
    run_.update(values);
    return;
  }
  students_[learner.name].update(values);
  run_.update({{"students", students_}});
}

RunStream::RunStream(Device device)
    : backend_(kernels::backend(device)), stream_(backend_.create_stream()), guard_(device, stream_) {}

RunStream::~RunStream() {
  backend_.destroy_stream(stream_);
}

TrainSummary run_training(const TrainingJob& job, RunDirectory& run, Console& console, const TrainerOptions& options) {
  TrainSummary summary = Trainer(job, run, console, options).run();
  summary.teacher_logits.clear();  // they belong to the run's stream, which ends before the summary does
  return summary;
}

TrainSummary finished_summary(const RunStart& start) {
  Console().line(start.finished);
  TrainSummary summary;
  summary.finished = true;
  return summary;
}

TrainSummary train(const TrainConfig& config, const TrainerOptions& options) {
  const std::string resolved = to_toml(config);
  RunStart start = start_run(config, resolved, options);
  if (!start.finished.empty()) return finished_summary(start);
  const RunStream stream(resolve_device(config));
  const Session session = make_session(config);
  std::unique_ptr<Model> model = make_network(config, session);
  const std::string report = initialize_network(*model, initial_config(config, start));
  if (options.stop_requested && options.stop_requested()) return {};
  auto objective = std::make_unique<CrossEntropyObjective>(*model, config.train.label_smoothing);
  std::vector<Learner> learners;
  learners.emplace_back("", "", config, std::move(model), std::move(objective), session);
  check_batch_of_one(config, session, learners, nullptr);
  RunDirectory run = open_run(start, config, session);
  Console console(run.file("log.txt"));
  if (!report.empty()) console.line(report);
  return run_training({config, resolved, session, learners, start}, run, console, options);
}

}  // namespace retort
