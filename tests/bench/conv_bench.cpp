// Times the convolutions of the CIFAR ResNets on the CPU, per shape and direction, with the direct algorithms
// (Math::strict) and with whatever Math::standard chooses, in turn.
//
//   conv_bench [model substring] [batch] [rounds] [cpu]        e.g. conv_bench resnet18 128 5
//
// With "cpu" it counts processor time instead of wall time; use it with OMP_NUM_THREADS=1 on a machine that is busy
// with other things. Prints the milliseconds of the fastest of `rounds` rounds (others share the machine) and the
// GFLOP/s of the direct algorithm's operations (so a Winograd convolution may exceed the processor's peak), then each
// model's sum over its layers.
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cstdlib>
#include <ctime>
#include <functional>
#include <map>
#include <random>
#include <string>
#include <vector>

#include "kernels/kernels.h"

namespace {

using retort::ConstView;
using retort::Device;
using retort::DType;
using retort::Shape;
using retort::View;
using retort::kernels::Backend;
using retort::kernels::ConvParams;
using retort::kernels::Math;

struct Layer {
  const char* model;
  int count;  // how many such layers the model has
  std::int64_t c, size, o, kernel, stride;
};

constexpr std::array kLayers{
    Layer{"resnet18", 1, 3, 32, 64, 3, 1},     Layer{"resnet18", 4, 64, 32, 64, 3, 1},
    Layer{"resnet18", 1, 64, 32, 128, 3, 2},   Layer{"resnet18", 3, 128, 16, 128, 3, 1},
    Layer{"resnet18", 1, 64, 32, 128, 1, 2},   Layer{"resnet18", 1, 128, 16, 256, 3, 2},
    Layer{"resnet18", 3, 256, 8, 256, 3, 1},   Layer{"resnet18", 1, 128, 16, 256, 1, 2},
    Layer{"resnet18", 1, 256, 8, 512, 3, 2},   Layer{"resnet18", 3, 512, 4, 512, 3, 1},
    Layer{"resnet18", 1, 256, 8, 512, 1, 2},   Layer{"resnet8x4", 1, 3, 32, 32, 3, 1},
    Layer{"resnet8x4", 1, 32, 32, 64, 3, 1},   Layer{"resnet8x4", 1, 64, 32, 64, 3, 1},
    Layer{"resnet8x4", 1, 32, 32, 64, 1, 1},   Layer{"resnet8x4", 1, 64, 32, 128, 3, 2},
    Layer{"resnet8x4", 1, 128, 16, 128, 3, 1}, Layer{"resnet8x4", 1, 64, 32, 128, 1, 2},
    Layer{"resnet8x4", 1, 128, 16, 256, 3, 2}, Layer{"resnet8x4", 1, 256, 8, 256, 3, 1},
    Layer{"resnet8x4", 1, 128, 16, 256, 1, 2}, Layer{"resnet20", 1, 3, 32, 16, 3, 1},
    Layer{"resnet20", 6, 16, 32, 16, 3, 1},    Layer{"resnet20", 1, 16, 32, 32, 3, 2},
    Layer{"resnet20", 5, 32, 16, 32, 3, 1},    Layer{"resnet20", 1, 32, 16, 64, 3, 2},
    Layer{"resnet20", 5, 64, 8, 64, 3, 1},
};

struct Buffer {
  Backend& backend;
  View view;
  Buffer(Backend& b, const Shape& shape) : backend(b), view{nullptr, DType::f32, shape} {
    view.data = backend.allocate(view.bytes(), {});
    std::mt19937 generator(7);
    std::uniform_real_distribution<float> uniform(-1.0f, 1.0f);
    for (std::int64_t i = 0; i < view.numel(); ++i) view.as<float>()[i] = uniform(generator);
  }
  ~Buffer() { backend.deallocate(view.data, view.bytes(), {}); }
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;
};

bool processor_time = false;

double now_ms() {
  if (processor_time) return static_cast<double>(std::clock()) * 1e3 / CLOCKS_PER_SEC;
  return std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

double milliseconds(const std::function<void()>& work) {
  const double start = now_ms();
  work();
  return now_ms() - start;
}

double fastest(const std::vector<double>& values) {
  return *std::min_element(values.begin(), values.end());
}

}  // namespace

int main(int argc, char** argv) {
  const std::string filter = argc > 1 ? argv[1] : "";
  const std::int64_t batch = argc > 2 ? std::atoll(argv[2]) : 128;
  const int rounds = argc > 3 ? std::atoi(argv[3]) : 5;
  processor_time = argc > 4 && std::string(argv[4]) == "cpu";
  if (batch < 1 || rounds < 1) {
    fmt::print(stderr, "usage: conv_bench [model substring] [batch] [rounds] [cpu]\n");
    return 2;
  }
  Backend& backend = retort::kernels::backend(Device{});
  fmt::print("{}; batch {}, fastest of {} rounds, strict and standard in turn\n", backend.description(), batch, rounds);
  fmt::print("{:<10} {:<30} {:^25} {:^25} {:^25}\n", "", "", "forward", "backward data", "backward weights");
  fmt::print("{:<10} {:<30} {:>25} {:>25} {:>25}\n", "model", "layer (ms; GFLOP/s)", "strict     standard",
             "strict     standard", "strict     standard");
  std::map<std::string, std::array<std::array<double, 2>, 3>> sums;
  for (const Layer& l : kLayers) {
    if (std::string(l.model).find(filter) == std::string::npos) continue;
    const std::int64_t out = (l.size - 1) / l.stride + 1;
    const Buffer x(backend, {batch, l.size, l.size, l.c}), w(backend, {l.o, l.kernel, l.kernel, l.c});
    const Buffer y(backend, {batch, out, out, l.o});
    const double gflop = 2e-9 * static_cast<double>(batch * out * out * l.o * l.kernel * l.kernel * l.c);
    std::array<std::array<std::vector<double>, 2>, 3> times;
    for (int round = -1; round < rounds; ++round) {  // round -1 compiles and warms up
      for (std::size_t standard = 0; standard < 2; ++standard) {
        ConvParams p;
        p.stride_h = p.stride_w = static_cast<int>(l.stride);
        p.pad_h = p.pad_w = static_cast<int>(l.kernel / 2);
        p.math = standard != 0 ? Math::standard : Math::strict;
        const double forward = milliseconds([&] { backend.conv2d(x.view, w.view, {}, p, y.view, {}); });
        const double data = l.c == 3 ? 0.0 : milliseconds([&] {  // nobody asks for the gradient of the images
          backend.conv2d_backward_data(y.view, w.view, p, x.view, {});
        });
        const double weights = milliseconds([&] { backend.conv2d_backward_weights(x.view, y.view, p, w.view, {}); });
        if (round < 0) continue;
        times[0][standard].push_back(forward);
        times[1][standard].push_back(data);
        times[2][standard].push_back(weights);
      }
    }
    std::string line =
        fmt::format("{:<10} {:<30}", l.model,
                    fmt::format("{} x {}->{} {}x{} k{} s{}", l.count, l.c, l.o, l.size, l.size, l.kernel, l.stride));
    for (std::size_t pass = 0; pass < 3; ++pass) {
      for (std::size_t standard = 0; standard < 2; ++standard) {
        const double ms = fastest(times[pass][standard]);
        sums[l.model][pass][standard] += l.count * ms;
        line += fmt::format(" {:>7.2f} {:>4.0f}", ms, ms > 0.0 ? gflop / ms * 1e3 : 0.0);
      }
    }
    fmt::print("{}\n", line);
  }
  for (const auto& [model, sum] : sums) {
    fmt::print("{:<10} all layers, ms: ", model);
    for (std::size_t standard = 0; standard < 2; ++standard) {
      fmt::print("{} {:.1f} + {:.1f} + {:.1f} = {:.1f}{}", standard != 0 ? "standard" : "strict", sum[0][standard],
                 sum[1][standard], sum[2][standard], sum[0][standard] + sum[1][standard] + sum[2][standard],
                 standard != 0 ? "\n" : ", ");
    }
  }
  return 0;
}
