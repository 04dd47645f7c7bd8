// A dense, contiguous, row-major array on a device: a cheap handle, copied by reference.
//
// Images and feature maps are [N, H, W, C]; convolution weights [O, KH, KW, I / groups]; logits [N, C]. There are no
// strided views; slice() and reshaped() alias the same memory. Gradients: engine/autograd.h; operators: engine/ops/.
// All members throw retort::Error on misuse. A handle may be used from one thread at a time.
#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "kernels/error.h"
#include "kernels/kernels.h"

namespace retort {

namespace autograd {
struct Meta;  // engine/autograd.h
}

class Tensor {
 public:
  Tensor() = default;  // undefined: an absent optional argument

  // Memory is uninitialised after empty().
  static Tensor empty(const Shape& shape, DType dtype, Device device);
  static Tensor zeros(const Shape& shape, DType dtype, Device device);
  static Tensor full(const Shape& shape, double value, DType dtype, Device device);
  // Copies values.size() == shape.numel() elements; T is one of double, float, bf16, int32_t, uint8_t.
  template <typename T>
  static Tensor from(const std::vector<T>& values, const Shape& shape, Device device = {}) {
    check(static_cast<std::int64_t>(values.size()) == shape.numel(), "tensor: {} values for shape {}", values.size(),
          shape.to_string());
    return from_bytes(values.data(), shape, dtype_of<T>, device);
  }
  static Tensor from_bytes(const void* host, const Shape& shape, DType dtype, Device device);

  bool defined() const { return impl_ != nullptr; }
  explicit operator bool() const { return defined(); }
  const Shape& shape() const { return impl().shape; }
  std::int64_t dim(int axis) const { return impl().shape[axis]; }
  int rank() const { return impl().shape.rank(); }
  std::int64_t numel() const { return impl().shape.numel(); }
  DType dtype() const { return impl().dtype; }
  Device device() const;
  kernels::Backend& backend() const;

  View view() const;  // the memory itself; a kernel writes only to tensors that nothing else reads
  operator ConstView() const { return impl_ ? ConstView(view()) : ConstView(); }  // NOLINT: undefined -> empty view
  View optional_view() const { return impl_ ? view() : View(); }

  // Host copies; these wait for the device.
  template <typename T>
  std::vector<T> to_host() const {
    check(dtype() == dtype_of<T>, "tensor: to_host<{}> of a {} tensor", name_of(dtype_of<T>), name_of(dtype()));
    std::vector<T> values(static_cast<std::size_t>(numel()));
    copy_to_host(values.data());
    return values;
  }
  std::vector<double> to_doubles() const;  // any dtype
  double item() const;                     // of a tensor with one element
  void copy_to_host(void* host) const;
  void copy_from_host(const void* host) const;
  void copy_from(const Tensor& other) const;  // same dtype and numel, same device
  void fill(double value) const;

  // These neither record nor carry gradients.
  Tensor clone() const;
  Tensor to(Device device) const;             // this tensor itself where it is there already
  Tensor to(DType dtype) const;               // converted; this tensor itself where it has that type
  Tensor detach() const;                      // same memory
  Tensor reshaped(const Shape& shape) const;  // same memory
  Tensor slice(std::int64_t first_element, const Shape& shape) const;  // same memory

  // For memory that another stream made and that the current one has waited for: it goes back on the current stream, so
  // that what this stream still does with it comes first.
  void adopt() const;

  // True when no other handle shares this memory: an operator's backward may then overwrite it.
  bool exclusive() const;

  // Gradients. Only floating leaves may be marked; results of operators follow their inputs.
  bool requires_grad() const;
  Tensor& set_requires_grad(bool value = true);
  Tensor grad() const;  // undefined before backward() reached this leaf
  // Leaf gradients accumulate into `buffer` (same shape; its type may be wider than this tensor's).
  void set_grad_buffer(const Tensor& buffer);
  // Declares the gradient zero without touching memory; the next contribution overwrites it.
  void clear_grad();
  // Fills the buffer with zeros when no contribution has come since clear_grad().
  void finish_grad();
  // Backpropagates from this scalar to all leaves that require gradients; frees the graph.
  void backward() const;

  const std::shared_ptr<autograd::Meta>& meta() const { return impl().meta; }
  void set_meta(std::shared_ptr<autograd::Meta> meta) { mutable_impl().meta = std::move(meta); }

 private:
  struct Storage;
  struct Impl {
    std::shared_ptr<Storage> storage;
    std::size_t offset_bytes = 0;
    Shape shape;
    DType dtype = DType::f32;
    std::shared_ptr<autograd::Meta> meta;
  };
  const Impl& impl() const {
    check(impl_ != nullptr, "tensor: used while undefined");
    return *impl_;
  }
  Impl& mutable_impl() {
    check(impl_ != nullptr, "tensor: used while undefined");
    return *impl_;
  }
  Tensor alias(std::size_t offset_bytes, const Shape& shape) const;

  std::shared_ptr<Impl> impl_;
};

using NamedTensors = std::vector<std::pair<std::string, Tensor>>;

}  // namespace retort
