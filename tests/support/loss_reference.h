// The losses of distill/losses/ written from their papers in plain f64 loops on the taps of one batch; nothing here
// shares code with the operators. Batches are small: everything is written for reading.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "tests/support/reference.h"

namespace retort::reference {

struct LossInputs {
  std::vector<std::int32_t> labels;
  Array student_logits, teacher_logits;
  std::map<std::string, Array> student, teacher;  // taps by name, [B, H, W, C] or [B, C]
  std::map<std::string, Array> parts;             // trainable parts of the loss by name
};

double cross_entropy_loss(const LossInputs& in, double smoothing);
double soft_targets_loss(const LossInputs& in, double temperature, bool standardize);
double soft_cross_entropy_loss(const LossInputs& in);
double logit_mse_loss(const LossInputs& in);
double dkd_loss(const LossInputs& in, double alpha, double beta, double temperature);
double dist_loss(const LossInputs& in, double beta, double gamma, double temperature);
double discriminator_loss(const LossInputs& in, int layers);

// [B, H, W, C] averaged to size x size; H and W are multiples of it.
Array pooled_to(const Array& map, std::int64_t size);
double similarity_preserving_loss(const LossInputs& in, const std::string& tap);
double attention_transfer_pair(const Array& student, const Array& teacher);
double attention_transfer_loss(const LossInputs& in, const std::vector<std::string>& taps);
double fitnet_loss(const LossInputs& in, const std::string& tap, bool norm_relu);
// Of a student's map as large as the teacher's or of twice its size.
double fitnet_pair(const LossInputs& in, const Array& student, const Array& teacher, bool norm_relu);
double feature_cosine_loss(const LossInputs& in, const std::string& tap);
double vid_loss(const LossInputs& in, const std::string& tap);
double nst_loss(const LossInputs& in, const std::string& tap);

double rkd_distance(const LossInputs& in);
double rkd_angle(const LossInputs& in);
double distance_metric_loss(const LossInputs& in);
double pkt_loss(const LossInputs& in);
double cc_loss(const LossInputs& in);

}  // namespace retort::reference
