// Losses between the logits of a student and of a teacher: one warp a row, value and gradient in one kernel.
// Exponentials are of the accumulation type; sums of them and what is one number a row are f64.
#include "kernels/cuda/common.h"
#include "kernels/cuda/rows.h"
#include "kernels/logit_math.h"

namespace retort::kernels {
namespace {

constexpr std::int64_t kNone = -1;  // no class

// A row of student and teacher softened: softmax(x / temperature) over all classes but `without`. The same in every
// lane.
template <typename T>
struct SoftenedPair {
  using A = Accumulation<T>;
  const T *student, *teacher;
  std::int64_t columns, without;
  double inverse;  // of the temperature
  A student_largest, teacher_largest;
  double student_sum, teacher_sum;  // of exp((x - largest) / temperature)
  double cross_entropy;             // -sum_c q_c log p_c, less the entropy of the teacher's q where asked

  __device__ A student_exponential(std::int64_t c) const {
    return std::exp((static_cast<A>(student[c]) - student_largest) * static_cast<A>(inverse));
  }
  __device__ A teacher_exponential(std::int64_t c) const {
    return std::exp((static_cast<A>(teacher[c]) - teacher_largest) * static_cast<A>(inverse));
  }
  __device__ double student_below(std::int64_t c) const {
    return (static_cast<double>(static_cast<A>(student[c])) - static_cast<double>(student_largest)) * inverse;
  }
  __device__ double teacher_below(std::int64_t c) const {
    return (static_cast<double>(static_cast<A>(teacher[c])) - static_cast<double>(teacher_largest)) * inverse;
  }

  __device__ SoftenedPair(const T* student_row, const T* teacher_row, std::int64_t count, std::int64_t left_out,
                          double inverse_temperature, bool subtract_entropy)
      : student(student_row), teacher(teacher_row), columns(count), without(left_out), inverse(inverse_temperature) {
    A s = -INFINITY, t = -INFINITY;
    for_classes([&](std::int64_t c) {
      s = static_cast<A>(student[c]) > s ? static_cast<A>(student[c]) : s;
      t = static_cast<A>(teacher[c]) > t ? static_cast<A>(teacher[c]) : t;
    });
    student_largest = warp_max(s);
    teacher_largest = warp_max(t);
    student_sum = teacher_sum = cross_entropy = 0;
    for_classes([&](std::int64_t c) {
      const auto q = static_cast<double>(teacher_exponential(c));
      student_sum += static_cast<double>(student_exponential(c));
      teacher_sum += q;
      // With the teacher's own logarithm the terms are log-ratios, and small where the two agree.
      cross_entropy += q * ((subtract_entropy ? teacher_below(c) : 0.0) - student_below(c));
    });
    student_sum = warp_sum(student_sum);
    teacher_sum = warp_sum(teacher_sum);
    cross_entropy = warp_sum(cross_entropy) / teacher_sum + std::log(student_sum);
    if (subtract_entropy) cross_entropy -= std::log(teacher_sum);
  }

  // Calls f(c) for the classes of this lane.
  template <typename F>
  __device__ void for_classes(const F& f) const {
    for_columns(columns, [&](std::int64_t c) {
      if (c != without) f(c);
    });
  }

