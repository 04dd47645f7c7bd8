#include <fmt/ranges.h>

#include <map>

#include "distill/losses/loss.h"
#include "engine/suggest.h"

namespace retort {
namespace {

const std::map<std::string, LossReader>& readers() {
  static const std::map<std::string, LossReader> all{
      {"cross_entropy", read_cross_entropy},
      {"soft_targets", read_soft_targets},
      {"logit_mse", read_logit_mse},
      {"soft_cross_entropy", read_soft_cross_entropy},
      {"similarity_preserving", read_similarity_preserving},
      {"attention_transfer", read_attention_transfer},
      {"fitnet", read_fitnet},
      {"feature_cosine", read_feature_cosine},
      {"rkd", read_rkd},
      {"distance_metric", read_distance_metric},
      {"discriminator", read_discriminator},
      {"pkt", read_pkt},
      {"vid", read_vid},
      {"cc", read_cc},
      {"nst", read_nst},
      {"dkd", read_dkd},
      {"dist", read_dist},
  };
  return all;
}

}  // namespace

std::vector<std::string> loss_types() {
  std::vector<std::string> types;
  for (const auto& [type, reader] : readers()) types.push_back(type);
  return types;
}

LossReader loss_reader(const std::string& type) {
  const auto found = readers().find(type);
  check(found != readers().end(), "loss: unknown type {}{}", in_quotes(type), did_you_mean(type, loss_types()));
  return found->second;
}

void LossContext::reject(const std::string& problem) const {
  fail("{}: {}", where, problem);
}

void LossContext::need_samples(const char* type, std::int64_t at_least) const {
  if (smallest_batch >= at_least) return;
  reject(
      fmt::format("{} compares the samples of a batch and needs at least {} of them, but a batch of an epoch has {}; "
                  "change [data] batch_size",
                  type, at_least, smallest_batch));
}

}  // namespace retort
