#include "engine/tensor.h"

#include "engine/autograd.h"
#include "engine/stream.h"
#include "engine/trace.h"

namespace retort {

struct Tensor::Storage {
  kernels::Backend& backend;
  Device device;
  Stream stream;
  std::size_t bytes;
  void* data;

  Storage(Device d, std::size_t n)
      : backend(kernels::backend(d)),
        device(d),
        stream(current_stream(d)),
        bytes(n),
        data(backend.allocate(n, stream)) {
    if (trace::active != nullptr) trace::active->allocated(data, bytes);
  }
  ~Storage() { backend.deallocate(data, bytes, stream); }
  Storage(const Storage&) = delete;
  Storage& operator=(const Storage&) = delete;
};

Tensor Tensor::empty(const Shape& shape, DType dtype, Device device) {
  Tensor t;
  t.impl_ = std::make_shared<Impl>();
  t.impl_->storage = std::make_shared<Storage>(device, static_cast<std::size_t>(shape.numel()) * size_of(dtype));
  t.impl_->shape = shape;
  t.impl_->dtype = dtype;
  return t;
}

Tensor Tensor::zeros(const Shape& shape, DType dtype, Device device) {
  return full(shape, 0.0, dtype, device);
}

Tensor Tensor::full(const Shape& shape, double value, DType dtype, Device device) {
  Tensor t = empty(shape, dtype, device);
  t.fill(value);
  trace::record("full", t, {}, value);
  return t;
}

Tensor Tensor::from_bytes(const void* host, const Shape& shape, DType dtype, Device device) {
  Tensor t = empty(shape, dtype, device);
  t.copy_from_host(host);
  return t;
}

Device Tensor::device() const {
  return impl().storage->device;
}
kernels::Backend& Tensor::backend() const {
  return impl().storage->backend;
}

View Tensor::view() const {
  const Impl& i = impl();
  return {static_cast<char*>(i.storage->data) + i.offset_bytes, i.dtype, i.shape};
}

void Tensor::copy_to_host(void* host) const {
  backend().copy_to_host(*this, host, current_stream(device()));
}
void Tensor::copy_from_host(const void* host) const {
  backend().copy_from_host(host, view(), current_stream(device()));
}

void Tensor::copy_from(const Tensor& other) const {
  check(other.dtype() == dtype() && other.numel() == numel() && other.device() == device(),
        "tensor: copy_from {} {} on {} to {} {} on {}", name_of(other.dtype()), other.shape().to_string(),
        other.device().to_string(), name_of(dtype()), shape().to_string(), device().to_string());
  backend().copy(other, view(), current_stream(device()));
}

void Tensor::fill(double value) const {
  backend().fill(view(), value, current_stream(device()));
}

std::vector<double> Tensor::to_doubles() const {
  return to(DType::f64).to_host<double>();
}

double Tensor::item() const {
  check(numel() == 1, "tensor: item() of a tensor of shape {}", shape().to_string());
  return to_doubles()[0];
}

Tensor Tensor::clone() const {
  Tensor t = empty(shape(), dtype(), device());
  t.copy_from(*this);
  return t;
}

Tensor Tensor::to(Device target) const {
  if (device() == target) return detach();
  std::vector<std::uint8_t> bytes(view().bytes());
  copy_to_host(bytes.data());
  return from_bytes(bytes.data(), shape(), dtype(), target);
}

Tensor Tensor::to(DType target) const {
  if (dtype() == target) return detach();
  Tensor t = empty(shape(), target, device());
  backend().convert(*this, t.view(), current_stream(device()));
  return t;
}

Tensor Tensor::alias(std::size_t offset_bytes, const Shape& shape) const {
  Tensor t;
  t.impl_ = std::make_shared<Impl>();
  t.impl_->storage = impl().storage;
  t.impl_->offset_bytes = impl().offset_bytes + offset_bytes;
  t.impl_->shape = shape;
  t.impl_->dtype = impl().dtype;
  return t;
}

Tensor Tensor::detach() const {
  return alias(0, shape());
}

Tensor Tensor::reshaped(const Shape& to) const {
  check(to.numel() == numel(), "reshape: {} to {}", shape().to_string(), to.to_string());
  return alias(0, to);
}

Tensor Tensor::slice(std::int64_t first_element, const Shape& to) const {
  check(first_element >= 0 && first_element + to.numel() <= numel(), "slice: {} elements from {} of a tensor of {}",
        to.numel(), first_element, numel());
  return alias(static_cast<std::size_t>(first_element) * size_of(dtype()), to);
}

void Tensor::adopt() const {
  impl().storage->stream = current_stream(device());
}

bool Tensor::exclusive() const {
  return impl_.use_count() == 1 && impl().storage.use_count() == 1;
}

bool Tensor::requires_grad() const {
  return impl_ && impl_->meta && impl_->meta->requires_grad;
}

Tensor& Tensor::set_requires_grad(bool value) {
  Impl& i = mutable_impl();
  check(is_floating(i.dtype), "tensor: a {} tensor cannot require a gradient", name_of(i.dtype));
  check(!i.meta || !i.meta->producer, "tensor: only a leaf can be told to require a gradient");
  if (!i.meta) i.meta = std::make_shared<autograd::Meta>();
  i.meta->requires_grad = value;
  return *this;
}

Tensor Tensor::grad() const {
  return impl_ && impl_->meta && impl_->meta->has_grad ? impl_->meta->grad : Tensor();
}

void Tensor::set_grad_buffer(const Tensor& buffer) {
  check(requires_grad(), "tensor: a gradient buffer for a tensor that requires no gradient");
  check(buffer.shape() == shape(), "tensor: gradient buffer of shape {} for {}", buffer.shape().to_string(),
        shape().to_string());
  impl_->meta->grad = buffer;
  impl_->meta->has_grad = false;
}

void Tensor::clear_grad() {
  if (impl_ && impl_->meta) impl_->meta->has_grad = false;
}

void Tensor::finish_grad() {
  if (!impl_ || !impl_->meta || impl_->meta->has_grad || !impl_->meta->grad) return;
  impl_->meta->grad.fill(0.0);
  impl_->meta->has_grad = true;
}

void Tensor::backward() const {
  autograd::backward(*this);
}

}  // namespace retort
