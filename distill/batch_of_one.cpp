#include "distill/batch_of_one.h"

#include <algorithm>

#include "engine/autograd.h"

namespace retort {
namespace {

// What an epoch has of it, for the message; "" where there is no such batch, or training ends before it.
std::string description(const TrainConfig& run, const Session& session) {
  const std::int64_t images = std::ssize(session.train), size = run.data.batch_size;
  if (images == 1) return "there is one training image";
  if (size == 1) return "every batch has one image";
  const bool reached = total_steps(run, session) >= steps_per_epoch(run, session);
  return reached && images % size == 1 ? fmt::format("{} training images leave a last batch of one", images) : "";
}

std::string advice(const TrainConfig& run, const Session& session) {
  const std::int64_t images = std::ssize(session.train);
  if (images == 1) return "[data] fraction and validation must leave more";
  const auto leaves_one = [&](std::int64_t size) { return size < 2 || images % size == 1; };
  std::int64_t size = run.data.batch_size;
  while (size > 2 && leaves_one(size)) --size;
  while (leaves_one(size)) ++size;
  return fmt::format("choose another batch_size, such as {}, or another [data] fraction or validation", size);
}

// One training image through network and losses, without statistics or gradients; what losses keep is put back.
void pass(const Session& session, const Learner& learner, const Teachers* teachers) {
  const autograd::NoGradGuard no_grad;
  BatchBuffers batch(session.train_data, 1, session.arithmetic.dtype, session.augment);
  batch.fill(std::span(session.train).first(1), 0);
  ForwardMode mode;
  mode.training = true;
  mode.update_statistics = false;
  mode.math = session.arithmetic.math;
  mode.samples = {batch.indices, batch.epoch, learner.config.seed};
  std::vector<std::pair<Tensor, Tensor>> kept;
  if (const ParameterStore* const parts = learner.objective->parts()) {
    for (const auto& buffer : parts->buffers()) kept.emplace_back(buffer->value, buffer->value.clone());
  }
  TeacherBatch taught;
  if (teachers != nullptr) {
    taught = teachers->forward(batch.input, teachers->draw(1));
    teachers->await(taught);  // also for a network that learns without them: the batch must outlive their work
  }
  learner.objective->prepare(0);
  learner.objective->evaluate({batch, mode, teachers, &taught});
  for (const auto& [value, before] : kept) value.copy_from(before);
}

}  // namespace

void check_batch_of_one(const TrainConfig& run, const Session& session, const std::vector<Learner>& learners,
                        const Teachers* teachers) {
  const std::string found = description(run, session);
  if (found.empty()) return;
  for (const Learner& learner : learners) {
    try {
      pass(session, learner, teachers);
    } catch (const Error& error) {
      const std::string& arch = learner.config.model.arch;
      fail("[data] batch_size = {}: {}, on which {} cannot be trained ({}); {}", run.data.batch_size, found,
           learner.name.empty() ? arch : fmt::format("the student {} ({})", learner.name, arch), error.what(),
           advice(run, session));
    }
  }
}

}  // namespace retort
