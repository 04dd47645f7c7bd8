// How the backend uses cuDNN and cuBLASLt: which engines it takes, that it fuses, and that what it remembers of one call
// is right for the next. The results are compared in tests/cuda/backend_test.cpp.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <vector>

#include "kernels/cuda/cuda_backend.h"
#include "tests/device/cublas.h"
#include "tests/device/cudnn.h"

namespace retort::kernels {
namespace {

using standin::take_algorithms_run;
using standin::take_engines_run;
using testing::Each;
using testing::EndsWith;
using testing::Not;

class LibrariesTest : public testing::Test {
 protected:
  LibrariesTest() {
    take_engines_run();
    take_algorithms_run();
  }

  // Device memory, `shift` bytes from an aligned address, filled with ones.
  class Array {
   public:
    Array(Backend& backend, DType dtype, const Shape& shape, std::size_t shift = 0)
        : backend_(backend), view_{nullptr, dtype, shape}, shift_(shift) {
      data_ = backend.allocate(view_.bytes() + shift, {});
      view_.data = static_cast<char*>(data_) + shift;
      backend.fill(view_, 1.0, {});
    }
    ~Array() { backend_.deallocate(data_, view_.bytes() + shift_, {}); }
    Array(const Array&) = delete;
    Array& operator=(const Array&) = delete;
    const View& view() const { return view_; }
    std::vector<float> read() const {
      std::vector<float> values(static_cast<std::size_t>(view_.numel()));
      backend_.copy_to_host(view_, values.data(), {});
      return values;
    }

   private:
    Backend& backend_;
    View view_;
    std::size_t shift_;
    void* data_ = nullptr;
  };

  std::vector<std::string> engines_of(DType dtype, Math math, ConvEpilogue epilogue = {}) {
    const Array x(backend_, dtype, {2, 6, 6, 8}), w(backend_, dtype, {8, 3, 3, 8}), y(backend_, dtype, {2, 6, 6, 8});
    ConvParams params;
    params.pad_h = params.pad_w = 1;
    params.math = math;
    backend_.conv2d(x.view(), w.view(), epilogue, params, y.view(), {});
    if (epilogue.empty()) {
      backend_.conv2d_backward_data(y.view(), w.view(), params, x.view(), {});
      backend_.conv2d_backward_weights(x.view(), y.view(), params, w.view(), {});
    }
    return take_engines_run();
  }

