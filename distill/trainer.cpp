#include "distill/trainer.h"

#include <fmt/chrono.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <ctime>
#include <filesystem>

#include "data/split.h"
#include "distill/console.h"
#include "distill/train_state.h"
#include "distill/training_step.h"
#include "engine/schedule.h"
#include "engine/stream.h"

namespace retort {
namespace {

using Json = nlohmann::ordered_json;
constexpr std::int64_t kEvaluationBatch = 256;

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
  return {{"loss", m.loss}, {"top1", m.top1}, {"top5", m.top5}};
}

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

// A stream of its own for the whole run: CUDA's null stream cannot be captured.
class RunStream {
 public:
  explicit RunStream(Device device)
      : backend_(kernels::backend(device)), stream_(backend_.create_stream()), guard_(device, stream_) {}
  ~RunStream() { backend_.destroy_stream(stream_); }
  RunStream(const RunStream&) = delete;
  RunStream& operator=(const RunStream&) = delete;

 private:
  kernels::Backend& backend_;
  Stream stream_;
  StreamGuard guard_;
};

std::int64_t steps_per_epoch(const TrainConfig& config, const Session& session) {
  return static_cast<std::int64_t>(batches_of(session.train, config.data.batch_size).size());
}

std::int64_t total_steps(const TrainConfig& config, std::int64_t per_epoch) {
  const std::int64_t by_epochs = config.train.epochs * per_epoch;
  return config.train.max_steps > 0 ? std::min(config.train.max_steps, by_epochs) : by_epochs;
}

StepOptions step_options(const TrainConfig& config, const Session& session) {
  StepOptions options;
  options.augment = session.augment;
  options.dtype = session.arithmetic.dtype;
  options.math = session.arithmetic.math;
  options.seed = config.seed;
  return options;
}

class Trainer {
 public:
  Trainer(const TrainConfig& config, const TrainerOptions& options)
      : config_(config),
        options_(options),
        stream_(resolve_device(config.device)),
        session_(make_session(config)),
        objective_(*session_.model, config.train.label_smoothing),
        optimizer_(session_.model->parameters(), optimizer_options(config)),
        schedule_(schedule_options(config), steps_per_epoch(config, session_),
                  total_steps(config, steps_per_epoch(config, session_))),
        step_(*session_.model, objective_, optimizer_, session_.train_data, step_options(config, session_)),
        run_(options.resume ? RunDirectory::open(config.output_root, config.name, options.version)
                            : RunDirectory::create(config.output_root, config.name)),
        console_(run_.file("log.txt")) {}

  TrainSummary run();

 private:
  void announce();
  bool train_epoch();  // false: stop was requested
  void collect();
  void end_epoch();
  bool out_of_patience() const;
  void save_weights(const char* file, int epoch, const std::optional<Metrics>& validation);
  void test(TrainSummary& summary);
  [[noreturn]] void stop_nonfinite(const StepRecord& record);

