#include "tests/support/logit_loss_reference.h"

#include <algorithm>
#include <cmath>

namespace retort::reference {
namespace {

using Real = long double;
using Row = std::vector<Real>;

Row row_of(const Array& x, std::int64_t row) {
  Row values;
  for (std::int64_t c = 0; c < x.shape.last(); ++c) values.push_back(x[row * x.shape.last() + c]);
  return values;
}

Row column_of(const Array& x, std::int64_t column) {
  Row values;
  for (std::int64_t r = 0; r < x.shape.rows(); ++r) values.push_back(x[r * x.shape.last() + column]);
  return values;
}

Real sum_of(const Row& values) {
  Real total = 0;
  for (const Real v : values) total += v;
  return total;
}

// log sum exp.
Real log_sum_of(const Row& logs) {
  const Real largest = *std::max_element(logs.begin(), logs.end());
  Real total = 0;
  for (const Real v : logs) total += std::exp(v - largest);
  return largest + std::log(total);
}

// The logarithms of the softmax: probabilities themselves may be too small for any type.
Row log_softmax_of(Row logits, Real temperature) {
  for (Real& z : logits) z /= temperature;
  const Real log_sum = log_sum_of(logits);
  for (Real& z : logits) z -= log_sum;
  return logits;
}

Row softmax_of(const Row& logits, Real temperature) {
  Row p = log_softmax_of(logits, temperature);
  for (Real& v : p) v = std::exp(v);
  return p;
}

// Of the distributions with these logarithms.
Real divergence(const Row& log_q, const Row& log_p) {
  Real total = 0;
  for (std::size_t c = 0; c < log_q.size(); ++c) total += std::exp(log_q[c]) * (log_q[c] - log_p[c]);
  return total;
}

Row centred(Row values) {
  const Real mean = sum_of(values) / static_cast<Real>(values.size());
  for (Real& v : values) v -= mean;
  return values;
}

Real dot(const Row& a, const Row& b) {
  Real total = 0;
  for (std::size_t i = 0; i < a.size(); ++i) total += a[i] * b[i];
  return total;
}

// Mean over rows of f of the logarithms of the softened teacher and student.
template <typename F>
double mean_of_pairs(const Array& student, const Array& teacher, double temperature, F f) {
  Real total = 0;
  for (std::int64_t r = 0; r < student.shape.rows(); ++r) {
    total += f(log_softmax_of(row_of(teacher, r), temperature), log_softmax_of(row_of(student, r), temperature));
  }
  return static_cast<double>(total / static_cast<Real>(student.shape.rows()));
}

}  // namespace

Array standardize_rows(const Array& x, double epsilon) {
  Array y(x.shape);
  for (std::int64_t r = 0; r < x.shape.rows(); ++r) {
    const Row a = centred(row_of(x, r));
    const Real s = std::sqrt(dot(a, a) / static_cast<Real>(a.size() - 1));
    for (std::size_t c = 0; c < a.size(); ++c) {
      y[r * x.shape.last() + static_cast<std::int64_t>(c)] =
          static_cast<double>(a[c] / (s + static_cast<Real>(epsilon)));
    }
  }
  return y;
}

double soft_targets(const Array& student, const Array& teacher, double temperature) {
  return temperature * temperature * mean_of_pairs(student, teacher, temperature, divergence);
}

double soft_cross_entropy(const Array& student, const Array& teacher, double temperature) {
  const auto cross_entropy = [](const Row& log_q, const Row& log_p) {
    Real total = 0;
    for (std::size_t c = 0; c < log_q.size(); ++c) total -= std::exp(log_q[c]) * log_p[c];
    return total;
  };
  return temperature * temperature * mean_of_pairs(student, teacher, temperature, cross_entropy);
}

Decoupled decoupled_kd(const Array& student, const Array& teacher, const std::vector<std::int32_t>& labels,
                       double temperature) {
  std::size_t row = 0;
  const auto others = [](Row logs, std::size_t label) {
    logs.erase(logs.begin() + static_cast<std::ptrdiff_t>(label));
    return log_softmax_of(logs, 1);
  };
  // {p_target, sum of the others}: added up, not 1 - p_target, which is 0 where the target is certain.
  const auto binary = [](Row logs, std::size_t label) {
    const Real target = logs[label];
    logs.erase(logs.begin() + static_cast<std::ptrdiff_t>(label));
    return Row{target, log_sum_of(logs)};
  };
  const auto mean_over = [&](const auto& part) {
    row = 0;
    return mean_of_pairs(student, teacher, temperature, [&](const Row& q, const Row& p) {
      const auto label = static_cast<std::size_t>(labels[row++]);
      return divergence(part(q, label), part(p, label));
    });
  };
  return {mean_over(binary), mean_over(others)};
}

double pearson_distance(const Array& x, const Array& y, bool columns, double epsilon) {
  const std::int64_t lines = columns ? x.shape.last() : x.shape.rows();
  Real total = 0;
  for (std::int64_t i = 0; i < lines; ++i) {
    const Row a = centred(columns ? column_of(x, i) : row_of(x, i)),
              b = centred(columns ? column_of(y, i) : row_of(y, i));
    total += dot(a, b) / (std::sqrt(dot(a, a)) * std::sqrt(dot(b, b)) + static_cast<Real>(epsilon));
  }
  return static_cast<double>(1 - total / static_cast<Real>(lines));
}

Array mean_softmax_logits(const std::vector<Array>& logits, double temperature) {
  Array y(logits[0].shape);
  const std::int64_t columns = y.shape.last();
  for (std::int64_t r = 0; r < y.shape.rows(); ++r) {
    Row mean(static_cast<std::size_t>(columns));
    for (const Array& teacher : logits) {
      const Row p = softmax_of(row_of(teacher, r), temperature);
      for (std::size_t c = 0; c < p.size(); ++c) mean[c] += p[c] / static_cast<Real>(logits.size());
    }
    for (std::int64_t c = 0; c < columns; ++c) {
      y[r * columns + c] = static_cast<double>(temperature * std::log(mean[static_cast<std::size_t>(c)]));
    }
  }
  return y;
}

}  // namespace retort::reference
