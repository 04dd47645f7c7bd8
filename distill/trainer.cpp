#include "distill/trainer.h"

#include <fmt/chrono.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <ctime>
#include <filesystem>

#include "data/split.h"
#include "distill/train_state.h"
#include "distill/training_step.h"
#include "engine/project_folder.h"

namespace retort {
namespace {

using Json = nlohmann::ordered_json;
using Clock = std::chrono::steady_clock;

std::string build_description() {
#ifdef NDEBUG
  constexpr const char* kind = "release";
#else
  constexpr const char* kind = "debug";
#endif
  return fmt::format("{}, GCC {}.{}", kind, __GNUC__, __GNUC_MINOR__);
}

Json to_json(const Metrics& m) {
  Json json = {{"loss", m.loss}, {"top1", m.top1}, {"top5", m.top5}};
  if (m.compared) json.update({{"agreement", m.agreement}, {"logit_difference", m.logit_difference}});
  return json;
}

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
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

class Trainer {
 public:
  Trainer(const TrainingJob& job, RunDirectory& run, Console& console, const TrainerOptions& options)
      : job_(job),
        config_(job.run),
        session_(job.session),
        learners_(job.learners),
        options_(options),
        steps_(total_steps(job.run, job.session)),
        step_(networks_of(job.learners), job.teachers, job.session.train_data, step_options(job.session)),
        run_(run),
        console_(console) {}

  TrainSummary run();

