// Losses between the logits of a student and of a teacher, in f64 from the exponentials on: at a temperature T a loss is
// T² times what is left of numbers near 1. Rows are added up in their order.
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
  SoftenedRow(std::int64_t columns, double temperature)
      : inverse_(1 / temperature), exponentials_(static_cast<std::size_t>(columns)) {}

  void set(const T* x, std::int64_t without) {
    x_ = x;
    const auto columns = static_cast<std::int64_t>(exponentials_.size());
    largest_ = -std::numeric_limits<double>::infinity();
    for (std::int64_t c = 0; c < columns; ++c) {
      const auto v = static_cast<double>(load(x[c]));
      largest_ = v > largest_ && c != without ? v : largest_;
    }
    sum_ = 0;
    for (std::int64_t c = 0; c < columns; ++c) {
      const double e = c == without ? 0.0 : std::exp(below(c));
      exponentials_[static_cast<std::size_t>(c)] = e;
      sum_ += e;
    }
  }

  double sum() const { return sum_; }
  double exponential(std::int64_t c) const { return exponentials_[static_cast<std::size_t>(c)]; }
  // x_c - the largest, and that over the temperature: the logarithm of exponential(c).
  double deviation(std::int64_t c) const { return static_cast<double>(load(x_[c])) - largest_; }
  double below(std::int64_t c) const { return deviation(c) * inverse_; }

 private:
  double inverse_;
  const T* x_ = nullptr;
  double largest_ = 0, sum_ = 0;
  std::vector<double> exponentials_;
};

// A row of student and teacher, p and q.
template <typename T>
class SoftenedPair {
 public:
  SoftenedPair(std::int64_t columns, double temperature)
      : columns_(columns), inverse_(1 / temperature), student_(columns, temperature), teacher_(columns, temperature) {}

  void set(const T* student, const T* teacher, std::int64_t without) {
    student_.set(student, without);
    teacher_.set(teacher, without);
    double difference = 0;
    for (std::int64_t c = 0; c < columns_; ++c) {
      difference += exponential_difference(student_.exponential(c), teacher_.exponential(c), -above_student(c));
    }
    log_of_sums_ = std::log1p(difference / teacher_.sum());
  }

  // For the class that was left out, whose p and q are 0, a term of zeros.
  DivergenceTerm term(std::int64_t c) const {
    return {probability(c), teacher_.exponential(c) / teacher_.sum(), log_ratio(c)};
  }
  double probability(std::int64_t c) const { return student_.exponential(c) / student_.sum(); }
  // x_c / temperature less the log-sum-exp of the row: the teacher's, less the student's.
  double log_ratio(std::int64_t c) const { return above_student(c) + log_of_sums_; }
  double teacher_log_ratio(std::int64_t c) const { return teacher_.below(c) - std::log(teacher_.sum()); }
  // -sum_c q_c log p_c.
  double cross_entropy() const {
    double total = 0;
    for (std::int64_t c = 0; c < columns_; ++c) total -= teacher_.exponential(c) * student_.below(c);
    return total / teacher_.sum() + std::log(student_.sum());
  }

 private:
  // Scaled after the subtraction: 0 where the two agree, however the compiler fuses products and sums.
  double above_student(std::int64_t c) const { return (teacher_.deviation(c) - student_.deviation(c)) * inverse_; }

  std::int64_t columns_;
  double inverse_;
  SoftenedRow<T> student_, teacher_;
  double log_of_sums_ = 0;  // log(the student's sum / the teacher's)
};

// loss = T² times the mean of row(r, pair, gradient of the row or null, `scale`); a row's gradient by its logits over
// the temperature is to be multiplied by `scale`.
template <typename T, typename Row>
void mean_over_rows(ConstView student, ConstView teacher, double temperature, View loss, View gradient,
                    const Row& row) {
  const std::int64_t rows = student.shape.rows(), columns = student.shape.last();
  const double scale = temperature / static_cast<double>(rows);
  std::vector<double> losses(static_cast<std::size_t>(rows));
  parallel_for(rows, 4 * columns * kExpCost, [&](std::int64_t begin, std::int64_t end) {
    SoftenedPair<T> pair(columns, temperature);
    for (std::int64_t r = begin; r < end; ++r) {
      T* const out = gradient ? gradient.as<T>() + r * columns : nullptr;
      pair.set(student.as<T>() + r * columns, teacher.as<T>() + r * columns, row.without(r));
      losses[static_cast<std::size_t>(r)] = row(r, pair, out, scale);
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
  double operator()(std::int64_t, const SoftenedPair<T>& pair, T* gradient, double scale) const {
    double divergence = 0;
    for (std::int64_t c = 0; c < columns; ++c) {
      const DivergenceTerm term = pair.term(c);
      divergence += term.value;
      if (gradient != nullptr) gradient[c] = convert_to<T>(scale * term.slope);
    }
    return subtract_entropy ? divergence : pair.cross_entropy();
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
  double operator()(std::int64_t row, const SoftenedPair<T>& pair, T* gradient, double scale) const {
    const std::int64_t label = labels[row];
    const BinaryDivergence target(pair.teacher_log_ratio(label), -pair.log_ratio(label));
    double others = 0;
    for (std::int64_t c = 0; c < columns; ++c) {
      const DivergenceTerm term = pair.term(c);
      others += term.value;
      if (gradient == nullptr) continue;
      gradient[c] = convert_to<T>(scale * (beta * term.slope - alpha * target.slope * pair.probability(c)));
    }
    if (gradient != nullptr) gradient[label] = convert_to<T>(scale * alpha * target.slope);
    return alpha * target.value + beta * others;
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