  // gradient[c] = to_student p_c - to_teacher q_c.
  __device__ void write_gradient(double to_student, double to_teacher, T* gradient) const {
    const A p = static_cast<A>(to_student / student_sum), q = static_cast<A>(to_teacher / teacher_sum);
    for_classes(
        [&](std::int64_t c) { gradient[c] = narrow<T>(student_exponential(c) * p - teacher_exponential(c) * q); });
  }
};

// Both kernels leave a row's loss before the factor T² / rows; `scale` is T / rows. gradient may be null.
template <typename T>
__global__ void __launch_bounds__(kBlockThreads)
    soft_target_kernel(const T* student, const T* teacher, double inverse, bool subtract_entropy, double scale,
                       double* row_loss, T* gradient, std::int64_t rows, std::int64_t columns) {
  const std::int64_t row = row_of_warp(), at = row * columns;
  if (row >= rows) return;
  const SoftenedPair<T> pair(student + at, teacher + at, columns, kNone, inverse, subtract_entropy);
  if (threadIdx.x % 32 == 0) row_loss[row] = pair.cross_entropy;
  if (gradient != nullptr) pair.write_gradient(scale, scale, gradient + at);
}

// The softened rows are those of the classes that are not the label; the label comes in by its log-odds.
template <typename T>
__global__ void __launch_bounds__(kBlockThreads)
    decoupled_kernel(const T* student, const T* teacher, const std::int32_t* labels, double alpha, double beta,
                     double inverse, double scale, double* row_loss, T* gradient, std::int64_t rows,
                     std::int64_t columns) {
  const std::int64_t row = row_of_warp(), at = row * columns;
  if (row >= rows) return;
  const std::int64_t label = labels[row];
  const SoftenedPair<T> pair(student + at, teacher + at, columns, label, inverse, true);
  // A label that is no class poisons the loss instead of reading outside the row.
  const bool valid = label >= 0 && label < columns;
  const BinaryDivergence target(valid ? pair.student_below(label) - std::log(pair.student_sum) : NAN,
                                valid ? pair.teacher_below(label) - std::log(pair.teacher_sum) : NAN);
  if (threadIdx.x % 32 == 0) row_loss[row] = alpha * target.value + beta * pair.cross_entropy;
  if (gradient == nullptr) return;
  gradient += at;
  pair.write_gradient(scale * (beta - alpha * target.slope), scale * beta, gradient);
  if (valid && threadIdx.x % 32 == 0) {
    gradient[label] = narrow<T>(static_cast<Accumulation<T>>(scale * alpha * target.slope));
  }
}

// One row of the mean of the teachers' softmaxes, as logits: their logarithms are averaged as log-sum-exp, so that no
// probability is too small for its type. scratch
// [rows, teachers, 2] receives each teacher's largest logit and the logarithm of its sum.
template <typename T>
__global__ void __launch_bounds__(kBlockThreads)
    mean_softmax_kernel(const T* x, std::int64_t teachers, Accumulation<T> temperature, Accumulation<T>* scratch, T* y,
                        std::int64_t rows, std::int64_t columns) {
  using A = Accumulation<T>;
  const std::int64_t row = row_of_warp(), pitch = rows * columns;
  if (row >= rows) return;
  x += row * columns;
  scratch += row * teachers * 2;
  const A inverse = A(1) / temperature;
  for (std::int64_t k = 0; k < teachers; ++k) {
    const T* const of_teacher = x + k * pitch;
    A largest = -INFINITY, sum = 0;
    for_columns(columns, [&](std::int64_t c) {
      largest = static_cast<A>(of_teacher[c]) > largest ? static_cast<A>(of_teacher[c]) : largest;
    });
    largest = warp_max(largest);
    for_columns(columns, [&](std::int64_t c) { sum += std::exp((static_cast<A>(of_teacher[c]) - largest) * inverse); });
    sum = warp_sum(sum);
    if (threadIdx.x % 32 == 0) {
      scratch[2 * k] = largest;
      scratch[2 * k + 1] = std::log(sum);
    }
  }
  __syncwarp();
  for_columns(columns, [&](std::int64_t c) {
    const auto log_probability = [&](std::int64_t k) {
      return (static_cast<A>(x[k * pitch + c]) - scratch[2 * k]) * inverse - scratch[2 * k + 1];
    };
    A largest = -INFINITY, sum = 0;
    for (std::int64_t k = 0; k < teachers; ++k) largest = log_probability(k) > largest ? log_probability(k) : largest;
    for (std::int64_t k = 0; k < teachers; ++k) sum += std::exp(log_probability(k) - largest);
    y[row * columns + c] = narrow<T>(temperature * (largest + std::log(sum / static_cast<A>(teachers))));
  });
}

// The first of the largest elements of a row.
template <typename T>
__device__ int first_largest(const T* row, std::int64_t columns) {
  using A = Accumulation<T>;
  A largest = -INFINITY;
  for_columns(columns,
              [&](std::int64_t c) { largest = static_cast<A>(row[c]) > largest ? static_cast<A>(row[c]) : largest; });
  largest = warp_max(largest);
  int before_none = 0;  // columns - index, so that the maximum is the first
  for_columns(columns, [&](std::int64_t c) {
    const int candidate = static_cast<int>(columns - c);
    if (static_cast<A>(row[c]) == largest && candidate > before_none) before_none = candidate;
  });
  return static_cast<int>(columns) - warp_max(before_none);
}

constexpr int kAgreement = 3;

// Each row's {the same largest element, mean |a - b|, 1}.
template <typename T>
__global__ void __launch_bounds__(kBlockThreads)
    agreement_kernel(const T* a, const T* b, double* out, std::int64_t rows, std::int64_t columns) {
  using A = Accumulation<T>;
  const std::int64_t row = row_of_warp();
  if (row >= rows) return;
  a += row * columns;
  b += row * columns;
  int bad = 0;
  double distance = 0;
  for_columns(columns, [&](std::int64_t c) {
    const A x = static_cast<A>(a[c]), y = static_cast<A>(b[c]);
    if (!std::isfinite(x) || !std::isfinite(y)) bad = 1;
    distance += std::abs(static_cast<double>(x) - static_cast<double>(y));
  });
  bad = warp_sum(bad);
  distance = warp_sum(distance);
  const bool same = first_largest(a, columns) == first_largest(b, columns);
  if (threadIdx.x % 32 != 0) return;
  out += row * kAgreement;
  out[0] = bad == 0 && same ? 1 : 0;
  out[1] = distance / static_cast<double>(columns);
  out[2] = 1;
}

}  // namespace

void CudaKernels::soft_target_loss(ConstView student, ConstView teacher, double temperature, bool subtract_entropy,
                                   View loss, View gradient, Stream stream) {
  const std::int64_t rows = student.shape.rows(), columns = student.shape.last();
  const double scale = temperature / static_cast<double>(rows);
  for_floating(student.dtype, [&]<typename T>() {
    using A = Accumulation<T>;
    const Workspace<double> row_loss(*this, rows, stream);
    launch(soft_target_kernel<T>, grid_for_rows(rows), kBlockThreads, 0, stream, student.as<T>(), teacher.as<T>(),
           1 / temperature, subtract_entropy, scale, row_loss.get(), gradient.as<T>(), rows, columns);
    launch(sum_small_kernel<double, A, 1, false>, 1, kBlockThreads, 0, stream, row_loss.get(), rows,
           temperature * scale, loss.as<A>());
  });
}

void CudaKernels::decoupled_loss(ConstView student, ConstView teacher, ConstView labels, double alpha, double beta,
                                 double temperature, View loss, View gradient, Stream stream) {
  const std::int64_t rows = student.shape.rows(), columns = student.shape.last();
  const double scale = temperature / static_cast<double>(rows);
  for_floating(student.dtype, [&]<typename T>() {
    using A = Accumulation<T>;
    const Workspace<double> row_loss(*this, rows, stream);
    launch(decoupled_kernel<T>, grid_for_rows(rows), kBlockThreads, 0, stream, student.as<T>(), teacher.as<T>(),
           labels.as<std::int32_t>(), alpha, beta, 1 / temperature, scale, row_loss.get(), gradient.as<T>(), rows,
           columns);
    launch(sum_small_kernel<double, A, 1, false>, 1, kBlockThreads, 0, stream, row_loss.get(), rows,
           temperature * scale, loss.as<A>());
  });
}

void CudaKernels::mean_softmax_logits(ConstView x, double temperature, View y, Stream stream) {
  const std::int64_t rows = y.shape.rows(), columns = y.shape.last();
  for_floating(x.dtype, [&]<typename T>() {
    using A = Accumulation<T>;
    const Workspace<A> scratch(*this, x.shape[0] * rows * 2, stream);
    launch(mean_softmax_kernel<T>, grid_for_rows(rows), kBlockThreads, 0, stream, x.as<T>(), x.shape[0],
           static_cast<A>(temperature), scratch.get(), y.as<T>(), rows, columns);
  });
}

void CudaKernels::accumulate_agreement(ConstView a, ConstView b, View sums, Stream stream) {
  const std::int64_t rows = a.shape.rows(), columns = a.shape.last();
  for_floating(a.dtype, [&]<typename T>() {
    const Workspace<double> values(*this, rows * kAgreement, stream);
    launch(agreement_kernel<T>, grid_for_rows(rows), kBlockThreads, 0, stream, a.as<T>(), b.as<T>(), values.get(), rows,
           columns);
    launch(sum_small_kernel<double, double, kAgreement, true>, 1, kBlockThreads, 0, stream, values.get(), rows, 1.0,
           sums.as<double>());
  });
}

}  // namespace retort::kernels
