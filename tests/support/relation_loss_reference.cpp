#include "tests/support/relation_loss_reference.h"

#include <algorithm>
#include <cmath>

namespace retort::reference {
namespace {

using Vector = std::vector<double>;

Vector sample(const Array& x, std::int64_t i) {
  const std::int64_t size = x.shape[1];
  return {x.values.begin() + i * size, x.values.begin() + (i + 1) * size};
}
double dot(const Vector& a, const Vector& b) {
  double total = 0;
  for (std::size_t k = 0; k < a.size(); ++k) total += a[k] * b[k];
  return total;
}
// From a to b, of length 1; zero where they are nearer than epsilon.
Vector direction(const Vector& a, const Vector& b, double epsilon) {
  Vector e(a.size());
  for (std::size_t k = 0; k < e.size(); ++k) e[k] = b[k] - a[k];
  const double length = std::sqrt(dot(e, e));
  for (double& v : e) v = length <= epsilon ? 0 : v / length;
  return e;
}
double smooth_l1_of(double d) {
  return std::abs(d) < 1 ? 0.5 * d * d : std::abs(d) - 0.5;
}

Array distances(const Array& x, bool normalize, double epsilon) {
  Array d = pairwise_squared_distances(x);
  const std::int64_t batch = x.shape[0];
  double sum = 0, count = 0;
  for (std::int64_t i = 0; i < d.numel(); ++i) {
    d[i] = i / batch == i % batch ? 0 : std::sqrt(std::max(d[i], epsilon));
    sum += d[i];
    count += d[i] > 0;
  }
  if (normalize) {
    for (double& v : d.values) v /= sum / count;
  }
  return d;
}

// Rows of (cos + 1) / 2, each divided by its sum.
Array probabilities(const Array& x) {
  const std::int64_t batch = x.shape[0];
  Array p({batch, batch});
  for (std::int64_t i = 0; i < batch; ++i) {
    double sum = 0;
    for (std::int64_t j = 0; j < batch; ++j) {
      const Vector a = sample(x, i), b = sample(x, j);
      p[i * batch + j] = (dot(a, b) / std::sqrt(dot(a, a) * dot(b, b)) + 1) / 2;
      sum += p[i * batch + j];
    }
    for (std::int64_t j = 0; j < batch; ++j) p[i * batch + j] /= sum;
  }
  return p;
}

}  // namespace

Array pairwise_squared_distances(const Array& x) {
  const std::int64_t batch = x.shape[0];
  Array y({batch, batch});
  for (std::int64_t i = 0; i < batch; ++i) {
    for (std::int64_t j = 0; j < batch; ++j) {
      for (std::int64_t d = 0; d < x.shape[1]; ++d) {
        const double difference = x[i * x.shape[1] + d] - x[j * x.shape[1] + d];
        y[i * batch + j] += difference * difference;
      }
    }
  }
  return y;
}

double relational_distance(const Array& student, const Array& teacher, bool normalize, bool squared, double epsilon) {
  const Array s = distances(student, normalize, epsilon), t = distances(teacher, normalize, epsilon);
  double total = 0;
  for (std::int64_t i = 0; i < s.numel(); ++i) {
    const double d = s[i] - t[i];
    total += squared ? d * d : smooth_l1_of(d);
  }
  return total / static_cast<double>(s.numel());
}

double relational_angle(const Array& student, const Array& teacher, double epsilon) {
  const std::int64_t batch = student.shape[0];
  double total = 0;
  for (std::int64_t i = 0; i < batch; ++i) {
    std::vector<Vector> s, t;
    for (std::int64_t j = 0; j < batch; ++j) {
      s.push_back(direction(sample(student, i), sample(student, j), epsilon));
      t.push_back(direction(sample(teacher, i), sample(teacher, j), epsilon));
    }
    for (std::size_t j = 0; j < s.size(); ++j) {
      for (std::size_t k = 0; k < s.size(); ++k) total += smooth_l1_of(dot(s[j], s[k]) - dot(t[j], t[k]));
    }
  }
  return total / static_cast<double>(batch * batch * batch);
}

double probability_transfer(const Array& student, const Array& teacher, double epsilon) {
  const Array s = probabilities(student), t = probabilities(teacher);
  double total = 0;
  for (std::int64_t i = 0; i < s.numel(); ++i) total += t[i] * std::log((t[i] + epsilon) / (s[i] + epsilon));
  return total / static_cast<double>(s.numel());
}

double correlation_congruence(const Array& a, const Array& b) {
  const std::int64_t batch = a.shape[0], size = a.shape[1];
  double total = 0;
  for (std::int64_t i = 0; i + 1 < batch; ++i) {
    for (std::int64_t k = i * size; k < (i + 1) * size; ++k) {
      total += std::abs(a[k] - b[k]) * std::abs(a[k + size] - b[k + size]);
    }
  }
  return total / static_cast<double>(batch - 1);
}

}  // namespace retort::reference
