#include <algorithm>
#include <cmath>

#include "data/split.h"
#include "distill/training_run.h"

namespace retort {

void Trainer::train_epoch() {
  counted_ = Clock::now();
  const auto order = epoch_order(session_.train, config_.seed, state_.epoch, config_.data.shuffle);
  const auto batches = batches_of(order, config_.data.batch_size);
  for (std::size_t n = 0; n < learners_.size(); ++n) {
    step_.metrics(n).copy_from_host(learners_[n].state.metrics.data());
  }
  console_.begin_progress(fmt::format("epoch {}/{}", state_.epoch + 1, config_.train.epochs),
                          static_cast<std::int64_t>(batches.size()), state_.batch);
  const bool immediate = session_.device.is_cpu();
  const std::chrono::duration<double, std::ratio<60>> interval(config_.train.checkpoint_minutes);
  std::vector<double> lr(learners_.size());
  while (state_.batch < static_cast<std::int64_t>(batches.size()) && state_.step < steps_) {
    for (std::size_t n = 0; n < lr.size(); ++n) lr[n] = learners_[n].schedule.lr_at(state_.step);
    step_.run(batches[static_cast<std::size_t>(state_.batch)], state_.epoch, lr);
    ++state_.step;
    ++state_.batch;
    const bool norms = job_.gradient_norms_every > 0 && state_.step % job_.gradient_norms_every == 0;
    if (immediate || step_.full() || norms) collect();
    if (norms) log_gradient_norms();
    if (stop_requested()) {
      take_stock();
      throw Interrupted();
    }
    if (interval.count() > 0 && Clock::now() - saved_ >= interval) {
      take_stock();
      prepare_saving();
      save_state();
    }
  }
  take_stock();
  console_.end_progress();
}

// Brings what a saved state tells of the running epoch up to date: records that wait on the device, sums, time.
void Trainer::take_stock() {
  collect();
  for (std::size_t n = 0; n < learners_.size(); ++n) {
    const std::vector<double> sums = step_.metrics(n).to_host<double>();
    std::copy(sums.begin(), sums.end(), learners_[n].state.metrics.begin());
  }
  const Clock::time_point now = Clock::now();
  const double passed = std::chrono::duration<double>(now - counted_).count();
  state_.epoch_seconds += passed;
  state_.seconds += passed;
  counted_ = now;
}

void Trainer::log_step(std::size_t number, const StepRecords& records) {
  Learner& learner = learners_[number];
  const StepRecord& record = records.networks[number];
  Json terms = Json::object(), weights = Json::object();
  const std::vector<std::string> names = learner.objective->names();
  const std::vector<double> factors = learner.objective->weights();
  for (std::size_t i = 0; i < names.size(); ++i) {
    terms[names[i]] = record.terms[i];  // NaN, which JSON has as null, where the term is not active
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
      const StepRecord& record = records.networks[n];
      if (!std::isfinite(record.loss) || record.nonfinite > 0) stop_nonfinite(n, records);
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
    for (std::size_t i = 0; i < names.size(); ++i) {
      if (!std::isnan(norms[i])) by_term[names[i]] = norms[i];
    }
    learners_[n].log->append({{"kind", "gradient_norms"}, {"step", state_.step}, {"terms", by_term}});
  }
}

void Trainer::stop_nonfinite(std::size_t number, const StepRecords& records) const {
  const Learner& learner = learners_[number];
  const StepRecord& record = records.networks[number];
  std::string bad = step_.first_nonfinite(number);
  const std::vector<std::string> names = learner.objective->names();
  const std::vector<bool> active = learner.objective->active();
  for (std::size_t i = 0; i < names.size(); ++i) {
    if (active[i] && !std::isfinite(record.terms[i])) bad += fmt::format(", in the term {}", names[i]);
  }
  const std::string what = std::isfinite(record.loss)
                               ? fmt::format("{} logits of step {} are not finite", record.nonfinite, records.step)
                               : fmt::format("the loss of step {} is not finite ({})", records.step, record.loss);
  fail("{}: {}; first bad: {}; try a smaller learning rate (it was {:.4g}) or [train] clip_grad_norm. {}",
       learner.folder, what, bad, record.lr, kept(learner));
}

}  // namespace retort
