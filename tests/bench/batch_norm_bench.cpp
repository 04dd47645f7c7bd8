// Batch normalisation with ReLU, forward and backward, as the CPU backend runs it: milliseconds and GB/s of the memory
// traffic that each pass cannot do without (every input read once a pass, every output written once).
//
//   batch_norm_bench [rows channels]      default: the shapes of a CIFAR ResNet at batch 128
#include <fmt/core.h>
#include <omp.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <ctime>
#include <utility>

#include "kernels/kernels.h"

namespace {

using namespace retort;
using kernels::Activation;

// f32 on the backend, filled with small numbers of both signs.
class Buffer {
 public:
  explicit Buffer(const Shape& shape) : view_{nullptr, DType::f32, shape} {
    view_.data = backend().allocate(view_.bytes(), {});
    for (std::int64_t i = 0; i < shape.numel(); ++i) view_.as<float>()[i] = static_cast<float>(i * 37 % 101 - 45) / 32;
  }
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;
  ~Buffer() { backend().deallocate(view_.data, view_.bytes(), {}); }
  operator View() const { return view_; }
  operator ConstView() const { return view_; }

 private:
  static kernels::Backend& backend() { return kernels::backend({}); }
  View view_;
};

struct Timing {
  double wall, processor;  // the least of the rounds, in milliseconds; processor time of all threads together
};

template <typename F>
Timing time(const F& f) {
  Timing least{1e9, 1e9};
  for (int round = 0; round < 25; ++round) {
    const auto start = std::chrono::steady_clock::now();
    const std::clock_t processor_start = std::clock();
    f();
    least.processor =
        std::min(least.processor, 1e3 * static_cast<double>(std::clock() - processor_start) / CLOCKS_PER_SEC);
    const std::chrono::duration<double, std::milli> wall = std::chrono::steady_clock::now() - start;
    least.wall = std::min(least.wall, wall.count());
  }
  return least;
}

void measure(std::int64_t rows, std::int64_t channels) {
  const Shape shape{rows, channels}, vector{channels};
  const Buffer x(shape), y(shape), dy(shape), dx(shape), residual(shape), dresidual(shape);
  const Buffer gamma(vector), beta(vector), mean(vector), invstd(vector), running_mean(vector), running_var(vector);
  const Buffer dgamma(vector), dbeta(vector);
  std::int32_t steps = 0;
  const View counter{&steps, DType::i32, {1}};
  kernels::Backend& cpu = kernels::backend({});
  const double gigabytes = static_cast<double>(shape.numel()) * 4e-9;
  const auto report = [&](const char* what, double tensors, const Timing& t) {
    fmt::print("[{}, {}] {:<20} {} thread(s): {:7.3f} ms {:6.2f} GB/s; processor {:7.3f} ms\n", rows, channels, what,
               omp_get_max_threads(), t.wall, tensors * gigabytes / t.wall * 1e3, t.processor);
  };
  const auto forward = [&](ConstView added) {
    cpu.batch_norm_training(x, added, gamma, beta, 0.1, 1e-5, Activation::relu, y, mean, invstd, running_mean,
                            running_var, counter, {});
  };
  const auto backward = [&](View kept) {
    cpu.batch_norm_backward(x, y, dy, gamma, {}, mean, invstd, Activation::relu, true, dx, kept, dgamma, dbeta, {});
  };
  report("add", 3, time([&] { cpu.add(x, residual, y, {}); }));
  report("forward", 3, time([&] { forward({}); }));
  report("forward + residual", 4, time([&] { forward(residual); }));
  report("backward", 7, time([&] { backward({}); }));
  report("backward + residual", 7, time([&] { backward(dresidual); }));
}

}  // namespace

int main(int argc, char** argv) {
  if (argc == 3) {
    measure(std::atoll(argv[1]), std::atoll(argv[2]));
    return 0;
  }
  for (const auto& [side, channels] :
       {std::pair<std::int64_t, std::int64_t>{32, 64}, {32, 16}, {16, 128}, {8, 256}, {4, 512}}) {
    measure(128 * side * side, channels);
  }
}
