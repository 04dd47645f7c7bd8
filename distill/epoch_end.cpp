#include <algorithm>
#include <filesystem>

#include "distill/nonfinite.h"
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
  check_weights();
  const std::vector<std::optional<Metrics>> validation = validate(last);
  bool all_out_of_patience = true;
  for (std::size_t n = 0; n < learners_.size(); ++n) {
    all_out_of_patience = close_epoch_of(n, validation[n]) && all_out_of_patience;
  }
  ++state_.epoch;
  state_.batch = 0;
  state_.epoch_seconds = 0;
  if (!last && all_out_of_patience) {
    state_.stopped_early = true;
    console_.print("stopping early: no better validation accuracy for {} epochs", config_.train.early_stop_patience);
  }
  save_state();
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
    check(
        all_finite(*results[n]),
        "{}: after step {} the loss on the validation images is {} and {} logits are not finite; first bad: {}; try a "
        "smaller learning rate or [train] clip_grad_norm. {}",
        learner.folder, state_.step, results[n]->loss, results[n]->nonfinite,
        first_nonfinite(*learner.model, session_.train_data, session_.validation, options), kept(learner));
  }
  return results;
}

// True: the learner has run out of patience.
bool Trainer::close_epoch_of(std::size_t number, const std::optional<Metrics>& validation) {
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
  }
  s.loss_sum = 0;
  s.samples = 0;
  s.metrics = {};
  save_weights(learner, "last.safetensors", epoch, validation ? std::optional(validation->top1) : std::nullopt);
  return config_.train.early_stop_patience > 0 && validation &&
         state_.epoch - s.best_epoch >= config_.train.early_stop_patience;
}

// In front of whatever replaces a file.
void Trainer::check_weights() const {
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
  check_weights();
  for (const Learner& l : learners_) save_weights(l, "last.safetensors", state_.epoch + 1, std::nullopt);
  save_state();
}

void Trainer::save_state() {
  save_train_state(run_.file("state.safetensors"), state_, learners_);
  saved_ = Clock::now();
}

// The best checkpoints of the epoch that has just ended. Behind the state: a best checkpoint that the saved state knows
// nothing of would stay where the resumed run finds none as good.
void Trainer::save_best() {
  if (state_.batch > 0) return;
  for (const Learner& learner : learners_) {
    const LearnerState& s = learner.state;
    if (s.best_epoch < 0 || s.best_epoch + 1 != state_.epoch) continue;
    save_weights(learner, "best.safetensors", state_.epoch, s.best_top1);
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