 private:
  void start();
  void announce();
  bool train_epoch();  // false: stop was requested
  void collect();
  void log_step(std::size_t learner, const StepRecords& records);
  void log_gradient_norms();
  void end_epoch();
  bool end_epoch_of(std::size_t learner, bool last);  // true: it has run out of patience
  void save_state() { save_train_state(run_.file("state.safetensors"), state_, learners_); }
  void save_weights(const Learner& learner, const char* file, int epoch, const std::optional<Metrics>& validation);
  void record(const Learner& learner, const Json& values);
  LearnerResult test(Learner& learner, const std::vector<Tensor>& teacher_logits);
  [[noreturn]] void stop_nonfinite(std::size_t learner, const StepRecords& records);
  std::string label(const Learner& l) const { return l.name.empty() ? "" : fmt::format("{:<{}}  ", l.name, width_); }

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
  std::size_t width_ = 0;           // of the longest learner's name
  Json students_ = Json::object();  // of run.json, where there are several learners
};

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
  if (state_.step > 0) console_.print("resumed after step {}, in epoch {}", state_.step, state_.epoch + 1);
  Json facts = {
      {"state", "running"},          {"dataset", config_.data.dataset},       {"epochs", config_.train.epochs},
      {"epoch", state_.epoch},       {"device", session_.device.to_string()}, {"backend", backend},
      {"build", build_description()}};
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
  if (options_.resume) {
    state_ = load_train_state(run_.file("state.safetensors"), learners_);
    students_ = run_.info().value("students", Json::object());
    for (Learner& learner : learners_) learner.log->truncate(state_.step);
  } else {
    run_.update({{"started", fmt::format("{:%F %H:%M}", fmt::localtime(std::time(nullptr)))}});
  }
  run_.write_config(job_.resolved_config);  // of a resumed run too: it may go on with more epochs
  if (!config_.origin.note.empty()) console_.print("{}", config_.origin.note);
  announce();
}

TrainSummary Trainer::run() {
  start();
  TrainSummary summary;
  summary.run_path = run_.path().string();
  while (!state_.stopped_early && state_.epoch < config_.train.epochs && state_.step < steps_) {
    if (!train_epoch()) {
      for (const Learner& l : learners_) save_weights(l, "last.safetensors", state_.epoch + 1, std::nullopt);
      save_state();
      run_.update({{"state", "interrupted"}});
      summary.steps = state_.step;
      return summary;
    }
    end_epoch();
  }
  summary.finished = true;
  summary.steps = state_.step;
  summary.seconds = state_.seconds;
  if (job_.teachers != nullptr && config_.train.evaluate_test) {
    summary.teacher_logits =
        evaluate_logits([&](const Tensor& input) { return job_.teachers->evaluation_logits(input); },
                        session_.test_data, session_.test, session_.evaluate_options());
  }
  for (Learner& learner : learners_) {
    summary.learners.push_back(config_.train.evaluate_test ? test(learner, summary.teacher_logits) : LearnerResult());
  }
  const kernels::MemoryStats memory = kernels::backend(session_.device).memory_stats();
  console_.print("{} steps in {}; memory: {} at the peak, {} active, {} cached", state_.step,
                 duration_text(state_.seconds), bytes_text(memory.peak_bytes), bytes_text(memory.active_bytes),
                 bytes_text(memory.cached_bytes));
  run_.update({{"state", "finished"}});
  return summary;
}

bool Trainer::train_epoch() {
  const Clock::time_point start = Clock::now();
  const double seconds_before = state_.epoch_seconds, total_before = state_.seconds;
  const auto order = epoch_order(session_.train, config_.seed, state_.epoch, config_.data.shuffle);
  const auto batches = batches_of(order, config_.data.batch_size);
  for (std::size_t n = 0; n < learners_.size(); ++n) {
    step_.metrics(n).copy_from_host(learners_[n].state.metrics.data());
  }
  console_.begin_progress(fmt::format("epoch {}/{}", state_.epoch + 1, config_.train.epochs),
                          static_cast<std::int64_t>(batches.size()), state_.batch);
  const bool immediate = session_.device.is_cpu();
  bool stopped = false;
  std::vector<double> lr(learners_.size());
  while (state_.batch < static_cast<std::int64_t>(batches.size()) && state_.step < steps_) {
    for (std::size_t n = 0; n < lr.size(); ++n) lr[n] = learners_[n].schedule.lr_at(state_.step);
    step_.run(batches[static_cast<std::size_t>(state_.batch)], state_.epoch, lr);
    ++state_.step;
    ++state_.batch;
    const bool norms = job_.gradient_norms_every > 0 && state_.step % job_.gradient_norms_every == 0;
    if (immediate || step_.full() || norms) collect();
    if (norms) log_gradient_norms();
    if (options_.stop_requested && options_.stop_requested()) {
      stopped = true;
      break;
    }
  }
  collect();
  console_.end_progress();
  for (std::size_t n = 0; n < learners_.size(); ++n) {
    const std::vector<double> sums = step_.metrics(n).to_host<double>();
    std::copy(sums.begin(), sums.end(), learners_[n].state.metrics.begin());
  }
  state_.epoch_seconds = seconds_before + seconds_since(start);
  state_.seconds = total_before + seconds_since(start);
  return !stopped;
}

void Trainer::log_step(std::size_t number, const StepRecords& records) {
  Learner& learner = learners_[number];
  const StepRecord& record = records.networks[number];
  Json terms = Json::object(), weights = Json::object();
  const std::vector<std::string> names = learner.objective->names();
  const std::vector<double> factors = learner.objective->weights();
  for (std::size_t i = 0; i < names.size(); ++i) {
    terms[names[i]] = record.terms[i];
    weights[names[i]] = factors[i];
  }
  Json line = {
      {"kind", "step"}, {"step", records.step}, {"epoch", state_.epoch + 1}, {"loss", record.loss}, {"terms", terms}};
  if (job_.teachers != nullptr) line["weights"] = weights;
  line["lr"] = record.lr;
  learner.log->append(line);
  learner.state.loss_sum += record.loss * static_cast<double>(records.samples);
  learner.state.samples += records.samples;
}

void Trainer::collect() {
  for (const StepRecords& records : step_.drain()) {
    double mean = 0;
    for (std::size_t n = 0; n < learners_.size(); ++n) {
      if (!std::isfinite(records.networks[n].loss)) stop_nonfinite(n, records);
      log_step(n, records);
      mean += learners_[n].state.loss_sum / static_cast<double>(learners_[n].state.samples);
    }
    console_.advance_progress(mean / static_cast<double>(learners_.size()), records.samples);
  }
}

void Trainer::log_gradient_norms() {
  for (std::size_t n = 0; n < learners_.size(); ++n) {
    const std::vector<std::string> names = learners_[n].objective->names();
    const std::vector<double> norms = step_.gradient_norms(n);
    Json by_term = Json::object();
    for (std::size_t i = 0; i < names.size(); ++i) by_term[names[i]] = norms[i];
    learners_[n].log->append({{"kind", "gradient_norms"}, {"step", state_.step}, {"terms", by_term}});
  }
}

void Trainer::stop_nonfinite(std::size_t number, const StepRecords& records) {
  const Learner& learner = learners_[number];
  const StepRecord& record = records.networks[number];
  std::string bad = step_.first_nonfinite(number);
  const std::vector<std::string> names = learner.objective->names();
  for (std::size_t i = 0; i < names.size(); ++i) {
    if (!std::isfinite(record.terms[i])) bad += fmt::format(", in the term {}", names[i]);
  }
  fail(
      "{}: the loss of step {} is not finite ({}); first bad: {}; try a smaller learning rate (it was {:.4g}) or "
      "[train] clip_grad_norm. {}",
      learner.folder, records.step, record.loss, bad, record.lr,
      std::filesystem::exists(learner.file("last.safetensors")) ? "The checkpoints of the last good epoch are kept"
                                                                : "No checkpoint had been written yet");
}

bool Trainer::end_epoch_of(std::size_t number, bool last) {
  Learner& learner = learners_[number];
  LearnerState& s = learner.state;
  const int epoch = state_.epoch + 1;
  const double loss = s.loss_sum / static_cast<double>(std::max<std::int64_t>(1, s.samples));
  const double top1 = s.metrics[1] / std::max(1.0, s.metrics[3]);
  std::optional<Metrics> validation;
  if (!session_.validation.empty() && (last || epoch % config_.train.evaluate_every == 0)) {
    validation = evaluate(*learner.model, session_.train_data, session_.validation, session_.evaluate_options());
  }
  const double rate = static_cast<double>(s.samples) / std::max(1e-9, state_.epoch_seconds);
  Json line = {{"kind", "epoch"}, {"epoch", epoch}, {"train", {{"loss", loss}, {"top1", top1}}}};
  if (validation) line["val"] = to_json(*validation);
  line["seconds"] = state_.epoch_seconds;
  line["images_per_second"] = rate;
  learner.log->append(line);

  const bool best = validation && validation->top1 > s.best_top1;
  std::string text = fmt::format("epoch {:>3}/{}  {}train loss {:.4f} top-1 {:5.2f} %", epoch, config_.train.epochs,
                                 label(learner), loss, 100 * top1);
  if (validation) {
    text += fmt::format("  validation loss {:.4f} top-1 {:5.2f} % top-5 {:5.2f} %{}", validation->loss,
                        100 * validation->top1, 100 * validation->top5, best ? " *" : "  ");
  }
  if (number == 0) text += fmt::format("  {:.0f} images/s  {}", rate, duration_text(state_.epoch_seconds));
  console_.line(text.substr(0, text.find_last_not_of(' ') + 1));

  if (best) {
    s.best_top1 = validation->top1;
    s.best_epoch = state_.epoch;
    save_weights(learner, "best.safetensors", epoch, validation);
    record(learner, {{"best_validation_top1", s.best_top1}, {"best_epoch", epoch}});
  }
  s.loss_sum = 0;
  s.samples = 0;
  s.metrics = {};
  save_weights(learner, "last.safetensors", epoch, validation);
  return config_.train.early_stop_patience > 0 && validation &&
         state_.epoch - s.best_epoch >= config_.train.early_stop_patience;
}

void Trainer::end_epoch() {
  const int epoch = state_.epoch + 1;
  const bool last = epoch == config_.train.epochs || state_.step >= steps_;
  bool all_out_of_patience = true;
  for (std::size_t n = 0; n < learners_.size(); ++n) {
    all_out_of_patience = end_epoch_of(n, last) && all_out_of_patience;
  }
  ++state_.epoch;
  state_.batch = 0;
  state_.epoch_seconds = 0;
  if (!last && all_out_of_patience) {
    state_.stopped_early = true;
    console_.print("stopping early: no better validation accuracy for {} epochs", config_.train.early_stop_patience);
  }
  run_.update({{"epoch", epoch}, {"seconds", state_.seconds}});
  save_state();
}

void Trainer::save_weights(const Learner& learner, const char* file, int epoch,
                           const std::optional<Metrics>& validation) {
  std::map<std::string, std::string> metadata = checkpoint_metadata(*learner.model, session_, learner.config);
  metadata["epoch"] = std::to_string(epoch);
  metadata["step"] = std::to_string(state_.step);
  if (validation) metadata["validation_top1"] = fmt::format("{}", validation->top1);
  write_safetensors(learner.file(file), learner.model->parameters().to_arrays(), metadata);
}

void Trainer::record(const Learner& learner, const Json& values) {
  if (learner.name.empty()) {
    run_.update(values);
    return;
  }
  students_[learner.name].update(values);
  run_.update({{"students", students_}});
}

LearnerResult Trainer::test(Learner& learner, const std::vector<Tensor>& teacher_logits) {
  EvaluateOptions options = session_.evaluate_options();
  if (job_.teachers != nullptr) options.teacher = &teacher_logits;
  const auto measure = [&](const char* which) {
    const Metrics m = evaluate(*learner.model, session_.test_data, session_.test, options);
    Json line = {{"kind", "test"}, {"checkpoint", which}};
    line.update(to_json(m));
    learner.log->append(line);
    record(learner, {{fmt::format("test_{}_top1", which), m.top1}, {fmt::format("test_{}_loss", which), m.loss}});
    console_.print("{}test, {} checkpoint: loss {:.4f} top-1 {:.2f} % top-5 {:.2f} %", label(learner), which, m.loss,
                   100 * m.top1, 100 * m.top5);
    return m;
  };
  LearnerResult result;
  result.test_last = measure("last");
  if (learner.state.best_epoch < 0) return result;  // no validation split, nothing was selected
  if (learner.state.best_epoch + 1 != state_.epoch) load_weights(*learner.model, learner.file("best.safetensors"));
  result.test_best = measure("best");
  return result;
}

}  // namespace

