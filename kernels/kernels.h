// The one interface between the engine and raw memory. The CPU backend (kernels/cpu) and the CUDA backend
// (kernels/cuda) each implement it whole; a missing kernel does not compile.
//
// Conventions, unless a function says otherwise:
//  - Views are dense and row-major, and all views of a call lie on this backend's device. Images and feature
//    maps are [N, H, W, C]; convolution weights are [O, KH, KW, I / groups]; matrices are [rows, columns].
//  - "T" is one of f64, f32, bf16 and the same for all views so marked. "A" is the accumulation type that
//    goes with T: f64 for f64, else f32. Statistics, BN parameters and losses are kept in A.
//  - Outputs are overwritten, whatever they held; functions named accumulate_* add to theirs.
//  - An output may not overlap an input, save where the comment says "in place allowed".
//  - Work is queued on `stream` in order; the CPU runs it at once. Nothing here waits for the device except
//    synchronize() and the copies to the host.
//  - Callers (engine/ops) have checked shapes and types: kernels only assert. A failing library call throws
//    retort::Error with the call's text.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "kernels/types.h"

namespace retort::kernels {

struct AugmentParams;  // kernels/augment.h

struct Stream {
  void* handle = nullptr;  // cudaStream_t; the CPU has only the null stream
};

struct MemoryStats {
  std::size_t active_bytes = 0;  // handed out and not returned
  std::size_t peak_bytes = 0;    // the largest active_bytes since start or reset_peak
  std::size_t cached_bytes = 0;  // held by the pool, not handed out
};

// A recorded piece of device work (a CUDA graph; on the CPU the function itself).
class Graph {
 public:
  virtual ~Graph() = default;
  virtual void replay(Stream stream) = 0;
};

// What arithmetic a convolution or matrix product may use for f32 data.
enum class Math : std::uint8_t {
  strict,    // plain f32 multiply-add, direct algorithms only: for exact comparisons
  standard,  // any f32 algorithm, Winograd included
  tf32,      // tensor cores with 10-bit mantissa inputs where the device has them
};

enum class Activation : std::uint8_t { identity, relu, relu6 };

struct ConvParams {
  int stride_h = 1, stride_w = 1;
  int pad_h = 0, pad_w = 0;
  int dilation_h = 1, dilation_w = 1;  // from one tap of the kernel to the next; 1: none lies between them
  int groups = 1;
  Math math = Math::standard;
};

struct PoolParams {
  int kernel_h = 1, kernel_w = 1;
  int stride_h = 1, stride_w = 1;
  int pad_h = 0, pad_w = 0;            // before the first pixel
  int pad_h_end = -1, pad_w_end = -1;  // behind the last one; -1: as much as before the first
  int dilation_h = 1, dilation_w = 1;  // max pooling only
  bool ceil_mode = false;              // the output's extent is rounded up, but no window begins in the end's padding
  bool count_padding = true;           // average pooling: padding counts in what is divided by

  int end_h() const { return pad_h_end < 0 ? pad_h : pad_h_end; }
  int end_w() const { return pad_w_end < 0 ? pad_w : pad_w_end; }
};

// y = f(x) element by element; alpha and beta where they are named.
enum class Unary : std::uint8_t {
  leaky_relu,    // alpha x for x < 0, else x
  clip,          // min(max(x, alpha), beta)
  sigmoid,       // 1 / (1 + e^-x)
  hard_sigmoid,  // min(max(alpha x + beta, 0), 1)
  hard_swish,    // x min(max(x / 6 + 1/2, 0), 1)
  silu,          // x sigmoid(x)
  tanh,
  erf,
  exp,
  log,
  sqrt,
  reciprocal,
  absolute,
  negative,
  floor,
};

enum class Binary : std::uint8_t { add, subtract, multiply, divide, minimum, maximum, power };

// How a kernel goes over two operands that lie in memory as they like: row-major over `extents`; a and b say for each
// axis how many elements of memory lie from one index to the next (0: the same element again; may be negative).
struct Walk {
  static constexpr int kMaxRank = 6;
  int rank = 0;  // 0: one element
  std::array<std::int64_t, kMaxRank> extents{}, a{}, b{};
};

// Losses that are a mean over elements; d = x - target.
enum class PointwiseLoss : std::uint8_t {
  squared,               // d²
  smooth_l1,             // d² / (2 beta) for |d| < beta, else |d| - beta / 2
  binary_cross_entropy,  // log(1 + e^x) - target x
};

struct DistanceLossParams {
  bool normalize = true;
  bool squared = false;  // d² in place of smooth L1 with beta 1
  double epsilon = 1e-12;
};

// What a convolution does with its sums before it writes them: y = act(sum + bias + residual). Training asks for the
// bias alone; a network whose batch normalisation is folded into its convolutions, for all.
struct ConvEpilogue {
  ConstView bias = {};      // A [O] or empty
  ConstView residual = {};  // T, y's shape, or empty
  Activation act = Activation::identity;

