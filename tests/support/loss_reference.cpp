#include "tests/support/loss_reference.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "tests/support/reference_conv.h"

namespace retort::reference {
namespace {

using Row = std::vector<double>;

std::vector<Row> rows_of(const Array& a) {
  const auto rows = static_cast<std::size_t>(a.shape[0]);
  const std::size_t columns = a.values.size() / rows;
  std::vector<Row> out;
  for (std::size_t r = 0; r < rows; ++r) {
    out.emplace_back(a.values.begin() + static_cast<std::ptrdiff_t>(r * columns),
                     a.values.begin() + static_cast<std::ptrdiff_t>((r + 1) * columns));
  }
  return out;
}

double dot(const Row& a, const Row& b) {
  return std::inner_product(a.begin(), a.end(), b.begin(), 0.0);
}

Row unit(Row x) {
  const double norm = std::sqrt(dot(x, x));
  for (double& v : x) v = norm > 0 ? v / norm : 0;
  return x;
}

Row softmax(const Row& z, double temperature) {
  const double top = *std::max_element(z.begin(), z.end());
  Row p;
  for (const double v : z) p.push_back(std::exp((v - top) / temperature));
  const double sum = std::accumulate(p.begin(), p.end(), 0.0);
  for (double& v : p) v /= sum;
  return p;
}

Row standardized(Row z) {
  const double n = static_cast<double>(z.size()), mean = std::accumulate(z.begin(), z.end(), 0.0) / n;
  double square = 0;
  for (const double v : z) square += (v - mean) * (v - mean);
  const double deviation = std::sqrt(square / (n - 1));
  for (double& v : z) v = (v - mean) / (deviation + 1e-7);
  return z;
}

double kl(const Row& p, const Row& q) {
  double sum = 0;
  for (std::size_t i = 0; i < p.size(); ++i) sum += p[i] > 0 ? p[i] * std::log(p[i] / q[i]) : 0;
  return sum;
}

double huber(double difference) {
  const double d = std::abs(difference);
  return d < 1 ? d * d / 2 : d - 0.5;
}

double pearson(const Row& x, const Row& y) {
  const double n = static_cast<double>(x.size());
  const double mx = std::accumulate(x.begin(), x.end(), 0.0) / n, my = std::accumulate(y.begin(), y.end(), 0.0) / n;
  double xy = 0, xx = 0, yy = 0;
  for (std::size_t i = 0; i < x.size(); ++i) {
    xy += (x[i] - mx) * (y[i] - my);
    xx += (x[i] - mx) * (x[i] - mx);
    yy += (y[i] - my) * (y[i] - my);
  }
  return xy / (std::sqrt(xx) * std::sqrt(yy) + 1e-8);
}

std::vector<Row> transposed(const std::vector<Row>& rows) {
  std::vector<Row> out(rows[0].size(), Row(rows.size()));
  for (std::size_t i = 0; i < rows.size(); ++i) {
    for (std::size_t j = 0; j < rows[i].size(); ++j) out[j][i] = rows[i][j];
  }
  return out;
}

// Pixel by pixel: y_o = sum_i w_oi x_i (+ b_o); w [O, 1, 1, I] or [O, I].
Array pointwise(const Array& x, const Array& w, const Array* bias = nullptr) {
  const std::int64_t in = x.shape.last(), out = w.shape[0], pixels = x.numel() / in;
  Array y(x.shape.rank() == 4 ? Shape{x.shape[0], x.shape[1], x.shape[2], out} : Shape{x.shape[0], out});
  for (std::int64_t p = 0; p < pixels; ++p) {
    for (std::int64_t o = 0; o < out; ++o) {
      double sum = bias != nullptr ? (*bias)[o] : 0;
      for (std::int64_t i = 0; i < in; ++i) sum += w[o * in + i] * x[p * in + i];
      y[p * out + o] = sum;
    }
  }
  return y;
}

// Square filters [O, K, K, I], K odd, zeros around the map.
Array convolved(const Array& x, const Array& w, std::int64_t stride) {
  const Conv conv{.n = x.shape[0],
                  .h = x.shape[1],
                  .w = x.shape[2],
                  .c = x.shape[3],
                  .o = w.shape[0],
                  .kh = w.shape[1],
                  .kw = w.shape[2],
                  .stride = stride,
                  .pad = w.shape[1] / 2};
  return {Shape{conv.n, conv.oh(), conv.ow(), conv.o}, conv_forward(conv, x.values, w.values, {})};
}

void clamp_below(Array& x) {
  for (double& v : x.values) v = std::max(v, 0.0);
}

// Batch statistics, eps 1e-5, then ReLU.
Array norm_relu_of(const Array& x, const Array& gamma, const Array& beta) {
  const std::int64_t channels = x.shape.last(), pixels = x.numel() / channels;
  Array y(x.shape);
  for (std::int64_t c = 0; c < channels; ++c) {
    double mean = 0, variance = 0;
    for (std::int64_t p = 0; p < pixels; ++p) mean += x[p * channels + c] / static_cast<double>(pixels);
    for (std::int64_t p = 0; p < pixels; ++p) {
      variance += std::pow(x[p * channels + c] - mean, 2) / static_cast<double>(pixels);
    }
    for (std::int64_t p = 0; p < pixels; ++p) {
      y[p * channels + c] = gamma[c] * (x[p * channels + c] - mean) / std::sqrt(variance + 1e-5) + beta[c];
    }
  }
  clamp_below(y);
  return y;
}

double mean_square(const Array& a, const Array& b) {
  double sum = 0;
  for (std::int64_t i = 0; i < a.numel(); ++i) sum += (a[i] - b[i]) * (a[i] - b[i]);
  return sum / static_cast<double>(a.numel());
}

std::vector<Row> distances(const std::vector<Row>& x) {
  std::vector<Row> d(x.size(), Row(x.size(), 0.0));
  for (std::size_t i = 0; i < x.size(); ++i) {
    for (std::size_t j = 0; j < x.size(); ++j) {
      double square = 0;
      for (std::size_t k = 0; k < x[i].size(); ++k) square += std::pow(x[i][k] - x[j][k], 2);
      d[i][j] = std::sqrt(square);
    }
  }
  return d;
}

double mean_above_zero(const std::vector<Row>& d) {
  double sum = 0, count = 0;
  for (const Row& row : d) {
    for (const double v : row) {
      sum += v;
      count += v > 0 ? 1 : 0;
    }
  }
  return sum / count;
}

// The channels of one sample as vectors over its positions, each of length 1.
std::vector<Row> selectivities(const Array& map, std::int64_t sample) {
  const std::int64_t channels = map.shape[3], area = map.shape[1] * map.shape[2];
  std::vector<Row> out;
  for (std::int64_t c = 0; c < channels; ++c) {
    Row row;
    for (std::int64_t p = 0; p < area; ++p) row.push_back(map[(sample * area + p) * channels + c]);
    out.push_back(unit(row));
  }
  return out;
}

double mean_kernel(const std::vector<Row>& a, const std::vector<Row>& b) {
  double sum = 0;
  for (const Row& x : a) {
    for (const Row& y : b) sum += std::pow(dot(x, y), 2);
  }
  return sum / static_cast<double>(a.size() * b.size());
}

}  // namespace

double cross_entropy_loss(const LossInputs& in, double smoothing) {
  double total = 0;
  const auto rows = rows_of(in.student_logits);
  for (std::size_t r = 0; r < rows.size(); ++r) {
    const Row p = softmax(rows[r], 1);
    for (std::size_t c = 0; c < p.size(); ++c) {
      const bool own = static_cast<std::size_t>(in.labels[r]) == c;
      total -= ((own ? 1 - smoothing : 0) + smoothing / static_cast<double>(p.size())) * std::log(p[c]);
    }
  }
  return total / static_cast<double>(rows.size());
}

double soft_targets_loss(const LossInputs& in, double temperature, bool standardize) {
  const auto s = rows_of(in.student_logits), t = rows_of(in.teacher_logits);
  double total = 0;
  for (std::size_t r = 0; r < s.size(); ++r) {
    const Row zs = standardize ? standardized(s[r]) : s[r], zt = standardize ? standardized(t[r]) : t[r];
    total += kl(softmax(zt, temperature), softmax(zs, temperature));
  }
  return temperature * temperature * total / static_cast<double>(s.size());
}

double soft_cross_entropy_loss(const LossInputs& in) {
  const auto s = rows_of(in.student_logits), t = rows_of(in.teacher_logits);
  double total = 0;
  for (std::size_t r = 0; r < s.size(); ++r) {
    const Row ps = softmax(s[r], 1), pt = softmax(t[r], 1);
    for (std::size_t c = 0; c < ps.size(); ++c) total -= pt[c] * std::log(ps[c]);
  }
  return total / static_cast<double>(s.size());
}

double logit_mse_loss(const LossInputs& in) {
  return mean_square(in.student_logits, in.teacher_logits);
}

double dkd_loss(const LossInputs& in, double alpha, double beta, double temperature) {
  const auto s = rows_of(in.student_logits), t = rows_of(in.teacher_logits);
  double target = 0, rest = 0;
  for (std::size_t r = 0; r < s.size(); ++r) {
    const auto label = static_cast<std::size_t>(in.labels[r]);
    const double ps = softmax(s[r], temperature)[label], pt = softmax(t[r], temperature)[label];
    target += kl({pt, 1 - pt}, {ps, 1 - ps});
    Row zs = s[r], zt = t[r];
    zs.erase(zs.begin() + static_cast<std::ptrdiff_t>(label));
    zt.erase(zt.begin() + static_cast<std::ptrdiff_t>(label));
    rest += kl(softmax(zt, temperature), softmax(zs, temperature));
  }
  return temperature * temperature * (alpha * target + beta * rest) / static_cast<double>(s.size());
}

double dist_loss(const LossInputs& in, double beta, double gamma, double temperature) {
  std::vector<Row> s, t;
  for (const Row& z : rows_of(in.student_logits)) s.push_back(softmax(z, temperature));
  for (const Row& z : rows_of(in.teacher_logits)) t.push_back(softmax(z, temperature));
  const auto distance = [](const std::vector<Row>& a, const std::vector<Row>& b) {
    double sum = 0;
    for (std::size_t i = 0; i < a.size(); ++i) sum += pearson(a[i], b[i]);
    return 1 - sum / static_cast<double>(a.size());
  };
  return temperature * temperature * (beta * distance(s, t) + gamma * distance(transposed(s), transposed(t)));
}

double discriminator_loss(const LossInputs& in, int layers) {
  double total = 0;
  for (const bool student : {true, false}) {
    Array x = student ? in.student_logits : in.teacher_logits;
    for (int i = 1; i <= layers; ++i) {
      const std::string name = "discriminator.layer" + std::to_string(i);
      x = pointwise(x, in.parts.at(name + ".weight"), &in.parts.at(name + ".bias"));
      if (i < layers) clamp_below(x);
    }
    for (std::int64_t i = 0; i < x.numel(); ++i) {
      const double p = 1 / (1 + std::exp(-x[i])), wanted = (i % 2 == 0) == student ? 1 : 0;
      total -= wanted * std::log(p) + (1 - wanted) * std::log(1 - p);
    }
  }
  return total / static_cast<double>(4 * in.labels.size());
}

Array pooled_to(const Array& map, std::int64_t size) {
  const std::int64_t n = map.shape[0], h = map.shape[1] / size, w = map.shape[2] / size, c = map.shape[3];
  Array out({n, size, size, c});
  for (std::int64_t s = 0; s < n; ++s) {
    for (std::int64_t y = 0; y < size * h; ++y) {
      for (std::int64_t x = 0; x < size * w; ++x) {
        for (std::int64_t k = 0; k < c; ++k) {
          out.at(s, y / h, x / w, k) += map.at(s, y, x, k) / static_cast<double>(h * w);
        }
      }
    }
  }
  return out;
}

double similarity_preserving_loss(const LossInputs& in, const std::string& tap) {
  const auto similarities = [](const Array& map) {
    const auto f = rows_of(map);
    std::vector<Row> g;
    for (const Row& a : f) {
      Row row;
      for (const Row& b : f) row.push_back(dot(a, b));
      g.push_back(unit(row));
    }
    return g;
  };
  const auto s = similarities(in.student.at(tap)), t = similarities(in.teacher.at(tap));
  double total = 0;
  for (std::size_t i = 0; i < s.size(); ++i) {
    for (std::size_t j = 0; j < s.size(); ++j) total += std::pow(s[i][j] - t[i][j], 2);
  }
  return total / static_cast<double>(s.size() * s.size());
}

double attention_transfer_pair(const Array& student, const Array& teacher) {
  const auto attention = [](const Array& map, std::int64_t sample) {
    Row row;
    for (std::int64_t h = 0; h < map.shape[1]; ++h) {
      for (std::int64_t w = 0; w < map.shape[2]; ++w) {
        double sum = 0;
        for (std::int64_t c = 0; c < map.shape[3]; ++c) sum += std::pow(map.at(sample, h, w, c), 2);
        row.push_back(sum / static_cast<double>(map.shape[3]));
      }
    }
    return unit(row);
  };
  double total = 0, count = 0;
  for (std::int64_t n = 0; n < student.shape[0]; ++n) {
    const Row s = attention(student, n), t = attention(teacher, n);
    for (std::size_t i = 0; i < s.size(); ++i, ++count) total += std::pow(s[i] - t[i], 2);
  }
  return total / count;
}

double attention_transfer_loss(const LossInputs& in, const std::vector<std::string>& taps) {
  double total = 0;
  for (const std::string& tap : taps) total += attention_transfer_pair(in.student.at(tap), in.teacher.at(tap));
  return total;
}

double fitnet_pair(const LossInputs& in, const Array& student, const Array& teacher, bool norm_relu) {
  const auto bias = in.parts.find("fitnet.conv1.bias");
  Array s = convolved(student, in.parts.at("fitnet.conv1.weight"), student.shape[1] / teacher.shape[1]);
  if (bias != in.parts.end()) {
    for (std::int64_t i = 0; i < s.numel(); ++i) s[i] += bias->second[i % s.shape.last()];
  }
  if (norm_relu) s = norm_relu_of(s, in.parts.at("fitnet.bn1.weight"), in.parts.at("fitnet.bn1.bias"));
  return mean_square(s, teacher);
}

double fitnet_loss(const LossInputs& in, const std::string& tap, bool norm_relu) {
  return fitnet_pair(in, in.student.at(tap), in.teacher.at(tap), norm_relu);
}

double feature_cosine_loss(const LossInputs& in, const std::string& tap) {
  const auto s = rows_of(pointwise(in.student.at(tap), in.parts.at("feature_cosine.conv.weight")));
  const auto t = rows_of(in.teacher.at(tap));
  double total = 0;
  for (std::size_t i = 0; i < s.size(); ++i) total += 1 - dot(unit(s[i]), unit(t[i]));
  return total / static_cast<double>(s.size());
}

double vid_loss(const LossInputs& in, const std::string& tap) {
  Array mean = in.student.at(tap);
  for (int i = 1; i <= 3; ++i) {
    mean = pointwise(mean, in.parts.at("vid.stage1.conv" + std::to_string(i) + ".weight"));
    if (i < 3) clamp_below(mean);
  }
  const Array& raw = in.parts.at("vid.stage1.raw_variance");
  const Array& target = in.teacher.at(tap);
  const std::int64_t channels = target.shape.last();
  double total = 0;
  for (std::int64_t i = 0; i < target.numel(); ++i) {
    const double variance = std::log(1 + std::exp(raw[i % channels])) + 1e-5;
    total += 0.5 * (std::pow(mean[i] - target[i], 2) / variance + std::log(variance));
  }
  return total / static_cast<double>(target.numel());
}

double nst_loss(const LossInputs& in, const std::string& tap) {
  const Array &s = in.student.at(tap), &t = in.teacher.at(tap);
  double total = 0;
  for (std::int64_t n = 0; n < s.shape[0]; ++n) {
    const auto a = selectivities(s, n), b = selectivities(t, n);
    total += mean_kernel(a, a) + mean_kernel(b, b) - 2 * mean_kernel(a, b);
  }
  return total / static_cast<double>(s.shape[0]);
}

double rkd_distance(const LossInputs& in) {
  const auto s = distances(rows_of(in.student.at("pooled"))), t = distances(rows_of(in.teacher.at("pooled")));
  const double ms = mean_above_zero(s), mt = mean_above_zero(t);
  double total = 0;
  for (std::size_t i = 0; i < s.size(); ++i) {
    for (std::size_t j = 0; j < s.size(); ++j) total += huber(s[i][j] / ms - t[i][j] / mt);
  }
  return total / static_cast<double>(s.size() * s.size());
}

double rkd_angle(const LossInputs& in) {
  const auto cosine = [](const std::vector<Row>& x, std::size_t i, std::size_t j, std::size_t k) {
    Row a, b;
    for (std::size_t d = 0; d < x[i].size(); ++d) {
      a.push_back(x[j][d] - x[i][d]);
      b.push_back(x[k][d] - x[i][d]);
    }
    return dot(unit(a), unit(b));
  };
  const auto s = rows_of(in.student.at("pooled")), t = rows_of(in.teacher.at("pooled"));
  double total = 0;
  for (std::size_t i = 0; i < s.size(); ++i) {
    for (std::size_t j = 0; j < s.size(); ++j) {
      for (std::size_t k = 0; k < s.size(); ++k) total += huber(cosine(s, i, j, k) - cosine(t, i, j, k));
    }
  }
  return total / std::pow(static_cast<double>(s.size()), 3);
}

double distance_metric_loss(const LossInputs& in) {
  const auto s = distances(rows_of(in.student.at("pooled"))), t = distances(rows_of(in.teacher.at("pooled")));
  double total = 0;
  for (std::size_t i = 0; i < s.size(); ++i) {
    for (std::size_t j = 0; j < s.size(); ++j) total += std::pow(s[i][j] - t[i][j], 2);
  }
  return total / static_cast<double>(s.size() * s.size());
}

double pkt_loss(const LossInputs& in) {
  const auto probabilities = [](const Array& features) {
    std::vector<Row> x, p;
    for (const Row& row : rows_of(features)) x.push_back(unit(row));
    for (const Row& a : x) {
      Row row;
      for (const Row& b : x) row.push_back((dot(a, b) + 1) / 2);
      const double sum = std::accumulate(row.begin(), row.end(), 0.0);
      for (double& v : row) v /= sum;
      p.push_back(row);
    }
    return p;
  };
  const auto s = probabilities(in.student.at("pooled")), t = probabilities(in.teacher.at("pooled"));
  double total = 0;
  for (std::size_t i = 0; i < s.size(); ++i) {
    for (std::size_t j = 0; j < s.size(); ++j) total += t[i][j] * std::log((t[i][j] + 1e-7) / (s[i][j] + 1e-7));
  }
  return total / static_cast<double>(s.size() * s.size());
}

double cc_loss(const LossInputs& in) {
  const auto embed = [&](const std::string& who, const Array& features) {
    return rows_of(pointwise(features, in.parts.at("cc." + who + ".weight"), &in.parts.at("cc." + who + ".bias")));
  };
  const auto s = embed("student", in.student.at("pooled")), t = embed("teacher", in.teacher.at("pooled"));
  double total = 0;
  for (std::size_t i = 0; i + 1 < s.size(); ++i) {
    for (std::size_t d = 0; d < s[i].size(); ++d) {
      total += std::abs(s[i][d] - t[i][d]) * std::abs(s[i + 1][d] - t[i + 1][d]);
    }
  }
  return total / static_cast<double>(s.size() - 1);
}

}  // namespace retort::reference
