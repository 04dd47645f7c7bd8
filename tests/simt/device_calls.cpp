#include "tests/simt/device_calls.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "kernels/philox.h"
#include "tests/simt/backend.h"

namespace retort::simt {
namespace {

// Values as bytes of some type, and back.
template <typename T>
void encode(const std::vector<double>& values, void* to) {
  for (std::size_t i = 0; i < values.size(); ++i) {
    if constexpr (std::is_same_v<T, bf16>) {
      static_cast<T*>(to)[i] = T(static_cast<float>(values[i]));
    } else {
      static_cast<T*>(to)[i] = static_cast<T>(values[i]);
    }
  }
}
template <typename T>
std::vector<double> decode(const std::vector<unsigned char>& bytes) {
  const T* const from = reinterpret_cast<const T*>(bytes.data());
  return {from, from + bytes.size() / sizeof(T)};
}

template <typename F>
auto with_type(DType type, const F& f) {
  switch (type) {
    case DType::f64:
      return f(double{});
    case DType::f32:
      return f(float{});
    case DType::bf16:
      return f(bf16{});
    case DType::i32:
      return f(std::int32_t{});
    default:
      return f(std::uint8_t{});
  }
}

std::uint32_t next_salt() {
  static std::uint32_t salt = 0;
  return ++salt;
}

}  // namespace

std::vector<double> normal_values(std::int64_t count, double deviation, double mean) {
  const std::uint32_t salt = next_salt();
  std::vector<double> values(static_cast<std::size_t>(count));
  for (std::size_t i = 0; i < values.size(); ++i) {
    const Philox4 r = random_block(99, salt, 0, 0, static_cast<std::uint32_t>(i));
    const double u = (r.v[0] + 0.5) / 4294967296.0, v = (r.v[1] + 0.5) / 4294967296.0;
    values[i] = mean + deviation * std::sqrt(-2 * std::log(u)) * std::cos(2 * M_PI * v);
  }
  return values;
}

Argument input(DType type, const Shape& shape, double deviation, double mean) {
  return {Argument::Role::input, type, shape, normal_values(shape.numel(), deviation, mean)};
}
Argument input(DType type, const Shape& shape, std::vector<double> values) {
  return {Argument::Role::input, type, shape, std::move(values)};
}
Argument output(DType type, const Shape& shape) {
  return {Argument::Role::output, type, shape, {}};
}
Argument updated(DType type, const Shape& shape, double deviation, double mean) {
  return {Argument::Role::updated, type, shape, normal_values(shape.numel(), deviation, mean)};
}
Argument indices(const Shape& shape, int below) {
  const std::uint32_t salt = next_salt();
  std::vector<double> values(static_cast<std::size_t>(shape.numel()));
  for (std::size_t i = 0; i < values.size(); ++i) {
    values[i] = random_block(98, salt, 0, 0, static_cast<std::uint32_t>(i)).v[0] % static_cast<unsigned>(below);
  }
  return {Argument::Role::input, DType::i32, shape, values};
}

std::vector<std::vector<double>> results(kernels::Backend& backend, const std::vector<Argument>& arguments,
                                         const Call& call, const Expectation& shifted) {
  struct Memory {
    unsigned char* data;
    std::size_t bytes;
  };
  std::vector<Memory> memory;
  std::vector<View> views;
  for (const Argument& a : arguments) {
    const bool moves = !shifted.shifted_argument || *shifted.shifted_argument == memory.size();
    const int shift = moves ? shifted.shift : 0;
    const auto count = static_cast<std::size_t>(a.shape.numel() + shift);
    const std::size_t bytes = count * size_of(a.type);
    memory.push_back({static_cast<unsigned char*>(backend.allocate(bytes, {})), bytes});
    views.push_back({memory.back().data + static_cast<std::size_t>(shift) * size_of(a.type), a.type, a.shape});
    if (a.role == Argument::Role::output) continue;
    std::vector<unsigned char> host(views.back().bytes());
    with_type(a.type, [&](auto type) { encode<decltype(type)>(a.values, host.data()); });
    backend.copy_from_host(host.data(), views.back(), {});
  }
  call(backend, views);
  std::vector<std::vector<double>> all;
  for (std::size_t i = 0; i < arguments.size(); ++i) {
    if (arguments[i].role != Argument::Role::input) {
      std::vector<unsigned char> host(views[i].bytes());
      backend.copy_to_host(views[i], host.data(), {});
      all.push_back(with_type(arguments[i].type, [&](auto type) { return decode<decltype(type)>(host); }));
    }
    backend.deallocate(memory[i].data, memory[i].bytes, {});
  }
  backend.synchronize({});
  return all;
}

void expect_same(const std::vector<Argument>& arguments, const Call& call, const Expectation& expectation) {
  const auto expected = results(kernels::backend({}), arguments, call);
  std::vector<std::vector<double>> first;
  for (const LaneOrder order : kLaneOrders) {
    if (expectation.shifted_argument && order != LaneOrder::forward) continue;
    set_lane_order(order);
    const auto actual = results(simt_device(), arguments, call, expectation);
    set_lane_order(LaneOrder::forward);
    if (first.empty()) first = actual;
    std::size_t next = 0;
    for (std::size_t a = 0; a < arguments.size(); ++a) {
      if (arguments[a].role == Argument::Role::input) continue;
      const std::vector<double>&e = expected[next], &got = actual[next], &before = first[next];
      ++next;
      const DType type = arguments[a].type;
      double bound = 0, largest = 1;
      for (const double v : e) largest = std::isfinite(v) ? std::max(largest, std::abs(v)) : largest;
      if (type == DType::f64) bound = expectation.f64 * largest;
      if (type == DType::f32) bound = expectation.f32 * largest;
      if (type == DType::bf16) bound = expectation.bf16 * largest;
      const auto where = [&](std::size_t i) {
        return fmt::format(
            "argument {} ({} {}), element {}, lanes {}, shift {}{}", a, name_of(type), arguments[a].shape.to_string(),
            i, name_of(order), expectation.shift,
            expectation.shifted_argument ? fmt::format(" of argument {}", *expectation.shifted_argument) : "");
      };
      for (std::size_t i = 0; i < e.size(); ++i) {
        const bool same = got[i] == before[i] || (std::isnan(got[i]) && std::isnan(before[i]));
        ASSERT_TRUE(same) << where(i) << ": " << got[i] << ", but " << before[i] << " with lanes forward";
        if (std::isnan(e[i]) && std::isnan(got[i])) continue;
        if (e[i] == got[i]) continue;  // infinities too
        ASSERT_NEAR(got[i], e[i], bound) << where(i);
      }
    }
  }
}

void expect_same_shifted_too(const std::vector<Argument>& arguments, const Call& call, const Expectation& expectation) {
  expect_same(arguments, call, expectation);
  Expectation shifted = expectation;
  shifted.shift = 1;
  expect_same(arguments, call, shifted);
  for (std::size_t a = 0; a < arguments.size() && !testing::Test::HasFatalFailure(); ++a) {
    shifted.shifted_argument = a;
    expect_same(arguments, call, shifted);
  }
}

kernels::Backend& simt_device() {
  return kernels::backend({DeviceType::cuda, 0});
}

}  // namespace retort::simt