  bool empty() const { return !bias && !residual && act == Activation::identity; }
};

// A stream of counter-based random numbers (Philox 4x32-10, kernels/philox.h).
struct RandomKey {
  std::uint64_t seed = 0;
  std::uint32_t purpose = 0;  // which user of random numbers: a layer, an augmentation, ...
};

// All parameters of a network lie in one flat arena; each begins at a multiple of this many elements, and
// the rest of its last chunk is zero. Per-parameter settings are tables with one entry a chunk.
inline constexpr std::int64_t kArenaChunk = 256;

// One step over the whole arena; all arena views have n = multiple of kArenaChunk elements.
struct OptimizerArgs {
  enum class Rule : std::uint8_t { sgd, adam, adamw };
  Rule rule = Rule::sgd;
  View parameter;           // A [n], updated in place
  View shadow;              // bf16 [n] or empty: receives the rounded parameter
  ConstView gradient;       // A [n]
  View moment1;             // A [n]: SGD velocity (empty when momentum is 0), Adam m
  View moment2;             // A [n]: Adam v; empty for SGD
  ConstView decay_scale;    // f32 [n / kArenaChunk]: factor on weight_decay, per chunk (0 switches it off)
  ConstView lr_scale;       // f32 [n / kArenaChunk]: factor on the learning rate, per chunk (0 freezes)
  ConstView lr;             // f64 [1], device value
  ConstView step;           // i32 [1], device value: 1 at the first step (Adam's bias correction; SGD's first
                            // velocity is the gradient itself, as in PyTorch with dampening 0)
  ConstView gradient_norm;  // f64 [1] or empty: with it, gradients are scaled by
  double max_norm = 0;      //   min(1, max_norm / (norm + 1e-6))
  double weight_decay = 0;
  double momentum = 0;                                // SGD
  bool nesterov = false;                              // SGD
  double beta1 = 0.9, beta2 = 0.999, epsilon = 1e-8;  // Adam, AdamW
};

class Backend {
 public:
  virtual ~Backend() = default;

  // --- device, memory, streams ---------------------------------------------------------------------------
  virtual Device device() const = 0;
  // One line for logs and run records: "Intel(R) Xeon(R) ..., 2 threads, oneDNN 2.6.3" / "NVIDIA H200, ...".
  virtual std::string description() const = 0;
  // From a caching pool, aligned to 64 bytes or more; never null; throws Error when memory is exhausted, with
  // the bytes asked for, active and cached.
  virtual void* allocate(std::size_t bytes, Stream stream) = 0;
  virtual void deallocate(void* data, std::size_t bytes, Stream stream) noexcept = 0;
  virtual MemoryStats memory_stats() const = 0;
  virtual void reset_peak() = 0;
  virtual void release_cached() = 0;
  virtual void copy_from_host(const void* host, View to, Stream stream) = 0;  // returns when `host` may be reused
  virtual void copy_to_host(ConstView from, void* host, Stream stream) = 0;   // returns when `host` is filled
  virtual void copy(ConstView from, View to, Stream stream) = 0;              // same type, same numel
  virtual void synchronize(Stream stream) = 0;
  virtual Stream create_stream() = 0;
  virtual void destroy_stream(Stream stream) noexcept = 0;
  // Makes `waiting` wait for all work queued on `on` so far.
  virtual void wait(Stream waiting, Stream on) = 0;
  // Records what `work` queues on `stream` without running it. Memory that `work` allocates must also be
  // freed by it. replay() runs the recording with the same addresses. `stream` comes from create_stream() (CUDA cannot
  // record the null stream); another stream takes part once it wait()s for it, and is wait()ed for before the end.
  virtual std::unique_ptr<Graph> capture(Stream stream, const std::function<void()>& work) = 0;

