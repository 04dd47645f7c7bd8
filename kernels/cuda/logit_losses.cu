// Losses between the logits of a student and of a teacher: one warp a row, value and gradient in one kernel. In f64, as
// on the CPU: at a temperature T a loss is T² times what is left of numbers near 1.
#include "kernels/cuda/common.h"
#include "kernels/cuda/rows.h"
#include "kernels/logit_math.h"

namespace retort::kernels {
namespace {

constexpr std::int64_t kNone = -1;  // no class

// A row of student and teacher softened: p and q, softmax(x / temperature) over all classes but `without`. The same in
// every lane.
template <typename T>
struct SoftenedPair {
  const T *student, *teacher;
  std::int64_t columns, without;
  double inverse;  // of the temperature
  double student_largest, teacher_largest;
  double student_sum, teacher_sum;  // of exp((x - largest) / temperature)
  double log_of_sums;               // log(student_sum / teacher_sum)

  __device__ static double wide(T x) { return static_cast<double>(static_cast<Accumulation<T>>(x)); }
  __device__ double student_below(std::int64_t c) const { return (wide(student[c]) - student_largest) * inverse; }
  __device__ double teacher_below(std::int64_t c) const { return (wide(teacher[c]) - teacher_largest) * inverse; }
  // Scaled after the subtraction: 0 where the two agree, however the compiler fuses products and sums.
  __device__ double above_student(std::int64_t c) const {
    return ((wide(teacher[c]) - teacher_largest) - (wide(student[c]) - student_largest)) * inverse;
  }
  __device__ double probability(std::int64_t c) const { return std::exp(student_below(c)) / student_sum; }
  // x_c / temperature less the log-sum-exp of the row: the teacher's, less the student's.
  __device__ double log_ratio(std::int64_t c) const { return above_student(c) + log_of_sums; }
  __device__ double teacher_log_ratio(std::int64_t c) const { return teacher_below(c) - std::log(teacher_sum); }
  __device__ DivergenceTerm term(std::int64_t c) const {
    return {probability(c), std::exp(teacher_below(c)) / teacher_sum, log_ratio(c)};
  }

  __device__ SoftenedPair(const T* student_row, const T* teacher_row, std::int64_t count, std::int64_t left_out,
                          double inverse_temperature)
      : student(student_row), teacher(teacher_row), columns(count), without(left_out), inverse(inverse_temperature) {
    double s = -INFINITY, t = -INFINITY;
    for_classes([&](std::int64_t c) {
      s = wide(student[c]) > s ? wide(student[c]) : s;
      t = wide(teacher[c]) > t ? wide(teacher[c]) : t;
    });
    student_largest = warp_max(s);
    teacher_largest = warp_max(t);
    student_sum = teacher_sum = 0;
    double difference = 0;
    for_classes([&](std::int64_t c) {
      const double p = std::exp(student_below(c)), q = std::exp(teacher_below(c));
      student_sum += p;
      teacher_sum += q;
      difference += exponential_difference(p, q, -above_student(c));
    });
    student_sum = warp_sum(student_sum);
    teacher_sum = warp_sum(teacher_sum);
    log_of_sums = std::log1p(warp_sum(difference) / teacher_sum);
  }

  // Calls f(c) for the classes of this lane.
  template <typename F>
  __device__ void for_classes(const F& f) const {
    for_columns(columns, [&](std::int64_t c) {
      if (c != without) f(c);
    });
  }

  // -sum_c q_c log p_c.
  __device__ double cross_entropy() const {
    double total = 0;
    for_classes([&](std::int64_t c) { total -= std::exp(teacher_below(c)) * student_below(c); });
    return warp_sum(total) / teacher_sum + std::log(student_sum);
  }

  // KL(q || p); gradient[c] = slope(c, p_c - q_c) where gradient is not null.
  template <typename F>
  __device__ double divergence(T* gradient, const F& slope) const {
    double total = 0;
    for_classes([&](std::int64_t c) {
      const DivergenceTerm both = term(c);
      total += both.value;
      if (gradient != nullptr) gradient[c] = narrow<T>(static_cast<Accumulation<T>>(slope(c, both.slope)));
    });
    return warp_sum(total);
  }
};

// Both kernels leave a row's loss before the factor T² / rows; `scale` is T / rows. gradient may be null.
template <typename T>
__global__ void __launch_bounds__(kBlockThreads)
    soft_target_kernel(const T* student, const T* teacher, double inverse, bool subtract_entropy, double scale,
                       double* row_loss, T* gradient, std::int64_t rows, std::int64_t columns) {
  const std::int64_t row = row_of_warp(), at = row * columns;
  if (row >= rows) return;
  const SoftenedPair<T> pair(student + at, teacher + at, columns, kNone, inverse);
  T* const out = gradient == nullptr ? nullptr : gradient + at;
  double loss = pair.divergence(out, [&](std::int64_t, double difference) { return scale * difference; });
  if (!subtract_entropy) loss = pair.cross_entropy();
  if (threadIdx.x % 32 == 0) row_loss[row] = loss;
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
  const SoftenedPair<T> pair(student + at, teacher + at, columns, label, inverse);
  // A label that is no class poisons the loss instead of reading outside the row.
  const bool valid = label >= 0 && label < columns;
  const BinaryDivergence target(valid ? pair.teacher_log_ratio(label) : NAN, valid ? -pair.log_ratio(label) : NAN);
  T* const out = gradient == nullptr ? nullptr : gradient + at;
  const double others = pair.divergence(out, [&](std::int64_t c, double difference) {
    return scale * (beta * difference - alpha * target.slope * pair.probability(c));
  });
  if (threadIdx.x % 32 != 0) return;
  row_loss[row] = alpha * target.value + beta * others;
  if (out != nullptr && valid) out[label] = narrow<T>(static_cast<Accumulation<T>>(scale * alpha * target.slope));
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
