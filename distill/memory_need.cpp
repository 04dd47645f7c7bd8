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

}  // namespace

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
  const std::int64_t pixels = session.height * session.width;
  const std::int64_t evaluated =
      std::min(EvaluateOptions().batch_size,
               std::max(std::ssize(session.validation), config.train.evaluate_test ? std::ssize(session.test) : 0));
  need.batch = value * std::max(samples * (3 * pixels + first_feature_map(*model, session) + 2 * session.classes),
                                evaluated * session.classes);
  return need;
}

void check_memory(const TrainConfig& config, const Session& session, NetworkUse use) {
  const auto available = kernels::available_memory(session.device);
  if (!available) return;
  const MemoryNeed need = memory_need(config, session, use);
  const std::size_t there = *available + kernels::backend(session.device).memory_stats().cached_bytes;
  if (static_cast<double>(need.network) + static_cast<double>(need.batch) <= static_cast<double>(there)) return;
  // The larger part is to blame, and within a batch what makes it large.
  const std::int64_t samples = std::min<std::int64_t>(config.data.batch_size, std::ssize(session.train));
  const bool network = need.network > need.batch || session.classes > 3 * session.height * session.width;
  const bool crop = std::max(session.height, session.width) > 4 * session.train_data.images.dim(1);
  const char* const key = network ? (config.model.classes > 0 ? "model.classes" : "model.arch")
                          : crop  ? "data.augment"
                                  : "data.batch_size";
  config.origin.reject(
      key, fmt::format("takes more memory than there is: {} has {} parameters, with gradients and the optimizer's "
                       "moments {}, and batches of {} images of {}x{} at least {} more; {} has {} left. Change [model] "
                       "classes or arch, [data] batch_size or the size in augment",
                       config.model.arch, counted(need.parameters), bytes_text(static_cast<std::size_t>(need.network)),
                       samples, session.height, session.width, bytes_text(static_cast<std::size_t>(need.batch)),
                       session.device.to_string(), bytes_text(there)));
}

}  // namespace retort
