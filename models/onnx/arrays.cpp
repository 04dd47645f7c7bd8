#include "models/onnx/arrays.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "kernels/error.h"
#include "kernels/scalar_math.h"

namespace retort::onnx {
namespace {

// visit(row-major position, sum_k i_k a_k, sum_k i_k b_k) for every index of dims.
template <typename Visit>
void for_each_index(const Extents& dims, const Extents& a, const Extents& b, Visit&& visit) {
  if (std::find(dims.begin(), dims.end(), 0) != dims.end()) return;
  Extents index(dims.size(), 0);
  std::int64_t at_a = 0, at_b = 0;
  for (std::size_t position = 0;; ++position) {
    visit(position, at_a, at_b);
    std::size_t k = dims.size();
    while (k > 0) {
      --k;
      at_a += a[k];
      at_b += b[k];
      if (++index[k] < dims[k]) break;
      at_a -= a[k] * dims[k];
      at_b -= b[k] * dims[k];
      index[k] = 0;
      if (k == 0) return;
    }
    if (dims.empty()) return;
  }
}

std::int64_t wrapped(OnnxType type, std::int64_t value) {
  switch (type) {
    case OnnxType::i32:
      return static_cast<std::int32_t>(value);
    case OnnxType::i16:
      return static_cast<std::int16_t>(value);
    case OnnxType::i8:
      return static_cast<std::int8_t>(value);
    case OnnxType::u32:
      return static_cast<std::uint32_t>(value);
    case OnnxType::u16:
      return static_cast<std::uint16_t>(value);
    case OnnxType::u8:
      return static_cast<std::uint8_t>(value);
    case OnnxType::boolean:
      return value != 0;
    default:
      return value;
  }
}

std::int64_t to_integer(double value) {
  check(value >= -9.2e18 && value <= 9.2e18, "{} is no whole number of 64 bits", value);
  return static_cast<std::int64_t>(value);
}

std::int64_t apply_whole(kernels::Binary kind, std::int64_t a, std::int64_t b) {
  using kernels::Binary;
  std::int64_t y = 0;
  bool overflow = false;
  switch (kind) {
    case Binary::add:
      overflow = __builtin_add_overflow(a, b, &y);
      break;
    case Binary::subtract:
      overflow = __builtin_sub_overflow(a, b, &y);
      break;
    case Binary::multiply:
      overflow = __builtin_mul_overflow(a, b, &y);
      break;
    case Binary::divide:
      check(b != 0, "a division of whole numbers by 0");
      overflow = b == -1 && a == INT64_MIN;
      y = overflow ? 0 : a / b;
      break;
    case Binary::minimum:
      return std::min(a, b);
    case Binary::maximum:
      return std::max(a, b);
    case Binary::power:
      return to_integer(std::pow(static_cast<double>(a), static_cast<double>(b)));
  }
  check(!overflow, "{} and {}: the result has more than 64 bits", a, b);
  return y;
}

}  // namespace

Extents row_major_strides(const Extents& dims) {
  std::vector<int> order(dims.size());
  std::iota(order.begin(), order.end(), 0);
  return dense_strides(dims, order);
}

Extents dense_strides(const Extents& dims, const std::vector<int>& order) {
  Extents strides(dims.size());
  std::int64_t stride = 1;
  for (auto axis = order.rbegin(); axis != order.rend(); ++axis) {
    const auto k = static_cast<std::size_t>(*axis);
    strides[k] = stride;
    stride *= std::max<std::int64_t>(1, dims[k]);
  }
  return strides;
}

std::vector<int> memory_order(const Extents& strides) {
  std::vector<int> order(strides.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](int a, int b) {
    return std::abs(strides[static_cast<std::size_t>(a)]) > std::abs(strides[static_cast<std::size_t>(b)]);
  });
  return order;
}

OnnxArray make_array(OnnxType type, const Extents& dims, double value) {
  OnnxArray y;
  y.type = type;
  y.dims = dims;
  const auto count = static_cast<std::size_t>(element_count(dims, "constant"));
  if (is_floating(type)) {
    y.floats.assign(count, static_cast<float>(value));
  } else {
    y.integers.assign(count, wrapped(type, to_integer(value)));
  }
  return y;
}

OnnxArray copied(const OnnxArray& x, std::int64_t offset, const Extents& dims, const Extents& strides) {
  OnnxArray y = make_array(x.type, dims);
  const bool floating = is_floating(x.type);
  for_each_index(dims, strides, strides, [&](std::size_t to, std::int64_t from, std::int64_t) {
    const auto at = static_cast<std::size_t>(offset + from);
    if (floating) {
      y.floats[to] = x.floats[at];
    } else {
      y.integers[to] = x.integers[at];
    }
  });
  return y;
}

void copy_into(const OnnxArray& x, OnnxArray& y, std::int64_t offset, const Extents& strides) {
  check(is_floating(x.type) == is_floating(y.type), "{} and {} values do not go together", name_of(x.type),
        name_of(y.type));
  for_each_index(x.dims, strides, strides, [&](std::size_t from, std::int64_t to, std::int64_t) {
    const auto at = static_cast<std::size_t>(offset + to);
    if (is_floating(x.type)) {
      y.floats[at] = x.floats[from];
    } else {
      y.integers[at] = x.integers[from];
    }
  });
}

