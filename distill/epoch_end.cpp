#include <algorithm>
#include <filesystem>

#include "distill/memory_need.h"
#include "distill/nonfinite.h"
#include "distill/resumption.h"
#include "distill/training_run.h"
#include "engine/safetensors.h"

namespace retort {

nlohmann::ordered_json to_json(const Metrics& m) {
  nlohmann::ordered_json json = {{"loss", m.loss}, {"top1", m.top1}, {"top5", m.top5}};
  if (m.compared) json.update({{"agreement", m.agreement}, {"logit_difference", m.logit_difference}});
  return json;
}

void Trainer::end_epoch() {
  const bool last = state_.epoch + 1 == config_.train.epochs || state_.step >= steps_;
  const bool cut_short = state_.batch < steps_per_epoch(config_, session_);
  prepare_saving();
  const std::vector<std::optional<Metrics>> validation = validate(last);
  std::vector<LearnerState> before;
  for (const Learner& learner : learners_) before.push_back(learner.state);
  bool all_out_of_patience = true;
  for (std::size_t n = 0; n < learners_.size(); ++n) {
    all_out_of_patience = close_epoch_of(n, validation[n], last) && all_out_of_patience;
  }
  if (cut_short) save_cut_short(before);
  ++state_.epoch;
  state_.batch = 0;
  state_.epoch_seconds = 0;
  if (!last && all_out_of_patience) {
    state_.stopped_early = true;
    console_.print("stopping early: no better validation accuracy for {} epochs", config_.train.early_stop_patience);
  }
  if (!cut_short) save_state();
  save_best();
  run_.update({{"epoch", state_.epoch}, {"seconds", state_.seconds}});
}

// All learners before anything is written, so that an interruption leaves the epoch open for all of them.
std::vector<std::optional<Metrics>> Trainer::validate(bool last) const {
  std::vector<std::optional<Metrics>> results(learners_.size());
  if (session_.validation.empty() || (!last && (state_.epoch + 1) % config_.train.evaluate_every != 0)) return results;
  const EvaluateOptions options = evaluate_options();
  for (std::size_t n = 0; n < learners_.size(); ++n) {
    const Learner& learner = learners_[n];
    results[n] = evaluate(*learner.model, session_.train_data, session_.validation, options);
    if (all_finite(*results[n])) continue;
    fail(
        "{}: after step {} the loss on the validation images is {} and {} logits are not finite; first bad: {}; try a "
        "smaller learning rate or [train] clip_grad_norm. {}",
        learner.folder, state_.step, results[n]->loss, results[n]->nonfinite,
        first_nonfinite(*learner.model, session_.train_data, session_.validation, options), kept(learner));
  }
  return results;
}

// True: the learner has run out of patience.
bool Trainer::close_epoch_of(std::size_t number, const std::optional<Metrics>& validation, bool last) {
  Learner& learner = learners_[number];
  LearnerState& s = learner.state;
  const int epoch = state_.epoch + 1;
  const double loss = s.loss_sum / static_cast<double>(std::max<std::int64_t>(1, s.samples));
  const double top1 = s.metrics[1] / std::max(1.0, s.metrics[3]);
  const double rate = static_cast<double>(s.samples) / std::max(1e-9, state_.epoch_seconds);
  Json line = {{"kind", "epoch"}, {"epoch", epoch}, {"train", {{"loss", loss}, {"top1", top1}}}};
  if (validation) line["val"] = to_json(*validation);
  line["seconds"] = state_.epoch_seconds;
  line["images_per_second"] = rate;
  learner.log->append(line);

  const bool best = validation && validation->top1 > s.best_top1;
  std::string text = fmt::format("epoch {:>3}/{}  {}train loss {} top-1 {:5.2f} %", epoch, config_.train.epochs,
                                 label(learner), loss_text(loss), 100 * top1);
  if (validation) {
    text += fmt::format("  validation loss {} top-1 {:5.2f} % top-5 {:5.2f} %{}", loss_text(validation->loss),
                        100 * validation->top1, 100 * validation->top5, best ? " *" : "  ");
  }
  if (number == 0) text += fmt::format("  {:.0f} images/s  {}", rate, duration_text(state_.epoch_seconds));
  if (number == 0 && !last) {
    const double mean = state_.seconds / static_cast<double>(state_.step);
    text += fmt::format("  {} left", duration_text(mean * static_cast<double>(steps_ - state_.step)));
  }
  console_.line(text.substr(0, text.find_last_not_of(' ') + 1));

  if (best) {
    s.best_top1 = validation->top1;
    s.best_epoch = state_.epoch;
    s.best_step = state_.step;
  }
  s.loss_sum = 0;
  s.samples = 0;
  s.metrics = {};
  save_weights(learner, "last.safetensors", epoch, validation ? std::optional(validation->top1) : std::nullopt);
  return config_.train.early_stop_patience > 0 && validation &&
         state_.epoch - s.best_epoch >= config_.train.early_stop_patience;
}

// In front of whatever replaces a file.
void Trainer::prepare_saving() const {
  std::int64_t parameters = 0;
  for (const Learner& learner : learners_) parameters += learner.model->parameters().parameter_count();
  make_room_to_save(parameters);
  for (const Learner& learner : learners_) {
    std::string bad = first_nonfinite(learner.model->parameters());
    const ParameterStore* const parts = learner.objective->parts();
    if (bad.empty() && parts != nullptr) bad = first_nonfinite(*parts);
    check(bad.empty(),
          "{}: after step {} the {} is not finite and is not saved; try a smaller learning rate or [train] "
          "clip_grad_norm. {}",
          learner.folder, state_.step, bad, kept(learner));
  }
}

// In the middle of an epoch: its last step may be done, its validation not.
void Trainer::save_position() {
  prepare_saving();
  for (const Learner& l : learners_) save_weights(l, "last.safetensors", state_.epoch + 1, std::nullopt);
  save_state();
}

void Trainer::save_state() {
  save_train_state(run_.file(kStateFile), state_, learners_, job_.start.record);
  saved_ = Clock::now();
}

// Where max_steps ends the run within an epoch, its state stays there, with the sums up to there: with more steps it
// goes on as if it had never stopped.
void Trainer::save_cut_short(const std::vector<LearnerState>& before) {
  for (std::size_t n = 0; n < learners_.size(); ++n) {
    LearnerState& state = learners_[n].state;
    state.loss_sum = before[n].loss_sum;
    state.samples = before[n].samples;
    state.metrics = before[n].metrics;
  }
  state_.cut_short = true;
  save_state();
}

// The best checkpoints that the validation at this very step has found. Behind the state: a best checkpoint that the
// saved state knows nothing of would stay where the resumed run finds none as good.
void Trainer::save_best() {
  for (const Learner& learner : learners_) {
    const LearnerState& s = learner.state;
    if (s.best_step != state_.step) continue;
    save_weights(learner, "best.safetensors", s.best_epoch + 1, s.best_top1);
    record_best(learner);
  }
}

void Trainer::record_best(const Learner& learner) {
  const LearnerState& s = learner.state;
  if (s.best_epoch >= 0) record(learner, {{"best_validation_top1", s.best_top1}, {"best_epoch", s.best_epoch + 1}});
}

void Trainer::save_weights(const Learner& learner, const char* file, int epoch,
                           std::optional<double> validation_top1) const {
  std::map<std::string, std::string> metadata = checkpoint_metadata(*learner.model, session_, learner.config);
  metadata["epoch"] = std::to_string(epoch);
  metadata["step"] = std::to_string(state_.step);
  if (validation_top1) metadata["validation_top1"] = fmt::format("{}", *validation_top1);
  write_safetensors(learner.file(file), learner.model->parameters().to_arrays(), metadata);
}

std::string Trainer::kept(const Learner& learner) const {
  return std::filesystem::exists(learner.file("last.safetensors")) ? "The last good checkpoints are kept"
                                                                   : "No checkpoint had been written yet";
}

}  // namespace retort