RunStream::RunStream(Device device)
    : backend_(kernels::backend(device)), stream_(backend_.create_stream()), guard_(device, stream_) {}

RunStream::~RunStream() {
  backend_.destroy_stream(stream_);
}

RunDirectory open_run(const TrainConfig& config, const TrainerOptions& options) {
  const std::string root = in_project(config.output_root);
  return options.resume ? RunDirectory::open(root, config.name, options.version)
                        : RunDirectory::create(root, config.name);
}

TrainSummary run_training(const TrainingJob& job, RunDirectory& run, Console& console, const TrainerOptions& options) {
  return Trainer(job, run, console, options).run();
}

TrainSummary train(const TrainConfig& config, const TrainerOptions& options) {
  const RunStream stream(resolve_device(config));
  const Session session = make_session(config);
  std::unique_ptr<Model> model = make_network(config, session);
  const std::string report = initialize_network(*model, config);
  auto objective = std::make_unique<CrossEntropyObjective>(*model, config.train.label_smoothing);
  std::vector<Learner> learners;
  learners.emplace_back("", "", config, std::move(model), std::move(objective), session);
  RunDirectory run = open_run(config, options);
  Console console(run.file("log.txt"));
  if (!report.empty()) console.line(report);
  return run_training({config, to_toml(config), session, learners}, run, console, options);
}

}  // namespace retort
