// The hand-written CUDA kernels; one .cu file a family. Memory, streams and what goes to libraries is added by
// CudaBackend on a device, and by SimtBackend where the tests run these kernels on the CPU.
#pragma once

#include "kernels/kernels.h"

// Where device code lives. The same sources are compiled twice, by nvcc and for the SIMT tests, and both may end up in
// one process: whatever has linkage goes into this inline namespace, so that their symbols differ.
#ifdef RETORT_SIMT
#define RETORT_DEVICE_NAMESPACE simt_device
#else
#define RETORT_DEVICE_NAMESPACE cuda_device
#endif

namespace retort::kernels {
inline namespace RETORT_DEVICE_NAMESPACE {

class CudaKernels : public Backend {
 public:
  // elementwise
  void fill(View out, double value, Stream stream) override;
  void convert(ConstView x, View y, Stream stream) override;
  void add(ConstView a, ConstView b, View y, Stream stream) override;
  void accumulate(ConstView x, View y, Stream stream) override;
  void scale(ConstView x, double factor, View y, Stream stream) override;
  void scale_by(ConstView x, ConstView factor, View y, Stream stream) override;
  void activation(ConstView x, Activation kind, View y, Stream stream) override;
  void activation_backward(ConstView y, ConstView dy, Activation kind, View dx, Stream stream) override;
  void square(ConstView x, View y, Stream stream) override;
  void square_backward(ConstView x, ConstView dy, View dx, Stream stream) override;
  void reciprocal_sqrt(ConstView x, double epsilon, View y, Stream stream) override;
  void dropout(ConstView x, ConstView sample_ids, ConstView epoch, double p, RandomKey key, View y,
               Stream stream) override;

  // reduce
  void sum(ConstView x, double factor, View y, Stream stream) override;
  void broadcast(ConstView x, double factor, View y, Stream stream) override;
  void sum_rows(ConstView x, View y, Stream stream) override;
  void norm(ConstView x, View y, Stream stream) override;
  void accumulate_nonfinite(ConstView x, View y, Stream stream) override;

  // shape
  void copy_rows(ConstView x, std::int64_t x_pitch, View out, std::int64_t out_pitch, std::int64_t rows,
                 std::int64_t columns, Stream stream) override;
  void gather(ConstView x, ConstView indices, View out, Stream stream) override;

  // batch_norm
  void batch_norm_training(ConstView x, ConstView residual, ConstView gamma, ConstView beta, double momentum,
                           double epsilon, Activation act, View y, View mean, View invstd, View running_mean,
                           View running_var, View counter, Stream stream) override;
  void batch_norm_inference(ConstView x, ConstView residual, ConstView gamma, ConstView beta, ConstView running_mean,
                            ConstView running_var, double epsilon, Activation act, View y, Stream stream) override;
  void batch_norm_backward(ConstView x, ConstView y, ConstView dy, ConstView gamma, ConstView beta, ConstView mean,
                           ConstView invstd, Activation act, bool batch_statistics, View dx, View dresidual,
                           View dgamma, View dbeta, Stream stream) override;

  // pool
  void max_pool(ConstView x, const PoolParams& params, View y, View argmax, Stream stream) override;
  void max_pool_backward(ConstView dy, ConstView argmax, const PoolParams& params, View dx, Stream stream) override;
  void average_pool(ConstView x, const PoolParams& params, View y, Stream stream) override;
  void average_pool_backward(ConstView dy, const PoolParams& params, View dx, Stream stream) override;
  void adaptive_average_pool(ConstView x, View y, Stream stream) override;
  void adaptive_average_pool_backward(ConstView dy, View dx, Stream stream) override;

  // frozen
  void unary(ConstView x, Unary kind, double alpha, double beta, View y, Stream stream) override;
  void binary(ConstView a, ConstView b, Binary kind, const Walk& walk, View y, Stream stream) override;
  void strided_copy(ConstView x, std::int64_t x_offset, View y, std::int64_t y_offset, const Walk& walk,
                    Stream stream) override;

  // rows
  void softmax(ConstView x, View y, Stream stream) override;
  void softmax_backward(ConstView y, ConstView dy, View dx, Stream stream) override;
  void log_softmax(ConstView x, View y, Stream stream) override;
  void log_softmax_backward(ConstView y, ConstView dy, View dx, Stream stream) override;
  void l2_normalize(ConstView x, double epsilon, View y, View norm, Stream stream) override;
  void l2_normalize_backward(ConstView y, ConstView norm, ConstView dy, double epsilon, View dx,
                             Stream stream) override;
  void cross_entropy(ConstView logits, ConstView labels, double smoothing, View loss, View log_sum_exp,
                     Stream stream) override;
  void cross_entropy_backward(ConstView logits, ConstView labels, ConstView log_sum_exp, ConstView dloss,
                              double smoothing, View dlogits, Stream stream) override;
  void accumulate_metrics(ConstView logits, ConstView labels, View metrics, Stream stream) override;

  // logit_losses
  void soft_target_loss(ConstView student, ConstView teacher, double temperature, bool subtract_entropy, View loss,
                        View gradient, Stream stream) override;
  void decoupled_loss(ConstView student, ConstView teacher, ConstView labels, double alpha, double beta,
                      double temperature, View loss, View gradient, Stream stream) override;
  void mean_softmax_logits(ConstView x, double temperature, View y, Stream stream) override;
  void accumulate_agreement(ConstView a, ConstView b, View sums, Stream stream) override;

  // correlation
  void standardize_rows(ConstView x, double epsilon, View y, View deviation, Stream stream) override;
  void standardize_rows_backward(ConstView y, ConstView deviation, ConstView dy, double epsilon, View dx,
                                 Stream stream) override;
  void pearson_loss(ConstView x, ConstView y, bool by_columns, double epsilon, View loss, View gradient,
                    Stream stream) override;

  // optimizer
  void optimizer_step(const OptimizerArgs& args, Stream stream) override;

  // augment
  void augment(const AugmentParams& params, ConstView images, ConstView indices, ConstView epoch, View out,
               Stream stream) override;

  // feature_losses
  void pointwise_loss(PointwiseLoss kind, double beta, ConstView x, ConstView target, View loss, View gradient,
                      Stream stream) override;
  void channel_energy(ConstView x, double p, View y, Stream stream) override;
  void channel_energy_backward(ConstView x, double p, ConstView dy, View dx, Stream stream) override;
  void transpose_inner(ConstView x, View y, Stream stream) override;
  void neuron_selectivity(ConstView s, ConstView t, View loss, View gradient, Stream stream) override;
  void variational_information(ConstView mean, ConstView target, ConstView raw, double epsilon, View loss, View dmean,
                               View draw, Stream stream) override;

  // relation_losses
  void pairwise_squared_distances(ConstView x, View y, Stream stream) override;
  void pairwise_squared_distances_backward(ConstView x, ConstView dy, View dx, Stream stream) override;
  void distance_loss(ConstView s, ConstView t, const DistanceLossParams& params, View loss, View gradient,
                     Stream stream) override;
  void angle_loss(ConstView s, ConstView t, double epsilon, View loss, View gradient, Stream stream) override;
  void probability_transfer(ConstView s, ConstView t, double epsilon, View loss, View gradient, Stream stream) override;
  void correlation_congruence(ConstView a, ConstView b, View loss, View gradient, Stream stream) override;
};

}  // namespace RETORT_DEVICE_NAMESPACE
}  // namespace retort::kernels