OnnxArray unary(const OnnxArray& x, kernels::Unary kind, double alpha, double beta) {
  OnnxArray y = x;
  for (float& v : y.floats) v = static_cast<float>(kernels::apply<double>(kind, v, alpha, beta));
  for (std::int64_t& v : y.integers) {
    v = wrapped(x.type, to_integer(kernels::apply(kind, static_cast<double>(v), alpha, beta)));
  }
  return y;
}

OnnxArray binary(const OnnxArray& a, const Extents& a_strides, const OnnxArray& b, const Extents& b_strides,
                 kernels::Binary kind, const Extents& dims) {
  const bool mixed = kind == kernels::Binary::power;  // its exponent may be of another type
  check(mixed || is_floating(a.type) == is_floating(b.type), "{} and {} values do not go together", name_of(a.type),
        name_of(b.type));
  OnnxArray y = make_array(a.type, dims);
  const bool floating = is_floating(a.type) || is_floating(b.type);
  for_each_index(dims, a_strides, b_strides, [&](std::size_t to, std::int64_t at_a, std::int64_t at_b) {
    const auto i = static_cast<std::size_t>(at_a), j = static_cast<std::size_t>(at_b);
    if (!floating) {
      y.integers[to] = wrapped(a.type, apply_whole(kind, a.integers[i], b.integers[j]));
      return;
    }
    const double value = kernels::apply(kind, a.number(i), b.number(j));
    if (is_floating(a.type)) {
      y.floats[to] = static_cast<float>(value);
    } else {
      y.integers[to] = wrapped(a.type, to_integer(value));
    }
  });
  return y;
}

OnnxArray reduced(const OnnxArray& x, const std::vector<bool>& reduced, bool mean) {
  Extents dims = x.dims;
  std::int64_t count = 1;
  for (std::size_t k = 0; k < dims.size(); ++k) {
    if (!reduced[k]) continue;
    count *= dims[k];
    dims[k] = 1;
  }
  OnnxArray y = make_array(x.type, dims);
  Extents strides = row_major_strides(dims);
  for (std::size_t k = 0; k < dims.size(); ++k) {
    if (reduced[k]) strides[k] = 0;
  }
  const double divisor = mean ? static_cast<double>(std::max<std::int64_t>(1, count)) : 1;
  std::vector<double> sums(static_cast<std::size_t>(y.numel()), 0);
  for_each_index(x.dims, strides, strides, [&](std::size_t from, std::int64_t to, std::int64_t) {
    sums[static_cast<std::size_t>(to)] += x.number(from);
  });
  for (std::size_t i = 0; i < sums.size(); ++i) {
    const double value = sums[i] / divisor;
    if (is_floating(x.type)) {
      y.floats[i] = static_cast<float>(value);
    } else {
      y.integers[i] = wrapped(x.type, to_integer(value));
    }
  }
  return y;
}

std::pair<OnnxArray, OnnxArray> channel_statistics(const OnnxArray& x) {
  check(is_floating(x.type) && x.dims.size() >= 2 && x.numel() > 0, "statistics of {} numbers of rank {}",
        name_of(x.type), x.dims.size());
  const auto channels = static_cast<std::size_t>(x.dims[1]), count = x.floats.size();
  const std::size_t inner = count / static_cast<std::size_t>(x.dims[0]) / channels;
  const double share = static_cast<double>(channels) / static_cast<double>(count);
  std::vector<double> mean(channels, 0), variance(channels, 0);
  for (std::size_t i = 0; i < count; ++i) mean[i / inner % channels] += share * x.floats[i];
  for (std::size_t i = 0; i < count; ++i) {
    const double distance = x.floats[i] - mean[i / inner % channels];
    variance[i / inner % channels] += share * distance * distance;
  }
  const auto array = [&](const std::vector<double>& values) {
    OnnxArray y = make_array(OnnxType::f32, {x.dims[1]});
    std::transform(values.begin(), values.end(), y.floats.begin(), [](double v) { return static_cast<float>(v); });
    return y;
  };
  return {array(mean), array(variance)};
}

OnnxArray cast(const OnnxArray& x, OnnxType type) {
  if (is_floating(type) == is_floating(x.type)) {
    OnnxArray y = x;
    y.type = type;
    for (std::int64_t& v : y.integers) v = wrapped(type, v);
    return y;
  }
  OnnxArray y = make_array(type, x.dims);
  for (std::size_t i = 0; i < static_cast<std::size_t>(x.numel()); ++i) {
    if (is_floating(type)) {
      y.floats[i] = static_cast<float>(x.integers[i]);
    } else {
      y.integers[i] = type == OnnxType::boolean ? x.floats[i] != 0 : wrapped(type, to_integer(x.floats[i]));
    }
  }
  return y;
}

}  // namespace retort::onnx
