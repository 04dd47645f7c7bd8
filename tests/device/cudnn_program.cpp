#include "tests/device/cudnn_program.h"

#include <atomic>
#include <limits>

#include "kernels/bf16.h"
#include "tests/device/convolve.h"
#include "tests/device/cudnn_engines.h"
#include "tests/device/numbers.h"

namespace retort::standin::cudnn {
namespace {

using Pointers = std::map<std::int64_t, void*>;

template <typename T>
T read_element(cudnnDataType_t type, const void* data, std::int64_t index) {
  switch (type) {
    case CUDNN_DATA_DOUBLE:
      return static_cast<T>(load<double>(data, index));
    case CUDNN_DATA_FLOAT:
      return static_cast<T>(load<float>(data, index));
    case CUDNN_DATA_BFLOAT16:
      return static_cast<T>(static_cast<float>(load<bf16>(data, index)));
    default:
      return static_cast<T>(load<_Float16>(data, index));
  }
}

template <typename T>
void write_element(cudnnDataType_t type, void* data, std::int64_t index, T value) {
  switch (type) {
    case CUDNN_DATA_DOUBLE:
      return store(data, index, static_cast<double>(value));
    case CUDNN_DATA_FLOAT:
      return store(data, index, static_cast<float>(value));
    case CUDNN_DATA_BFLOAT16:
      return store(data, index, bf16(static_cast<float>(value)));
    default:
      return store(data, index, static_cast<_Float16>(value));
  }
}

// As the type of a tensor can hold it.
template <typename T>
T rounded(cudnnDataType_t type, T value) {
  double place = 0;
  write_element(type, &place, 0, value);
  return read_element<T>(type, &place, 0);
}

// Calls visit(place in memory, place in a dense array [n, h, w, c]) for every element.
template <typename Visit>
void for_each_element(const Tensor& t, Visit visit) {
  std::int64_t dense = 0;
  for (std::int64_t n = 0; n < t.dims[0]; ++n) {
    for (std::int64_t h = 0; h < t.dims[2]; ++h) {
      for (std::int64_t w = 0; w < t.dims[3]; ++w) {
        const std::int64_t base = n * t.strides[0] + h * t.strides[2] + w * t.strides[3];
        for (std::int64_t c = 0; c < t.dims[1]; ++c) visit(base + c * t.strides[1], dense++);
      }
    }
  }
}

template <typename T>
using Values = std::vector<T>;

template <typename T>
Values<T> read_values(const Tensor& t, const void* data) {
  Values<T> values(static_cast<std::size_t>(t.numel()));
  for_each_element(
      t, [&](auto from, auto to) { values[static_cast<std::size_t>(to)] = read_element<T>(t.type, data, from); });
  return values;
}

template <typename T>
void write_values(const Tensor& t, const Values<T>& values, void* data) {
  for_each_element(
      t, [&](auto to, auto from) { write_element(t.type, data, to, values[static_cast<std::size_t>(from)]); });
}

// By 180 degrees: a dense [o, kh, kw, c] with kh and kw reversed.
template <typename T>
void turn_filter(const Tensor& w, Values<T>& values) {
  const std::int64_t taps = w.dims[2] * w.dims[3], channels = w.dims[1];
  for (std::int64_t o = 0; o < w.dims[0]; ++o) {
    for (std::int64_t i = 0; i < taps / 2; ++i) {
      const auto one = values.begin() + (o * taps + i) * channels,
                 other = values.begin() + (o * taps + taps - 1 - i) * channels;
      std::swap_ranges(one, one + channels, other);
    }
  }
}

// What the engine makes of an input.
template <typename T>
void spoil_input(Flaw flaw, cudnnDataType_t type, Values<T>& values) {
  if (flaw == Flaw::tensor_core && type == CUDNN_DATA_FLOAT) {
    for (T& value : values) value = static_cast<T>(truncate_to_tf32(static_cast<float>(value)));
  }
  if (flaw == Flaw::down_converts_inputs) {
    const int bits = type == CUDNN_DATA_DOUBLE ? 24 : type == CUDNN_DATA_FLOAT ? 8 : 4;
    for (T& value : values) value = round_significand(value, bits);
  }
}

// What the engine makes of the sums.
template <typename T>
void spoil_sums(Flaw flaw, cudnnDataType_t type, Values<T>& sums) {
  if (flaw == Flaw::winograd && type != CUDNN_DATA_DOUBLE) {
    for (T& sum : sums) sum = round_significand(sum, 17);
  }
  if (flaw == Flaw::reduced_sums) {  // as if it were added up from three parts kept in the narrower type
    const int bits = type == CUDNN_DATA_DOUBLE ? 24 : 8;
    for (T& sum : sums) {
      const T part = round_significand(sum * T{0.37f}, bits);
      sum = round_significand(part + round_significand(sum - part, bits), bits);
    }
  }
  if (flaw == Flaw::nondeterministic) {
    static std::atomic<std::uint32_t> runs{0};
    std::uint32_t state = 2654435761u * ++runs;
    for (T& sum : sums) {
      state = state * 1664525u + 1013904223u;
      sum *= T{1} + static_cast<T>(state >> 8) * static_cast<T>(0x1p-30);
    }
  }
}

ConvolutionShape shape_of(const Convolution& c) {
  return {c.x.dims[0], c.x.dims[2], c.x.dims[3], c.x.dims[1], c.y.dims[1], c.w.dims[2], c.w.dims[3],
          c.y.dims[2], c.y.dims[3], c.groups,    c.stride,    c.pre,       c.dilation};
}

// The sums of products of the convolution, dense, in its compute type.
template <typename T>
Values<T> sums_of(const Program& program, const Pointers& pointers) {
  const Convolution& c = program.convolution;
  const Engine& engine = *program.engine;
  const auto input = [&](const Tensor& t) {
    Values<T> values = read_values<T>(t, pointers.at(t.id));
    if (&t == &c.w && c.flip) turn_filter(t, values);
    spoil_input(engine.flaw, t.type, values);
    return values;
  };
  const ConvolutionShape shape = shape_of(c);
  Values<T> sums(static_cast<std::size_t>(c.result().numel()));
  if (&c.result() == &c.y) {
    convolve(shape, input(c.x).data(), input(c.w).data(), sums.data(), engine.terms);
  } else if (&c.result() == &c.x) {
    convolve_backward_data(shape, input(c.y).data(), input(c.w).data(), sums.data(), engine.terms);
  } else {
    convolve_backward_weights(shape, input(c.x).data(), input(c.y).data(), sums.data(), engine.terms);
    if (c.flip) turn_filter(c.w, sums);
  }
  spoil_sums(engine.flaw, c.x.is_virtual ? c.y.type : c.x.type, sums);
  return sums;
}

template <typename T>
T apply(const Pointwise& p, T x, T b) {
  const T scaled = static_cast<T>(p.alpha_x) * x;
  if (p.mode == CUDNN_POINTWISE_ADD) return scaled + static_cast<T>(p.alpha_b) * b;
  const T lower = static_cast<T>(p.lower), upper = static_cast<T>(p.upper);
  if (scaled > lower) return std::min(scaled, upper);
  return p.slope == 0 ? lower : lower + static_cast<T>(p.slope) * (scaled - lower);  // 0 for NaN, as cuDNN may
}

// b, with dimensions of 1 repeated, where x has its elements.
template <typename T>
Values<T> broadcast(const Pointwise& p, const void* data) {
  Tensor spread = p.b;
  for (std::size_t i = 0; i < 4; ++i) {
    if (p.b.dims[i] == 1) spread.strides[i] = 0;
  }
  spread.dims = p.y.dims;
  return read_values<T>(spread, data);
}

// From the sums to the results in memory, rounding to the type of every tensor on the way.
template <typename T>
void finish(const Program& program, Values<T> values, const Pointers& pointers) {
  const Convolution& c = program.convolution;
  const auto keep = [&](const Tensor& t) {
    for (T& value : values) value = rounded(t.type, value);
    if (!t.is_virtual) write_values(t, values, pointers.at(t.id));
  };
  Values<T> old;
  if (c.beta != 0) old = read_values<T>(c.result(), pointers.at(c.result().id));
  for (std::size_t i = 0; i < values.size(); ++i) {
    values[i] *= static_cast<T>(c.alpha);
    if (c.beta != 0) values[i] += static_cast<T>(c.beta) * old[i];
  }
  keep(c.result());
  for (const Pointwise& p : program.steps) {
    Values<T> b(values.size());
    if (p.has_b) b = broadcast<T>(p, pointers.at(p.b.id));
    for (std::size_t i = 0; i < values.size(); ++i) values[i] = apply(p, values[i], b[i]);
    keep(p.y);
  }
}

template <typename T>
std::vector<Piece> pieces(std::shared_ptr<const Program> program, const Pointers& pointers, void* workspace) {
  const Convolution& c = program->convolution;
  std::vector<Access> sources, others;
  for (const auto& [id, t] : program->tensors) {
    const bool source = (id == c.x.id || id == c.w.id || id == c.y.id) && id != c.result().id;
    const bool made = id == program->output().id || id == c.result().id;
    (source ? sources : others).push_back({pointers.at(id), t.bytes(), made});
    if (made && id == c.result().id && c.beta != 0) others.push_back({pointers.at(id), t.bytes(), false});
  }
  const std::size_t bytes = program->workspace_bytes;
  if (bytes > 0) sources.push_back({workspace, bytes, true});
  if (program->engine->flaw != Flaw::workspace_between) {
    sources.insert(sources.end(), others.begin(), others.end());
    return {{std::move(sources), [program, pointers, workspace, bytes] {
               fill_with_garbage(workspace, bytes);
               finish<T>(*program, sums_of<T>(*program, pointers), pointers);
             }}};
  }
  // At the end of the workspace, so that all of it is needed.
  const std::size_t size = static_cast<std::size_t>(c.result().numel()) * sizeof(T);
  unsigned char* const place = static_cast<unsigned char*>(workspace) + bytes - size;
  others.push_back({workspace, bytes, false});
  others.push_back({workspace, bytes, true});
  return {{std::move(sources),
           [program, pointers, workspace, bytes, place, size] {
             fill_with_garbage(workspace, bytes);
             std::memcpy(place, sums_of<T>(*program, pointers).data(), size);
           }},
          {std::move(others), [program, pointers, workspace, bytes, place, size] {
             Values<T> sums(size / sizeof(T));
             std::memcpy(sums.data(), place, size);
             fill_with_garbage(workspace, bytes);
             finish<T>(*program, std::move(sums), pointers);
           }}};
}

}  // namespace

std::vector<Piece> pieces_of(std::shared_ptr<const Program> program, const Pointers& pointers, void* workspace) {
  return program->convolution.compute == CUDNN_DATA_DOUBLE ? pieces<double>(std::move(program), pointers, workspace)
                                                           : pieces<float>(std::move(program), pointers, workspace);
}

}  // namespace retort::standin::cudnn
