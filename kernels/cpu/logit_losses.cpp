// Losses between the logits of a student and of a teacher. Exponentials are of the accumulation type, sums of them and
// whatever is one number a row are f64; rows are added up in their order.
#include <algorithm>
#include <cassert>
#include <cmath>
#include <limits>
#include <vector>

#include "kernels/cpu/backend.h"
#include "kernels/cpu/dispatch.h"
#include "kernels/cpu/parallel.h"
#include "kernels/logit_math.h"

namespace retort::kernels {
namespace cpu {
namespace {

constexpr std::int64_t kExpCost = 8;  // of an exponential, in element operations
constexpr std::int64_t kNone = -1;    // no class

// softmax(x / temperature) of a row, over all classes but `without`: exponential(c) / sum.
template <typename T>
class SoftenedRow {
 public:
  using A = Accumulator<T>;

  SoftenedRow(std::int64_t columns, double temperature)
      : inverse_(1 / temperature), exponentials_(static_cast<std::size_t>(columns)) {}

  void set(const T* x, std::int64_t without) {
    x_ = x;
    const auto columns = static_cast<std::int64_t>(exponentials_.size());
    largest_ = -std::numeric_limits<A>::infinity();
    for (std::int64_t c = 0; c < columns; ++c) {
      const A v = load(x[c]);
      largest_ = v > largest_ && c != without ? v : largest_;
    }
    A* const exponentials = exponentials_.data();
    for (std::int64_t c = 0; c < columns; ++c) {
      exponentials[c] = std::exp((load(x[c]) - largest_) * static_cast<A>(inverse_));
    }
    if (without != kNone) exponentials[without] = 0;
    sum_ = 0;
    for (std::int64_t c = 0; c < columns; ++c) sum_ += static_cast<double>(exponentials[c]);
  }

  double sum() const { return sum_; }
  A exponential(std::int64_t c) const { return exponentials_[static_cast<std::size_t>(c)]; }
  // (x_c - the largest) / temperature: the logarithm of exponential(c).
  double below(std::int64_t c) const {
    return (static_cast<double>(load(x_[c])) - static_cast<double>(largest_)) * inverse_;
  }
  // x_c / temperature less the log-sum-exp of the row.
  double log_ratio(std::int64_t c) const { return below(c) - std::log(sum_); }

 private:
  double inverse_;
  const T* x_ = nullptr;
  A largest_ = 0;
  double sum_ = 0;
  std::vector<A> exponentials_;
};

// -sum_c q_c log p_c, less the entropy of the teacher's q where asked: then the terms are log-ratios, and small where
// the two agree.
template <typename T>
double cross_entropy_of(const SoftenedRow<T>& student, const SoftenedRow<T>& teacher, std::int64_t columns,
                        bool subtract_entropy) {
  double total = 0;
  for (std::int64_t c = 0; c < columns; ++c) {
    const double own = subtract_entropy ? teacher.below(c) : 0.0;
    total += static_cast<double>(teacher.exponential(c)) * (own - student.below(c));
  }
  return total / teacher.sum() + std::log(student.sum()) - (subtract_entropy ? std::log(teacher.sum()) : 0.0);
}

// loss = T² times the mean of row(r, student's T, teacher's T, gradient of the row or null, `scale`); a row's gradient
// by its logits over the temperature is to be multiplied by `scale`.
template <typename T, typename Row>
void mean_over_rows(ConstView student, ConstView teacher, double temperature, View loss, View gradient,
                    const Row& row) {
  const std::int64_t rows = student.shape.rows(), columns = student.shape.last();
  const double scale = temperature / static_cast<double>(rows);
  std::vector<double> losses(static_cast<std::size_t>(rows));
  parallel_for(rows, 2 * columns * kExpCost, [&](std::int64_t begin, std::int64_t end) {
    SoftenedRow<T> s(columns, temperature), t(columns, temperature);
    for (std::int64_t r = begin; r < end; ++r) {
      T* const out = gradient ? gradient.as<T>() + r * columns : nullptr;
      const std::int64_t without = row.without(r);
      s.set(student.as<T>() + r * columns, without);
      t.set(teacher.as<T>() + r * columns, without);
      losses[static_cast<std::size_t>(r)] = row(r, s, t, out, scale);
    }
  });
  double total = 0;
  for (double value : losses) total += value;
  loss.as<Accumulator<T>>()[0] = static_cast<Accumulator<T>>(temperature * scale * total);
}

struct SoftTargetRow {
  std::int64_t columns;
  bool subtract_entropy;

