#include "engine/parameters.h"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "engine/stream.h"
#include "engine/suggest.h"
#include "kernels/philox.h"

namespace retort {
namespace {

std::int64_t round_up_to_chunk(std::int64_t n) {
  return (n + kernels::kArenaChunk - 1) / kernels::kArenaChunk * kernels::kArenaChunk;
}

// Box and Muller 1958: two words of randomness to two independent standard normals.
void normal_pair(std::uint32_t a, std::uint32_t b, double out[2]) {
  const double u = (a + 0.5) * 0x1p-32, angle = 2 * std::numbers::pi * ((b + 0.5) * 0x1p-32);
  const double radius = std::sqrt(-2 * std::log(u));
  out[0] = radius * std::cos(angle);
  out[1] = radius * std::sin(angle);
}

// Element e is drawn from word e % 4 of block e / 4 (for normals, from its pair of words): independent of everything
// but seed, number and e.
template <typename T>
void initialize(const Parameter& p, std::uint64_t seed, std::uint32_t number, T* out) {
  const std::int64_t n = p.shape.numel(), blocks = (n + 3) / 4;
  const double scale = p.init.value;
  if (p.init.kind == Initializer::Kind::constant) {
    std::fill(out, out + n, static_cast<T>(scale));
    return;
  }
#pragma omp parallel for schedule(static) if (n > 100000)
  for (std::int64_t b = 0; b < blocks; ++b) {
    const Philox4 words = random_block(seed, kPurposeInit, 0, number, static_cast<std::uint32_t>(b));
    double values[4];
    if (p.init.kind == Initializer::Kind::normal) {
      normal_pair(words.v[0], words.v[1], values);
      normal_pair(words.v[2], words.v[3], values + 2);
    } else {
      for (int i = 0; i < 4; ++i) values[i] = 2.0 * uniform_of(words.v[i]) - 1.0;
    }
    for (std::int64_t e = 4 * b; e < std::min(n, 4 * b + 4); ++e) {
      out[e] = static_cast<T>(static_cast<float>(scale * values[e - 4 * b]));
    }
  }
}

}  // namespace

Initializer Initializer::kaiming_normal(const Shape& weight) {
  const std::int64_t fan_out = weight.numel() / std::max<std::int64_t>(1, weight.last());
  return normal(std::sqrt(2.0 / static_cast<double>(fan_out)));
}

Initializer Initializer::kaiming_uniform(const Shape& weight) {
  const std::int64_t fan_in = weight.numel() / std::max<std::int64_t>(1, weight[0]);
  return uniform(1.0 / std::sqrt(static_cast<double>(fan_in)));
}

std::shared_ptr<Parameter> ParameterStore::parameter(const std::string& name, const Shape& shape, ParameterKind kind,
                                                     Initializer init) {
  check(!materialized(), "parameters: {} registered after materialize()", in_quotes(name));
  check(names_.emplace(name, true).second, "parameters: {} is registered twice", in_quotes(name));
  check(shape.numel() > 0, "parameters: {} has shape {}", in_quotes(name), shape.to_string());
  check(kind != ParameterKind::conv_weight || shape.rank() == 4, "parameters: {} is a convolution weight of shape {}",
        in_quotes(name), shape.to_string());
  auto p = std::make_shared<Parameter>();
  p->name = name;
  p->shape = shape;
  p->kind = kind;
  p->init = init;
  p->first = size_;
  size_ += round_up_to_chunk(shape.numel());
  parameters_.push_back(p);
  return p;
}

std::shared_ptr<Buffer> ParameterStore::buffer(const std::string& name, const Shape& shape, DType dtype,
                                               double initial) {
  check(!materialized(), "parameters: {} registered after materialize()", in_quotes(name));
  check(names_.emplace(name, false).second, "parameters: {} is registered twice", in_quotes(name));
  check(dtype == DType::f32 || dtype == DType::i32, "parameters: buffer {} of type {}", in_quotes(name),
        name_of(dtype));
  auto b = std::make_shared<Buffer>();
  b->name = name;
  b->shape = shape;
  b->dtype = dtype;
  b->initial = initial;
  buffers_.push_back(b);
  return b;
}

void ParameterStore::materialize(Device device, DType compute, std::uint64_t seed) {
  check(!materialized(), "parameters: materialize() a second time");
  check(is_floating(compute), "parameters: cannot compute in {}", name_of(compute));
  compute_ = compute;
  const DType master = accumulation_type(compute);
  const auto allocate = [&]<typename T>(T) {
    std::vector<T> host(static_cast<std::size_t>(size_), T{0});
    for (std::size_t i = 0; i < parameters_.size(); ++i) {
      initialize(*parameters_[i], seed, static_cast<std::uint32_t>(i), host.data() + parameters_[i]->first);
    }
    values_ = Tensor::from(host, {size_}, device);
  };
  master == DType::f64 ? allocate(0.0) : allocate(0.0f);
  gradients_ = Tensor::zeros({size_}, master, device);
  if (compute == DType::bf16) {
    shadow_ = Tensor::empty({size_}, DType::bf16, device);
    refresh_shadow();
  }
  for (const auto& p : parameters_) {
    p->value = values_.slice(p->first, p->shape);
    p->grad = gradients_.slice(p->first, p->shape);
    p->data = shadow_ && is_weight(p->kind) ? shadow_.slice(p->first, p->shape) : p->value.detach();
    p->data.set_requires_grad();
    p->data.set_grad_buffer(p->grad);
    if (p->frozen) p->data.set_requires_grad(false);
  }
  for (const auto& b : buffers_) {
    const DType dtype = b->dtype == DType::f32 ? master : b->dtype;
    b->value = Tensor::full(b->shape, b->initial, dtype, device);
  }
}

void ParameterStore::require_materialized(const char* what) const {
  check(materialized(), "parameters: {} before materialize()", what);
}

std::int64_t ParameterStore::parameter_count() const {
  std::int64_t count = 0;
  for (const auto& p : parameters_) count += p->shape.numel();
  return count;
}

Tensor ParameterStore::chunk_table(const std::function<double(const Parameter&)>& factor) const {
  require_materialized("chunk_table()");
  std::vector<float> table(static_cast<std::size_t>(size_ / kernels::kArenaChunk));
  for (const auto& p : parameters_) {
    const auto first = static_cast<std::size_t>(p->first / kernels::kArenaChunk);
    const auto count = static_cast<std::size_t>(round_up_to_chunk(p->shape.numel()) / kernels::kArenaChunk);
    std::fill_n(table.begin() + static_cast<std::ptrdiff_t>(first), count, static_cast<float>(factor(*p)));
  }
  return Tensor::from(table, {static_cast<std::int64_t>(table.size())}, device());
}

void ParameterStore::freeze(const std::function<bool(const Parameter&)>& which) {
  for (const auto& p : parameters_) {
    if (p->frozen || !which(*p)) continue;
    p->frozen = true;
    if (!materialized()) continue;
    p->data.set_requires_grad(false);
    p->grad.fill(0.0);
  }
}

void ParameterStore::set_lr_factor(double factor, const std::function<bool(const Parameter&)>& which) {
  for (const auto& p : parameters_) {
    if (which(*p)) p->lr_factor = factor;
  }
}

void ParameterStore::zero_grad() {
  for (const auto& p : parameters_) {
    if (!p->frozen) p->data.clear_grad();
  }
}

void ParameterStore::finish_grad() {
  for (const auto& p : parameters_) {
    if (!p->frozen) p->data.finish_grad();
  }
}

void ParameterStore::refresh_shadow() {
  if (shadow_) values_.backend().convert(values_, shadow_.view(), current_stream(values_.device()));
}

}  // namespace retort
