// Copies of pitched rows, and gathering of integers.
#include "kernels/cuda/common.h"

namespace retort::kernels {
namespace {

template <typename Word>
__global__ void __launch_bounds__(kBlockThreads)
    copy_rows_kernel(const Word* x, std::int64_t x_pitch, Word* out, std::int64_t out_pitch, std::int64_t rows,
                     std::int64_t columns) {
  for_packs<1>(
      rows * columns, false, [](std::int64_t) {},
      [&](std::int64_t i) {
        const std::int64_t row = i / columns, column = i % columns;
        out[row * out_pitch + column] = x[row * x_pitch + column];
      });
}

__global__ void __launch_bounds__(kBlockThreads)
    gather_kernel(const std::int32_t* x, const std::int32_t* indices, std::int32_t* out, std::int64_t count) {
  for_packs<1>(
      count, false, [](std::int64_t) {}, [&](std::int64_t i) { out[i] = x[indices[i]]; });
}

using Word16 = Pack<std::uint32_t, 4>;

// Copies in words of sizeof(Word) where all of these byte counts and addresses are multiples of it.
template <typename Word>
bool copy_in(ConstView x, std::int64_t x_pitch, View out, std::int64_t out_pitch, std::int64_t rows,
             std::int64_t columns, Stream stream) {
  constexpr std::int64_t kBytes = sizeof(Word);
  const auto address = [](const void* p) { return static_cast<std::int64_t>(reinterpret_cast<std::uintptr_t>(p)); };
  if ((address(x.data) | address(out.data) | x_pitch | out_pitch | columns) % kBytes != 0) return false;
  launch(copy_rows_kernel<Word>, grid_for(rows * columns / kBytes), kBlockThreads, 0, stream, x.as<Word>(),
         x_pitch / kBytes, out.as<Word>(), out_pitch / kBytes, rows, columns / kBytes);
  return true;
}

}  // namespace

void CudaKernels::copy_rows(ConstView x, std::int64_t x_pitch, View out, std::int64_t out_pitch, std::int64_t rows,
                            std::int64_t columns, Stream stream) {
  const auto size = static_cast<std::int64_t>(size_of(x.dtype));
  const auto copied = [&]<typename Word>(Word) {
    return copy_in<Word>(x, x_pitch * size, out, out_pitch * size, rows, columns * size, stream);
  };
  static_cast<void>(copied(Word16{}) || copied(std::uint64_t{}) || copied(std::uint32_t{}) ||
                    copied(std::uint16_t{}) || copied(std::uint8_t{}));
}

void CudaKernels::gather(ConstView x, ConstView indices, View out, Stream stream) {
  launch(gather_kernel, grid_for(out.numel()), kBlockThreads, 0, stream, x.as<std::int32_t>(),
         indices.as<std::int32_t>(), out.as<std::int32_t>(), out.numel());
}

}  // namespace retort::kernels