  // --- elementwise ---------------------------------------------------------------------------------------
  virtual void fill(View out, double value, Stream stream) = 0;                     // any dtype
  virtual void convert(ConstView x, View y, Stream stream) = 0;                     // y = x in y's type, any to any
  virtual void add(ConstView a, ConstView b, View y, Stream stream) = 0;            // T; in place allowed
  virtual void accumulate(ConstView x, View y, Stream stream) = 0;                  // y += x; floating types may differ
  virtual void scale(ConstView x, double factor, View y, Stream stream) = 0;        // T; in place allowed
  virtual void scale_by(ConstView x, ConstView factor, View y, Stream stream) = 0;  // y T = factor[0] x T, factor A
                                                                                    // [1]; in place allowed
  virtual void activation(ConstView x, Activation kind, View y, Stream stream) = 0;  // T; in place allowed
  // dx = dy where the activation was open, else 0; y is the forward's result. In place (dx = dy) allowed.
  virtual void activation_backward(ConstView y, ConstView dy, Activation kind, View dx, Stream stream) = 0;
  virtual void square(ConstView x, View y, Stream stream) = 0;                           // T
  virtual void square_backward(ConstView x, ConstView dy, View dx, Stream stream) = 0;   // dx = 2 x dy
  virtual void reciprocal_sqrt(ConstView x, double epsilon, View y, Stream stream) = 0;  // A: y = 1 / sqrt(x + epsilon)
  // y = x / (1 - p) or 0. Element e of sample n is dropped with probability p by the random number
  // (key.seed, key.purpose, epoch[0], sample_ids[n]; e): the mask does not depend on the batch. Its own backward:
  // dx = dropout(dy). x T [N, ...], sample_ids i32 [N], epoch i32 [1].
  virtual void dropout(ConstView x, ConstView sample_ids, ConstView epoch, double p, RandomKey key, View y,
                       Stream stream) = 0;

  // --- reductions ----------------------------------------------------------------------------------------
  virtual void sum(ConstView x, double factor, View y, Stream stream) = 0;        // y A [1] = factor * sum(x T)
  virtual void broadcast(ConstView x, double factor, View y, Stream stream) = 0;  // y T = factor * x A [1]
  virtual void sum_rows(ConstView x, View y, Stream stream) = 0;                  // x T [M, C] -> y A [C]
  virtual void norm(ConstView x, View y, Stream stream) = 0;                      // y f64 [1] = sqrt(sum x²), x A
  // y i32 [1] += number of elements of x (T) that are NaN or infinite
  virtual void accumulate_nonfinite(ConstView x, View y, Stream stream) = 0;

  // --- shape ---------------------------------------------------------------------------------------------
  // `rows` pieces of `columns` elements: out[r * out_pitch + c] = x[r * x_pitch + c] (pitches in elements;
  // any dtype, the same for both). Concatenation and its backward.
  virtual void copy_rows(ConstView x, std::int64_t x_pitch, View out, std::int64_t out_pitch, std::int64_t rows,
                         std::int64_t columns, Stream stream) = 0;
  // out[i] = x[indices[i]], i32 throughout.
  virtual void gather(ConstView x, ConstView indices, View out, Stream stream) = 0;

  // --- linear algebra (library) --------------------------------------------------------------------------
  // y [M, N] = op(a) op(b) (+ bias [N] added to every row), T; op transposes where asked. bias A or empty.
  virtual void matmul(ConstView a, bool transpose_a, ConstView b, bool transpose_b, ConstView bias, Math math, View y,
                      Stream stream) = 0;

  // --- convolution (library) -----------------------------------------------------------------------------
  // x T [N, H, W, C], w T [O, KH, KW, C / groups], y T [N, OH, OW, O]. A NaN may leave the activation as 0.
  virtual void conv2d(ConstView x, ConstView w, const ConvEpilogue& epilogue, const ConvParams& params, View y,
                      Stream stream) = 0;
  virtual void conv2d_backward_data(ConstView dy, ConstView w, const ConvParams& params, View dx, Stream stream) = 0;
  // dx += what conv2d_backward_data gives. Here through memory of its own; a backend whose library adds up spares that.
  virtual void accumulate_conv2d_backward_data(ConstView dy, ConstView w, const ConvParams& params, View dx,
                                               Stream stream);
  // dw in T.
  virtual void conv2d_backward_weights(ConstView x, ConstView dy, const ConvParams& params, View dw, Stream stream) = 0;