  const TrainConfig& config_;
  const TrainerOptions& options_;
  RunStream stream_;
  Session session_;
  CrossEntropyObjective objective_;
  Optimizer optimizer_;
  Schedule schedule_;
  TrainingStep step_;
  RunDirectory run_;
  Console console_;
  TrainState state_;
  Clock::time_point resumed_at_ = Clock::now();
};

void Trainer::announce() {
  const ParameterStore& parameters = session_.model->parameters();
  const std::string backend = kernels::backend(session_.device).description();
  console_.print("{}: {} on {}, {}, {}", config_.name, config_.model.arch, config_.data.dataset, config_.precision,
                 backend);
  console_.print("{} parameters; {} training, {} validation and {} test images; {}",
                 counted(parameters.parameter_count()), counted(std::ssize(session_.train)),
                 counted(std::ssize(session_.validation)), counted(std::ssize(session_.test)), run_.path().string());
  if (!session_.init_report.empty()) console_.line(session_.init_report);
  if (state_.step > 0) console_.print("resumed after step {}, in epoch {}", state_.step, state_.epoch + 1);
  run_.update({{"state", "running"},
               {"arch", config_.model.arch},
               {"dataset", config_.data.dataset},
               {"parameters", parameters.parameter_count()},
               {"epochs", config_.train.epochs},
               {"epoch", state_.epoch},
               {"device", session_.device.to_string()},
               {"backend", backend},
               {"build", build_description()}});
}

TrainSummary Trainer::run() {
  if (options_.resume) {
    state_ = load_train_state(run_.file("state.safetensors"), *session_.model, optimizer_);
    run_.truncate_metrics(state_.step);
  } else {
    run_.write_config(to_toml(config_));
    run_.update({{"started", fmt::format("{:%F %H:%M}", fmt::localtime(std::time(nullptr)))}});
  }
  announce();
  resumed_at_ = Clock::now();

  TrainSummary summary;
  summary.run_path = run_.path().string();
  while (!state_.training_done) {
    if (!train_epoch()) {
      save_weights("last.safetensors", state_.epoch + 1, std::nullopt);
      save_train_state(run_.file("state.safetensors"), state_, *session_.model, optimizer_);
      run_.update({{"state", "interrupted"}});
      summary.steps = state_.step;
      return summary;
    }
    end_epoch();
  }
  summary.finished = true;
  summary.steps = state_.step;
  if (config_.train.evaluate_test) test(summary);
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
  step_.metrics().copy_from_host(state_.metrics.data());
  console_.begin_progress(fmt::format("epoch {}/{}", state_.epoch + 1, config_.train.epochs),
                          static_cast<std::int64_t>(batches.size()), state_.batch);
  const bool immediate = session_.device.is_cpu();
  bool stopped = false;
  while (state_.batch < static_cast<std::int64_t>(batches.size()) && state_.step < schedule_.total_steps()) {
    step_.run(batches[static_cast<std::size_t>(state_.batch)], state_.epoch, schedule_.lr_at(state_.step));
    ++state_.step;
    ++state_.batch;
    if (immediate || step_.full()) collect();
    if (options_.stop_requested && options_.stop_requested()) {
      stopped = true;
      break;
    }
  }
  collect();
  console_.end_progress();
  const std::vector<double> sums = step_.metrics().to_host<double>();
  std::copy(sums.begin(), sums.end(), state_.metrics.begin());
  state_.epoch_seconds = seconds_before + seconds_since(start);
  state_.seconds = total_before + seconds_since(start);
  return !stopped;
}

void Trainer::collect() {
  for (const StepRecord& record : step_.drain()) {
    if (!std::isfinite(record.loss)) stop_nonfinite(record);
    Json terms = Json::object();
    const std::vector<std::string> names = objective_.names();
    for (std::size_t i = 0; i < names.size(); ++i) terms[names[i]] = record.terms[i];
    run_.append_metrics({{"kind", "step"},
                         {"step", record.step},
                         {"epoch", state_.epoch + 1},
                         {"loss", record.loss},
                         {"terms", terms},
                         {"lr", record.lr}});
    state_.loss_sum += record.loss * static_cast<double>(record.samples);
    state_.samples += record.samples;
    console_.advance_progress(state_.loss_sum / static_cast<double>(state_.samples), record.samples);
  }
}

void Trainer::stop_nonfinite(const StepRecord& record) {
  fail(
      "{}: the loss of step {} is not finite ({}); first bad: {}; try a smaller learning rate (it was {:.4g}) or "
      "[train] clip_grad_norm. {}",
      run_.path().string(), record.step, record.loss, step_.first_nonfinite(), record.lr,
      std::filesystem::exists(run_.file("last.safetensors")) ? "The checkpoints of the last good epoch are kept"
                                                             : "No checkpoint had been written yet");
}

void Trainer::end_epoch() {
  const Metrics train = [&] {
    Metrics m;
    m.samples = state_.samples;
    m.loss = state_.loss_sum / static_cast<double>(std::max<std::int64_t>(1, state_.samples));
    m.top1 = state_.metrics[1] / std::max(1.0, state_.metrics[3]);
    return m;
  }();
  const int epoch = state_.epoch + 1;
  const bool last = epoch == config_.train.epochs || state_.step >= schedule_.total_steps();
  std::optional<Metrics> validation;
  if (!session_.validation.empty() && (last || epoch % config_.train.evaluate_every == 0)) {
    validation = session_.evaluate_validation(kEvaluationBatch);
  }
  const double rate = static_cast<double>(state_.samples) / std::max(1e-9, state_.epoch_seconds);
  Json line = {{"kind", "epoch"}, {"epoch", epoch}, {"train", {{"loss", train.loss}, {"top1", train.top1}}}};
  if (validation) line["val"] = to_json(*validation);
  line["seconds"] = state_.epoch_seconds;
  line["images_per_second"] = rate;
  run_.append_metrics(line);

  const bool best = validation && validation->top1 > state_.best_top1;
  std::string text = fmt::format("epoch {:>3}/{}  train loss {:.4f} top-1 {:5.2f} %", epoch, config_.train.epochs,
                                 train.loss, 100 * train.top1);
  if (validation) {
    text += fmt::format("  validation loss {:.4f} top-1 {:5.2f} % top-5 {:5.2f} %{}", validation->loss,
                        100 * validation->top1, 100 * validation->top5, best ? " *" : "  ");
  }
  console_.print("{}  {:.0f} images/s  {}", text, rate, duration_text(state_.epoch_seconds));

  if (best) {
    state_.best_top1 = validation->top1;
    state_.best_epoch = state_.epoch;
    save_weights("best.safetensors", epoch, validation);
  }
  ++state_.epoch;
  state_.batch = 0;
  state_.loss_sum = 0;
  state_.samples = 0;
  state_.metrics = {};
  state_.epoch_seconds = 0;
  state_.training_done = last || (validation && out_of_patience());
  if (state_.training_done && !last) {
    console_.print("stopping early: no better validation accuracy for {} epochs", config_.train.early_stop_patience);
  }
  save_weights("last.safetensors", epoch, validation);
  run_.update({{"epoch", epoch}, {"seconds", state_.seconds}});
  if (best) run_.update({{"best_validation_top1", state_.best_top1}, {"best_epoch", epoch}});
  save_train_state(run_.file("state.safetensors"), state_, *session_.model, optimizer_);
}

bool Trainer::out_of_patience() const {
  return config_.train.early_stop_patience > 0 &&
         state_.epoch - 1 - state_.best_epoch >= config_.train.early_stop_patience;
}

void Trainer::save_weights(const char* file, int epoch, const std::optional<Metrics>& validation) {
  std::map<std::string, std::string> metadata = checkpoint_metadata(session_, config_);
  metadata["epoch"] = std::to_string(epoch);
  metadata["step"] = std::to_string(state_.step);
  if (validation) metadata["validation_top1"] = fmt::format("{}", validation->top1);
  write_safetensors(run_.file(file), session_.model->parameters().to_arrays(), metadata);
}

void Trainer::test(TrainSummary& summary) {
  const auto measure = [&](const char* which) {
    const Metrics m =
        evaluate(*session_.model, session_.test_data, session_.test, session_.evaluate_options(kEvaluationBatch));
    Json line = {{"kind", "test"}, {"checkpoint", which}};
    line.update(to_json(m));
    run_.append_metrics(line);
    run_.update({{fmt::format("test_{}_top1", which), m.top1}});
    console_.print("test, {} checkpoint: loss {:.4f} top-1 {:.2f} % top-5 {:.2f} %", which, m.loss, 100 * m.top1,
                   100 * m.top5);
    return m;
  };
  summary.test_last = measure("last");
  if (state_.best_epoch < 0) return;  // no validation split, nothing was selected
  if (state_.best_epoch + 1 != state_.epoch) load_weights(*session_.model, run_.file("best.safetensors"));
  summary.test_best = measure("best");
}

}  // namespace

TrainSummary train(const TrainConfig& config, const TrainerOptions& options) {
  return Trainer(config, options).run();
}

}  // namespace retort
