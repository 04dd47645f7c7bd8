#include <cassert>
#include <cstring>

#include "kernels/cpu/backend.h"
#include "kernels/cpu/parallel.h"

namespace retort::kernels {

using namespace cpu;

void CpuBackend::copy_rows(ConstView x, std::int64_t x_pitch, View out, std::int64_t out_pitch, std::int64_t rows,
                           std::int64_t columns, Stream) {
  assert(x.dtype == out.dtype);
  const auto size = static_cast<std::int64_t>(size_of(x.dtype));
  const auto* const from = x.as<std::uint8_t>();
  auto* const to = out.as<std::uint8_t>();
  parallel_for(rows, columns, [=](std::int64_t begin, std::int64_t end) {
    for (std::int64_t r = begin; r < end; ++r) {
      std::memcpy(to + r * out_pitch * size, from + r * x_pitch * size, static_cast<std::size_t>(columns * size));
    }
  });
}

void CpuBackend::gather(ConstView x, ConstView indices, View out, Stream) {
  assert(x.dtype == DType::i32 && indices.dtype == DType::i32 && out.dtype == DType::i32);
  const auto* const in = x.as<std::int32_t>();
  const auto* const index = indices.as<std::int32_t>();
  auto* const to = out.as<std::int32_t>();
  parallel_elements(out.numel(), [=](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) to[i] = in[index[i]];
  });
}

}  // namespace retort::kernels