  // --- batch normalisation (Ioffe & Szegedy 2015), fused with an optional residual add and activation ------
  // y = act(gamma (x - mean) / sqrt(var + epsilon) + beta + residual); x, residual, y T [..., C]; others A [C].
  // Mean and biased variance over all rows. running_* += momentum (batch - running_*), with the unbiased variance;
  // counter i32 [1] += 1. mean and invstd are kept for the backward. residual may be empty.
  virtual void batch_norm_training(ConstView x, ConstView residual, ConstView gamma, ConstView beta, double momentum,
                                   double epsilon, Activation act, View y, View mean, View invstd, View running_mean,
                                   View running_var, View counter, Stream stream) = 0;
  virtual void batch_norm_inference(ConstView x, ConstView residual, ConstView gamma, ConstView beta,
                                    ConstView running_mean, ConstView running_var, double epsilon, Activation act,
                                    View y, Stream stream) = 0;
  // Backward of either. With batch_statistics, mean and invstd are those that batch_norm_training saved; without,
  // mean is the running mean and invstd 1 / sqrt(running_var + epsilon), both constants. y is read only where act is
  // not identity. beta where y is what batch_norm_training made of x without a residual, else empty: with it a backend
  // may work out again where the activation was open, bit for bit, and spare reading y. dresidual (T) and dx (T) may
  // each be empty. In place allowed: dresidual = dy.
  virtual void batch_norm_backward(ConstView x, ConstView y, ConstView dy, ConstView gamma, ConstView beta,
                                   ConstView mean, ConstView invstd, Activation act, bool batch_statistics, View dx,
                                   View dresidual, View dgamma, View dbeta, Stream stream) = 0;

  // --- pooling -------------------------------------------------------------------------------------------
  // argmax i32, y's shape: h * W + w of the chosen input pixel (the first of equals, padding never chosen).
  virtual void max_pool(ConstView x, const PoolParams& params, View y, View argmax, Stream stream) = 0;
  virtual void max_pool_backward(ConstView dy, ConstView argmax, const PoolParams& params, View dx, Stream stream) = 0;
  // Divides by the kernel's area within the padded input, or within the input (PoolParams::count_padding).
  virtual void average_pool(ConstView x, const PoolParams& params, View y, Stream stream) = 0;
  virtual void average_pool_backward(ConstView dy, const PoolParams& params, View dx, Stream stream) = 0;
  // Output cell i of n over an axis of length L averages [floor(i L / n), ceil((i + 1) L / n)). y [N, OH, OW, C];
  // global pooling is OH = OW = 1.
  virtual void adaptive_average_pool(ConstView x, View y, Stream stream) = 0;
  virtual void adaptive_average_pool_backward(ConstView dy, View dx, Stream stream) = 0;

  // --- frozen networks from elsewhere (forward only) -------------------------------------------------------
  virtual void unary(ConstView x, Unary kind, double alpha, double beta, View y, Stream stream) = 0;  // T; in place
                                                                                                      // allowed
  // y T, dense in the order of the walk, = kind(a T at walk.a, b T at walk.b). A NaN in an operand gives NaN, in
  // minimum and maximum too. In place allowed: y = a where walk.a is dense.
  virtual void binary(ConstView a, ConstView b, Binary kind, const Walk& walk, View y, Stream stream) = 0;
  // y[y_offset + sum_k i_k b_k] = x[x_offset + sum_k i_k a_k] for every index i of the walk; any dtype, the same for
  // both. No element of y is written twice: walk.b is never 0 along an axis of more than one.
  virtual void strided_copy(ConstView x, std::int64_t x_offset, View y, std::int64_t y_offset, const Walk& walk,
                            Stream stream) = 0;

