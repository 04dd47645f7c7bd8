#include "data/loader.h"

#include <algorithm>

#include "engine/stream.h"

namespace retort {

DeviceData DeviceData::upload(const ImageSet& set, Device device) {
  const auto pixels = static_cast<std::int64_t>(set.height) * set.width * 3;
  check(set.count > 0, "data: a set without images");
  check(static_cast<std::int64_t>(set.images.size()) == set.count * pixels &&
            static_cast<std::int64_t>(set.labels.size()) == set.count,
        "data: {} image bytes and {} labels for {} images of {} x {}", set.images.size(), set.labels.size(), set.count,
        set.height, set.width);
  return {Tensor::from_bytes(set.images.data(), {set.count, set.height, set.width, 3}, DType::u8, device),
          Tensor::from_bytes(set.labels.data(), {set.count}, DType::i32, device)};
}

BatchBuffers::BatchBuffers(const DeviceData& data, std::int64_t size, DType dtype, const kernels::AugmentParams& params)
    : data_(data), params_(params) {
  check(size > 0, "data: batch size is {}, expected at least 1", size);
  check(is_floating(dtype), "data: images as {}, expected f64, f32 or bf16", name_of(dtype));
  const Device device = data.images.device();
  const kernels::ImageSize from{static_cast<int>(data.images.dim(1)), static_cast<int>(data.images.dim(2))};
  kernels::check_augment(params, from);
  const kernels::ImageSize to = kernels::augmented_size(params, from);
  indices = Tensor::zeros({size}, DType::i32, device);
  epoch = Tensor::zeros({1}, DType::i32, device);
  input = Tensor::empty({size, to.height, to.width, 3}, dtype, device);
  labels = Tensor::empty({size}, DType::i32, device);
}

void BatchBuffers::set(std::span<const std::int32_t> batch, int epoch_number) {
  check(static_cast<std::int64_t>(batch.size()) == size(), "data: {} indices for a batch of {}", batch.size(), size());
  const auto [low, high] = std::minmax_element(batch.begin(), batch.end());
  check(*low >= 0 && *high < data_.count(), "data: indices from {} to {} for a set of {} images", *low, *high,
        data_.count());
  const std::int32_t number = epoch_number;
  indices.copy_from_host(batch.data());
  epoch.copy_from_host(&number);
}

void BatchBuffers::produce() const {
  kernels::Backend& backend = indices.backend();
  const Stream stream = current_stream(indices.device());
  backend.augment(params_, data_.images, indices, epoch, input.view(), stream);
  backend.gather(data_.labels, indices, labels.view(), stream);
}

std::vector<std::span<const std::int32_t>> batches_of(std::span<const std::int32_t> order, std::int64_t size,
                                                      bool drop_last) {
  check(size > 0, "data: batch size is {}, expected at least 1", size);
  const auto step = static_cast<std::size_t>(size);
  std::vector<std::span<const std::int32_t>> batches;
  for (std::size_t begin = 0; begin < order.size(); begin += step) {
    const std::size_t n = std::min(step, order.size() - begin);
    if (n == step || !drop_last) batches.push_back(order.subspan(begin, n));
  }
  return batches;
}

}  // namespace retort
