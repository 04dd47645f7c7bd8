#include "distill/memory_need.h"

#include <algorithm>

#include "distill/console.h"
#include "kernels/available_memory.h"

namespace retort {
namespace {

// One value of each for every pixel that the first convolution gives.
std::int64_t first_feature_map(const Model& model, const Session& session) {
  const std::int64_t stride = model.spec().stem == "imagenet" ? 2 : 1;
  const std::int64_t channels = model.parameters().parameters().front()->shape[0];
  return ((session.height + stride - 1) / stride) * ((session.width + stride - 1) / stride) * channels;
}

// The elements of the classifier's weight, the last matrix.
std::int64_t last_weight(const Model& model) {
  std::int64_t elements = 0;
  for (const auto& parameter : model.parameters().parameters()) {
    if (parameter->shape.rank() == 2) elements = parameter->shape.numel();
  }
  return elements;
}

std::size_t bytes_left(const Session& session, std::size_t available) {
  return available + kernels::backend(session.device).memory_stats().cached_bytes;
}

std::string text(std::int64_t bytes) {
  return bytes_text(static_cast<std::size_t>(bytes));
}

}  // namespace

std::int64_t MemoryNeed::total(Device device) const {
  const std::int64_t passing = std::max(input + step, evaluation);
  return network + (device.is_cpu() ? std::max(passing, saving) : passing);
}

MemoryNeed memory_need(const TrainConfig& config, const Session& session, NetworkUse use) {
  const std::unique_ptr<Model> model = make_model(model_spec(config, session));
  MemoryNeed need;
  need.parameters = model->parameters().parameter_count();
  const DType type = session.arithmetic.dtype;
  const auto master = static_cast<std::int64_t>(size_of(accumulation_type(type)));
  const auto value = static_cast<std::int64_t>(size_of(type));
  const bool sgd = config.optimizer.type == "sgd";
  const int moments = use == NetworkUse::evaluation ? 0 : sgd ? (config.optimizer.momentum > 0 ? 1 : 0) : 2;
  need.network = need.parameters * master * (2 + moments);
  if (use == NetworkUse::evaluation) return need;
  const std::int64_t samples = std::min<std::int64_t>(config.data.batch_size, std::ssize(session.train));
  const std::int64_t evaluated =
      std::min(EvaluateOptions().batch_size,
               std::max(std::ssize(session.validation), config.train.evaluate_test ? std::ssize(session.test) : 0));
  need.input = value * samples * 3 * session.height * session.width;
  need.step = value * samples * (first_feature_map(*model, session) + 2 * session.classes);
  // In a narrower type than the arena's, the last layer's gradient is a tensor of its own beside the logits.
  if (value < master) need.step += value * last_weight(*model);
  need.evaluation = value * evaluated * session.classes;
  need.saving = need.parameters * master * (1 + moments);
  return need;
}

namespace {

void check_need(const MemoryNeed& need, const TrainConfig& config, const Session& session) {
  const auto available = kernels::available_memory(session.device);
  if (!available) return;
  const std::size_t there = bytes_left(session, *available);
  const std::int64_t total = need.total(session.device);
  if (static_cast<double>(total) <= static_cast<double>(there)) return;
  // The larger part is to blame, and within a batch what makes it large.
  const std::int64_t samples = std::min<std::int64_t>(config.data.batch_size, std::ssize(session.train));
  const std::int64_t batch = std::max(need.input + need.step, need.evaluation);
  const bool network = total - batch > batch || session.classes > 3 * session.height * session.width;
  const bool crop = std::max(session.height, session.width) > 4 * session.train_data.images.dim(1);
  const char* const key = network ? (config.model.classes > 0 ? "model.classes" : "model.arch")
                          : crop  ? "data.augment"
                                  : "data.batch_size";
  config.origin.reject(
      key, fmt::format("takes more memory than there is: {} has {} parameters, with gradients and the optimizer's "
                       "moments {}, and batches of {} images of {}x{} at least {} more; {} has {} left. Change [model] "
                       "classes or arch, [data] batch_size or the size in augment",
                       config.model.arch, counted(need.parameters), text(need.network), samples, session.height,
                       session.width, text(total - need.network), session.device.to_string(), bytes_text(there)));
}

}  // namespace

void check_memory(const TrainConfig& config, const Session& session, NetworkUse use) {
  check_need(memory_need(config, session, use), config, session);
}

void check_memory(std::span<const TrainConfig* const> students, const Session& session) {
  MemoryNeed all;
  for (const TrainConfig* student : students) {
    const MemoryNeed need = memory_need(*student, session, NetworkUse::training);
    check_need(need, *student, session);
    all.network += need.network;
    all.input = need.input;  // all see the same images
    all.step += need.step;
    all.evaluation = std::max(all.evaluation, need.evaluation);
    all.saving += need.saving;
  }
  const auto available = kernels::available_memory(session.device);
  if (!available ||
      static_cast<double>(all.total(session.device)) <= static_cast<double>(bytes_left(session, *available))) {
    return;
  }
  students[0]->origin.reject(
      "data.batch_size", fmt::format("takes more memory than there is: {} students side by side take {} with "
                                     "gradients and the optimizers' moments and at least {} more; {} has {} left. "
                                     "Have fewer [[student]] blocks or change [data] batch_size",
                                     students.size(), text(all.network), text(all.total(session.device) - all.network),
                                     session.device.to_string(), bytes_text(bytes_left(session, *available))));
}

void make_room_to_save(std::int64_t parameters) {
  constexpr std::int64_t kMost = 4 * sizeof(double);  // weight, two moments, and a copy of the parameter in work
  kernels::Backend& cpu = kernels::backend({});
  const auto available = kernels::available_memory({});
  if (cpu.memory_stats().cached_bytes > 0 && available && *available < static_cast<std::size_t>(kMost * parameters)) {
    cpu.release_cached();
  }
}

}  // namespace retort