  // --- rows: softmax, normalisation, losses ----------------------------------------------------------------
  virtual void softmax(ConstView x, View y, Stream stream) = 0;  // T [M, C], over C
  virtual void softmax_backward(ConstView y, ConstView dy, View dx, Stream stream) = 0;
  virtual void log_softmax(ConstView x, View y, Stream stream) = 0;
  virtual void log_softmax_backward(ConstView y, ConstView dy, View dx, Stream stream) = 0;
  // y = x / max(|x|_2, epsilon) row by row; norm A [M] is |x|_2.
  virtual void l2_normalize(ConstView x, double epsilon, View y, View norm, Stream stream) = 0;
  virtual void l2_normalize_backward(ConstView y, ConstView norm, ConstView dy, double epsilon, View dx,
                                     Stream stream) = 0;
  // Mean over rows of -sum_c q_c log softmax(logits)_c with q = (1 - smoothing) onehot(label) + smoothing / C.
  // logits T [M, C], labels i32 [M] in 0 .. C-1, loss A [1], log_sum_exp A [M] (kept for the backward).
  virtual void cross_entropy(ConstView logits, ConstView labels, double smoothing, View loss, View log_sum_exp,
                             Stream stream) = 0;
  // dlogits = dloss[0] (softmax(logits) - q) / M.
  virtual void cross_entropy_backward(ConstView logits, ConstView labels, ConstView log_sum_exp, ConstView dloss,
                                      double smoothing, View dlogits, Stream stream) = 0;
  // metrics f64 [4] += {sum over rows of the unsmoothed cross-entropy, rows whose label ranks first, rows whose label
  // is among the five largest, rows}. A row's label ranks first when no logit is larger and no equal one comes
  // before it. Rows with a non-finite logit count in rows only for ranking.
  virtual void accumulate_metrics(ConstView logits, ConstView labels, View metrics, Stream stream) = 0;

  // --- distillation: logits --------------------------------------------------------------------------------
  // A loss gives its gradient in the same pass as its value: loss A [1]; gradient, of the first argument's shape and
  // type, is that of the first argument for dloss = 1, and is left out where the view is empty.

  // y = (x - mean) / (s + epsilon) row by row, x and y T [M, C], C > 1; deviation A [M] is s, the unbiased one.
  virtual void standardize_rows(ConstView x, double epsilon, View y, View deviation, Stream stream) = 0;
  // A row of equal elements gets the gradient of a constant s.
  virtual void standardize_rows_backward(ConstView y, ConstView deviation, ConstView dy, double epsilon, View dx,
                                         Stream stream) = 0;
  // temperature² times the mean over rows of KL(q || p), p and q the softmax of student and teacher T [M, C] over
  // temperature; without subtract_entropy of -sum_c q_c log p_c, which has the same gradient.
  virtual void soft_target_loss(ConstView student, ConstView teacher, double temperature, bool subtract_entropy,
                                View loss, View gradient, Stream stream) = 0;
  // temperature² times the mean over rows of alpha KL over {label, rest} + beta KL over the classes that are not the
  // label: Zhao et al., CVPR 2022, eq. 7. student, teacher T [M, C], C > 1; labels i32 [M] in 0 .. C-1.
  virtual void decoupled_loss(ConstView student, ConstView teacher, ConstView labels, double alpha, double beta,
                              double temperature, View loss, View gradient, Stream stream) = 0;
  // 1 - the mean over rows (or columns) of a·b / (|a| |b| + epsilon), a and b those of x and y T [M, N] less their
  // means: Huang et al., NeurIPS 2022, eq. 6. A constant row or column of x gets no gradient by way of |a|.
  virtual void pearson_loss(ConstView x, ConstView y, bool by_columns, double epsilon, View loss, View gradient,
                            Stream stream) = 0;
  // y T [M, C] = temperature log(1/K sum_k softmax(x_k / temperature)), x T [K, M, C].
  virtual void mean_softmax_logits(ConstView x, double temperature, View y, Stream stream) = 0;
  // sums f64 [3] += {rows in which a and b T [M, C] have the same largest element (the first of equals), sum over rows
  // of mean_c |a - b|, rows}. Rows with a non-finite element do not agree.
  virtual void accumulate_agreement(ConstView a, ConstView b, View sums, Stream stream) = 0;

  // --- optimisation ----------------------------------------------------------------------------------------
  virtual void optimizer_step(const OptimizerArgs& args, Stream stream) = 0;

  // --- data ------------------------------------------------------------------------------------------------
  // From images u8 [count, H, W, 3] to the network's input out (f64, f32 or bf16) [B, OH, OW, 3]: gather by
  // indices i32 [B], augment, normalise, in one pass. See kernels/augment.h; epoch i32 [1].
  virtual void augment(const AugmentParams& params, ConstView images, ConstView indices, ConstView epoch, View out,
                       Stream stream) = 0;