  std::int64_t without(std::int64_t) const { return kNone; }
  template <typename T>
  double operator()(std::int64_t, const SoftenedRow<T>& student, const SoftenedRow<T>& teacher, T* gradient,
                    double scale) const {
    using A = Accumulator<T>;
    if (gradient != nullptr) {
      const A to_p = static_cast<A>(scale / student.sum()), to_q = static_cast<A>(scale / teacher.sum());
      for (std::int64_t c = 0; c < columns; ++c) {
        gradient[c] = static_cast<T>(student.exponential(c) * to_p - teacher.exponential(c) * to_q);
      }
    }
    return cross_entropy_of(student, teacher, columns, subtract_entropy);
  }
};

// The softened rows are those of the classes that are not the label; the label comes in by its log-odds.
struct DecoupledRow {
  std::int64_t columns;
  const std::int32_t* labels;
  double alpha, beta;

  std::int64_t without(std::int64_t row) const {
    assert(labels[row] >= 0 && labels[row] < columns);
    return labels[row];
  }
  template <typename T>
  double operator()(std::int64_t row, const SoftenedRow<T>& student, const SoftenedRow<T>& teacher, T* gradient,
                    double scale) const {
    using A = Accumulator<T>;
    const std::int64_t label = labels[row];
    const BinaryDivergence target(student.log_ratio(label), teacher.log_ratio(label));
    if (gradient != nullptr) {
      const A to_p = static_cast<A>(scale * (beta - alpha * target.slope) / student.sum());
      const A to_q = static_cast<A>(scale * beta / teacher.sum());
      for (std::int64_t c = 0; c < columns; ++c) {
        gradient[c] = static_cast<T>(student.exponential(c) * to_p - teacher.exponential(c) * to_q);
      }
      gradient[label] = static_cast<T>(static_cast<A>(scale * alpha * target.slope));
    }
    return alpha * target.value + beta * cross_entropy_of(student, teacher, columns, true);
  }
};

// One row of the mean of K softmaxes, as logits. The teachers' logarithms are averaged as log-sum-exp, so that no
// probability is too small for its type.
template <typename T>
void mean_of_teachers(const T* x, std::int64_t teacher_pitch, std::int64_t columns, double temperature,
                      std::vector<SoftenedRow<T>>& teachers, T* y) {
  for (std::size_t k = 0; k < teachers.size(); ++k) {
    teachers[k].set(x + static_cast<std::int64_t>(k) * teacher_pitch, kNone);
  }
  std::vector<double> log_sums;
  for (const SoftenedRow<T>& teacher : teachers) log_sums.push_back(std::log(teacher.sum()));
  const double count = static_cast<double>(teachers.size());
  for (std::int64_t c = 0; c < columns; ++c) {
    double largest = -std::numeric_limits<double>::infinity(), sum = 0;
    for (std::size_t k = 0; k < teachers.size(); ++k) largest = std::max(largest, teachers[k].below(c) - log_sums[k]);
    for (std::size_t k = 0; k < teachers.size(); ++k) sum += std::exp(teachers[k].below(c) - log_sums[k] - largest);
    y[c] = convert_to<T>(temperature * (largest + std::log(sum / count)));
  }
}

struct Agreement {
  bool agree;
  double distance;
};

template <typename T>
Agreement agreement_of(const T* a, const T* b, std::int64_t columns) {
  std::int64_t first_a = 0, first_b = 0;
  bool finite = true;
  double distance = 0;
  for (std::int64_t c = 0; c < columns; ++c) {
    if (load(a[c]) > load(a[first_a])) first_a = c;
    if (load(b[c]) > load(b[first_b])) first_b = c;
    finite = finite && std::isfinite(load(a[c])) && std::isfinite(load(b[c]));
    distance += std::abs(static_cast<double>(load(a[c])) - static_cast<double>(load(b[c])));
  }
  return {finite && first_a == first_b, distance / static_cast<double>(columns)};
}

}  // namespace
}  // namespace cpu

using namespace cpu;

void CpuBackend::soft_target_loss(ConstView student, ConstView teacher, double temperature, bool subtract_entropy,
                                  View loss, View gradient, Stream) {
  assert(student.dtype == teacher.dtype && student.shape == teacher.shape);
  assert(!gradient || (gradient.dtype == student.dtype && gradient.shape == student.shape));
  const SoftTargetRow row{student.shape.last(), subtract_entropy};
  dispatch_floating("soft_target_loss", student.dtype, [&]<typename T>(std::type_identity<T>) {
    mean_over_rows<T>(student, teacher, temperature, loss, gradient, row);
  });
}

void CpuBackend::decoupled_loss(ConstView student, ConstView teacher, ConstView labels, double alpha, double beta,
                                double temperature, View loss, View gradient, Stream) {
  assert(student.dtype == teacher.dtype && student.shape == teacher.shape);
  assert(!gradient || (gradient.dtype == student.dtype && gradient.shape == student.shape));
  assert(labels.dtype == DType::i32 && labels.numel() == student.shape.rows());
  const DecoupledRow row{student.shape.last(), labels.as<std::int32_t>(), alpha, beta};
  dispatch_floating("decoupled_loss", student.dtype, [&]<typename T>(std::type_identity<T>) {
    mean_over_rows<T>(student, teacher, temperature, loss, gradient, row);
  });
}

void CpuBackend::mean_softmax_logits(ConstView x, double temperature, View y, Stream) {
  assert(x.dtype == y.dtype && x.shape.rank() == 3 && x.numel() == x.shape[0] * y.numel());
  const std::int64_t teachers = x.shape[0], rows = y.shape.rows(), columns = y.shape.last();
  dispatch_floating("mean_softmax_logits", x.dtype, [&]<typename T>(std::type_identity<T>) {
    parallel_for(rows, 3 * teachers * columns * kExpCost, [&](std::int64_t begin, std::int64_t end) {
      std::vector<SoftenedRow<T>> softened(static_cast<std::size_t>(teachers), SoftenedRow<T>(columns, temperature));
      for (std::int64_t r = begin; r < end; ++r) {
        mean_of_teachers(x.as<T>() + r * columns, rows * columns, columns, temperature, softened,
                         y.as<T>() + r * columns);
      }
    });
  });
}

void CpuBackend::accumulate_agreement(ConstView a, ConstView b, View sums, Stream) {
  assert(a.dtype == b.dtype && a.shape == b.shape && sums.dtype == DType::f64 && sums.numel() == 3);
  const std::int64_t rows = a.shape.rows(), columns = a.shape.last();
  std::vector<Agreement> results(static_cast<std::size_t>(rows));
  dispatch_floating("accumulate_agreement", a.dtype, [&]<typename T>(std::type_identity<T>) {
    parallel_for(rows, 4 * columns, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t r = begin; r < end; ++r) {
        results[static_cast<std::size_t>(r)] = agreement_of(a.as<T>() + r * columns, b.as<T>() + r * columns, columns);
      }
    });
  });
  double distance = 0;
  std::int64_t agreeing = 0;
  for (const Agreement& row : results) {
    distance += row.distance;
    agreeing += row.agree ? 1 : 0;
  }
  double* const out = sums.as<double>();
  out[0] += static_cast<double>(agreeing);
  out[1] += distance;
  out[2] += static_cast<double>(rows);
}

}  // namespace retort::kernels