  CudaBackend backend_{0};
};

TEST_F(LibrariesTest, ConvolutionsTakeNoEngineThatTheirMathForbids) {
  const auto none_of = [](const std::vector<std::string>& run, const std::vector<std::string>& forbidden) {
    EXPECT_EQ(run.size(), 3u);
    for (const std::string& name : forbidden) EXPECT_THAT(run, Each(Not(name)));
  };
  for (const DType dtype : {DType::f64, DType::f32, DType::bf16}) {
    for (const Math math : {Math::strict, Math::standard, Math::tf32}) {
      none_of(engines_of(dtype, math), {"nondeterministic", "half inputs", "too big"});
    }
    none_of(engines_of(dtype, Math::strict), {"winograd", "fft", "reduced sums"});
  }
  none_of(engines_of(DType::f32, Math::standard), {"tensor core", "reduced sums"});
  none_of(engines_of(DType::f32, Math::strict), {"tensor core"});
}

TEST_F(LibrariesTest, WhatFollowsAConvolutionIsFused) {
  for (const DType dtype : {DType::f64, DType::f32, DType::bf16}) {
    const Array bias(backend_, accumulation_type(dtype), {8}), residual(backend_, dtype, {2, 6, 6, 8});
    EXPECT_THAT(engines_of(dtype, Math::standard, {bias.view()}), testing::ElementsAre(EndsWith(" + 1")));
    EXPECT_THAT(engines_of(dtype, Math::standard, {bias.view(), {}, Activation::relu}),
                testing::ElementsAre(EndsWith(" + 2")));
    EXPECT_THAT(engines_of(dtype, Math::standard, {bias.view(), residual.view(), Activation::relu}),
                testing::ElementsAre(EndsWith(" + 3")));
    EXPECT_THAT(engines_of(dtype, Math::standard, {bias.view(), residual.view(), Activation::relu6}),
                testing::ElementsAre(Not(testing::HasSubstr(" + "))));
  }
}

TEST_F(LibrariesTest, AProductKeepsItsAlgorithmAndSumsInOneOrder) {
  const Array a(backend_, DType::f32, {4, 6}), b(backend_, DType::f32, {6, 5}), y(backend_, DType::f32, {4, 5});
  for (int i = 0; i < 3; ++i) backend_.matmul(a.view(), false, b.view(), false, {}, Math::standard, y.view(), {});
  EXPECT_THAT(take_algorithms_run(), testing::ElementsAre("split", "split", "split"));
  EXPECT_THAT(y.read(), Each(6.0f));
}

// One shape throughout, so that what is remembered of one product could be taken for another.
TEST_F(LibrariesTest, ProductsOfOneShapeAreToldApart) {
  for (int round = 0; round < 2; ++round) {
    for (const DType dtype : {DType::f64, DType::f32, DType::bf16}) {
      for (const Math math : {Math::strict, Math::standard, Math::tf32}) {
        for (const std::size_t shift : {0, 8}) {
          const Array a(backend_, dtype, {5, 5}, shift), b(backend_, dtype, {5, 5}), y(backend_, dtype, {5, 5}),
              bias(backend_, accumulation_type(dtype), {5}), plain(backend_, DType::f32, {5, 5});
          for (const bool biased : {false, true}) {
            backend_.matmul(a.view(), false, b.view(), true, biased ? bias.view() : View{}, math, y.view(), {});
            backend_.convert(y.view(), plain.view(), {});
            EXPECT_THAT(plain.read(), Each(biased ? 6.0f : 5.0f)) << name_of(dtype) << biased;
          }
        }
      }
    }
  }
}

TEST_F(LibrariesTest, NothingToAddUpIsZero) {
  const Array a(backend_, DType::f32, {4, 0}), b(backend_, DType::f32, {0, 5}), bias(backend_, DType::f32, {5}),
      y(backend_, DType::f32, {4, 5});
  backend_.matmul(a.view(), false, b.view(), false, {}, Math::standard, y.view(), {});
  EXPECT_THAT(y.read(), Each(0.0f));
  backend_.matmul(a.view(), false, b.view(), false, bias.view(), Math::standard, y.view(), {});
  EXPECT_THAT(y.read(), Each(1.0f));
  const Array nothing(backend_, DType::f32, {0, 4});
  backend_.matmul(nothing.view(), false, y.view(), false, {}, Math::standard, b.view(), {});
  const Array x(backend_, DType::f32, {0, 6, 6, 8}), dy(backend_, DType::f32, {0, 6, 6, 4}),
      dw(backend_, DType::f32, {4, 1, 1, 8});
  backend_.conv2d_backward_weights(x.view(), dy.view(), {}, dw.view(), {});
  EXPECT_THAT(dw.read(), Each(0.0f));
  backend_.conv2d(x.view(), dw.view(), {}, {}, dy.view(), {});
  EXPECT_THAT(take_engines_run(), testing::IsEmpty());
}

// Algorithms are kept by what all pointers have in common; the bias may be the one that is least aligned.
TEST_F(LibrariesTest, AProductsBiasMayLieAnywhere) {
  const Array a(backend_, DType::f32, {4, 6}, 4), b(backend_, DType::f32, {6, 5}), y(backend_, DType::f32, {4, 5});
  for (const std::size_t shift : {0, 4}) {
    const Array bias(backend_, DType::f32, {5}, shift);
    backend_.matmul(a.view(), false, b.view(), false, bias.view(), Math::standard, y.view(), {});
    EXPECT_THAT(y.read(), Each(7.0f));
    EXPECT_THAT(take_algorithms_run(), testing::ElementsAre("split + bias"));
  }
}

// After a call in which all pointers are aligned, each of them is less so in turn.
TEST_F(LibrariesTest, NoPointerIsTakenForBetterAlignedThanItIs) {
  ConvParams params;
  params.pad_h = params.pad_w = 1;
  for (int shifted = -1; shifted < 5; ++shifted) {
    SCOPED_TRACE(shifted);
    const auto shift = [shifted](int pointer) { return pointer == shifted ? std::size_t{4} : std::size_t{0}; };
    const Array x(backend_, DType::f32, {2, 6, 6, 8}, shift(0)), w(backend_, DType::f32, {8, 3, 3, 8}, shift(1)),
        y(backend_, DType::f32, {2, 6, 6, 8}, shift(2)), bias(backend_, DType::f32, {8}, shift(3)),
        residual(backend_, DType::f32, {2, 6, 6, 8}, shift(4));
    backend_.conv2d(x.view(), w.view(), {bias.view(), residual.view()}, params, y.view(), {});
    backend_.conv2d_backward_data(y.view(), w.view(), params, x.view(), {});
    backend_.conv2d_backward_weights(x.view(), y.view(), params, w.view(), {});
    EXPECT_THAT(take_engines_run(), testing::SizeIs(3));
    const Array a(backend_, DType::f32, {6, 8}, shift(0)), b(backend_, DType::f32, {8, 8}, shift(1)),
        product(backend_, DType::f32, {6, 8}, shift(2));
    backend_.matmul(a.view(), false, b.view(), false, bias.view(), Math::standard, product.view(), {});
    EXPECT_THAT(take_algorithms_run(), testing::ElementsAre(EndsWith(" + bias")));
  }
}

}  // namespace
}  // namespace retort::kernels