  // --- distillation: feature maps ------------------------------------------------------------------------------
  // A loss is A [1]. Gradients (of a loss: for dloss = 1) are in the type and shape of what they belong to; an empty
  // view is not computed. Papers: engine/ops/feature_losses.h.
  // Mean over all elements, T.
  virtual void pointwise_loss(PointwiseLoss kind, double beta, ConstView x, ConstView target, View loss, View gradient,
                              Stream stream) = 0;
  // y A [M] = mean over c of |x|^p, p > 0; x T [M, C] (any split of M into axes). The derivative at 0 counts as 0.
  virtual void channel_energy(ConstView x, double p, View y, Stream stream) = 0;
  virtual void channel_energy_backward(ConstView x, double p, ConstView dy, View dx, Stream stream) = 0;
  // x T [N, R, C] -> y T [N, C, R]. Its own backward, with R and C exchanged.
  virtual void transpose_inner(ConstView x, View y, Stream stream) = 0;
  // Mean over n of mean_ij (s_i s_j)² + mean_ij (t_i t_j)² - 2 mean_ij (s_i t_j)², s A [N, Cs, D], t A [N, Ct, D].
  virtual void neuron_selectivity(ConstView s, ConstView t, View loss, View gradient, Stream stream) = 0;
  // Mean of ½ ((mean - target)² / v + log v), v_c = softplus(raw_c) + epsilon; mean, target T [..., C], raw A [C].
  virtual void variational_information(ConstView mean, ConstView target, ConstView raw, double epsilon, View loss,
                                       View dmean, View draw, Stream stream) = 0;

  // --- distillation: relations in a batch ----------------------------------------------------------------------
  // All in A. Losses and gradients as above. Papers: engine/ops/relation_losses.h.
  // x [B, D] -> y [B, B] = |x_i - x_j|².
  virtual void pairwise_squared_distances(ConstView x, View y, Stream stream) = 0;
  // dx_i = 2 sum_j (dy_ij + dy_ji) (x_i - x_j)
  virtual void pairwise_squared_distances_backward(ConstView x, ConstView dy, View dx, Stream stream) = 0;
  // s, t [B, B]: squared distances, d = sqrt(max(s, epsilon)) off the diagonal and 0 on it; with normalize divided by
  // the mean of those above 0. Mean over all B².
  virtual void distance_loss(ConstView s, ConstView t, const DistanceLossParams& params, View loss, View gradient,
                             Stream stream) = 0;
  // s, t [B, B]: squared distances, symmetric, which the kernels make use of. Mean over i, j, k of smooth L1 (beta 1)
  // of the difference of cos_ijk = (s_ij + s_ik - s_jk) / (2 sqrt(s_ij s_ik)), 0 where s_ij or s_ik <= epsilon².
  virtual void angle_loss(ConstView s, ConstView t, double epsilon, View loss, View gradient, Stream stream) = 0;
  // s, t [B, B]: cosines; rows of p = (s + 1) / 2 divided by their sums. Mean of p_t log((p_t + epsilon) / (p_s +
  // epsilon)).
  virtual void probability_transfer(ConstView s, ConstView t, double epsilon, View loss, View gradient,
                                    Stream stream) = 0;
  // d = |a - b| [B, D]; mean over i < B - 1 of sum_k d_ik d_(i+1)k. gradient is a's; b's is its negative.
  virtual void correlation_congruence(ConstView a, ConstView b, View loss, View gradient, Stream stream) = 0;
};

// The backend of a device, created at first use. Throws Error where there is none, and says why.
Backend& backend(Device device);

// Usable CUDA devices; 0 where the build has no CUDA or the machine no device.
int cuda_device_count();

// Where CUDA backends come from: set once by the build's CUDA part (or the stub that stands in for it), and by the
// SIMT tests, which run the CUDA kernels on the CPU.
struct CudaProvider {
  int (*device_count)();
  std::string (*why_unavailable)();  // one clause for error messages: "this build has no CUDA"
  std::unique_ptr<Backend> (*create)(int index);
};
CudaProvider built_in_cuda_provider();                 // kernels/cuda: the real one, or the stub's
void set_cuda_provider(const CudaProvider& provider);  // before the first use of a CUDA device

std::unique_ptr<Backend> make_cpu_backend();

}  // namespace retort::kernels
