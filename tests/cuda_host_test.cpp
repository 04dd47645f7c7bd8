// What of the CUDA backend's host side is plain arithmetic or files: plan keys, layouts, remembered choices. Runs in
// every build; no CUDA is needed.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <filesystem>
#include <fstream>
#include <random>
#include <set>
#include <thread>

#include "kernels/choice_file.h"
#include "kernels/cuda/conv_key.h"
#include "kernels/cuda/gemm_layout.h"
#include "kernels/error.h"

namespace retort::kernels {
namespace {

// What a key is made of; all numbers apart where they could be exchanged.
struct Arguments {
  ConvDirection direction = ConvDirection::backward_data;
  DType dtype = DType::bf16;
  Shape x{8, 7, 6, 12}, w{16, 3, 2, 3}, y{8, 4, 5, 16};
  ConvParams params = [] {
    ConvParams p;
    p.stride_h = 2;
    p.stride_w = 1;
    p.pad_h = 1;
    p.pad_w = 0;
    p.groups = 4;
    p.math = Math::tf32;
    return p;
  }();
  ConvEpilogue epilogue{some(), {}, Activation::relu};
  std::int64_t alignment = 16;

  static ConstView some() {  // only that it is there matters
    static const float something = 0;
    return {&something, DType::f32, {16}};
  }
  ConvKey key() const { return make_conv_key(direction, dtype, x, w, y, params, epilogue, alignment); }
};

ConvKey example_key() {
  return Arguments{}.key();
}

// The keys of all arguments that differ from the example in one.
std::vector<ConvKey> neighbours() {
  std::vector<ConvKey> list;
  const auto with = [&](auto change) {
    Arguments other;
    change(other);
    list.push_back(other.key());
  };
  with([](Arguments& a) { a.direction = ConvDirection::forward; });
  with([](Arguments& a) { a.direction = ConvDirection::backward_weights; });
  with([](Arguments& a) { a.dtype = DType::f32; });
  with([](Arguments& a) { a.dtype = DType::f64; });
  with([](Arguments& a) { a.params.math = Math::strict; });
  with([](Arguments& a) { a.params.math = Math::standard; });
  with([](Arguments& a) { a.epilogue.bias = {}; });
  with([](Arguments& a) { a.epilogue.residual = Arguments::some(); });
  with([](Arguments& a) { a.epilogue.act = Activation::identity; });
  with([](Arguments& a) { a.epilogue.act = Activation::relu6; });
  with([](Arguments& a) { a.alignment = 8; });
  for (int axis = 0; axis < 4; ++axis) {
    with([&](Arguments& a) { ++a.x[axis]; });
    with([&](Arguments& a) { ++a.w[axis]; });
    with([&](Arguments& a) { ++a.y[axis]; });
  }
  for (int ConvParams::*const field :
       {&ConvParams::stride_h, &ConvParams::stride_w, &ConvParams::pad_h, &ConvParams::pad_w, &ConvParams::dilation_h,
        &ConvParams::dilation_w, &ConvParams::groups}) {
    with([&](Arguments& a) { a.params.*field += 2; });
  }
  list.push_back(example_key());  // what backward_data sets beside
  list.back().accumulate = true;
  return list;
}

TEST(ConvKeyTest, EqualKeysAreEqualInHashAndText) {
  EXPECT_EQ(example_key(), example_key());
  EXPECT_EQ(ConvKeyHash{}(example_key()), ConvKeyHash{}(example_key()));
  EXPECT_EQ(example_key().to_string(),
            "backward_data bf16 tf32 bias+relu a16 x8,7,6,12 w16,3,2,3 y8,4,5,16 s2,1 p1,0 g4");
}

TEST(ConvKeyTest, DilationIsPartOfTheKey) {
  ConvParams params;
  params.dilation_h = 2;
  params.dilation_w = 3;
  const ConvKey key =
      make_conv_key(ConvDirection::forward, DType::f32, {1, 9, 9, 4}, {4, 3, 3, 4}, {1, 5, 3, 4}, params, {}, 16);
  EXPECT_EQ(key.to_string(), "forward f32 standard plain a16 x1,9,9,4 w4,3,3,4 y1,5,3,4 s1,1 p0,0 g1 d2,3");
}

TEST(ConvKeyTest, EveryFieldCounts) {
  const ConvKey key = example_key();
  std::set<std::string> texts{key.to_string()};
  std::set<std::size_t> hashes{ConvKeyHash{}(key)};
  const auto others = neighbours();
  for (const ConvKey& other : others) {
    EXPECT_NE(key, other) << other.to_string();
    texts.insert(other.to_string());
    hashes.insert(ConvKeyHash{}(other));
  }
  EXPECT_EQ(texts.size(), others.size() + 1);
  EXPECT_EQ(hashes.size(), others.size() + 1);
}

TEST(ConvKeyTest, AlignmentIsTheLargestCommonPowerOfTwoUpTo16) {
  const auto at = [](std::uintptr_t address) { return reinterpret_cast<const void*>(address); };
  EXPECT_EQ(common_alignment({at(0x1000), at(0x20), nullptr}), 16);
  EXPECT_EQ(common_alignment({at(0x1000), at(0x28)}), 8);
  EXPECT_EQ(common_alignment({at(0x1004), at(0x28)}), 4);
  EXPECT_EQ(common_alignment({at(0x1004), at(0x2e)}), 2);
  EXPECT_EQ(common_alignment({at(0x1001)}), 1);
}

TEST(ConvKeyTest, StridesFindTheElementThatTheInterfaceMeans) {
  const std::array<std::int64_t, 4> shape{2, 3, 4, 5};  // N, H, W, C in memory
  const CudnnLayout layout = channels_last(shape);
  EXPECT_THAT(layout.extents, testing::ElementsAre(2, 5, 3, 4));  // as cuDNN names them: N, C, H, W
  std::int64_t position = 0;
  for (std::int64_t n = 0; n < 2; ++n) {
    for (std::int64_t h = 0; h < 3; ++h) {
      for (std::int64_t w = 0; w < 4; ++w) {
        for (std::int64_t c = 0; c < 5; ++c) {
          const auto& s = layout.strides;
          EXPECT_EQ(n * s[0] + c * s[1] + h * s[2] + w * s[3], position++);
        }
      }
    }
  }
}

// y = op(a) op(b) computed as cuBLAS would: everything column-major.
std::vector<double> column_major(const ColumnMajorProduct& p, const std::vector<double>& first,
                                 const std::vector<double>& second) {
  std::vector<double> result(static_cast<std::size_t>(p.ld_result * p.n));
  const auto element = [](const std::vector<double>& matrix, std::int64_t row, std::int64_t column, std::int64_t ld) {
    return matrix[static_cast<std::size_t>(column * ld + row)];
  };
  for (std::int64_t i = 0; i < p.m; ++i) {
    for (std::int64_t j = 0; j < p.n; ++j) {
      double sum = 0;
      for (std::int64_t l = 0; l < p.k; ++l) {
        sum += (p.transpose_first ? element(first, l, i, p.ld_first) : element(first, i, l, p.ld_first)) *
               (p.transpose_second ? element(second, j, l, p.ld_second) : element(second, l, j, p.ld_second));
      }
      result[static_cast<std::size_t>(j * p.ld_result + i)] = sum;
    }
  }
  return result;
}

TEST(GemmLayoutTest, ColumnMajorProductsGiveRowMajorResults) {
  constexpr std::int64_t kM = 3, kN = 4, kK = 5;
  std::mt19937 generator(7);
  std::uniform_int_distribution<int> digit(-9, 9);
  for (const bool transpose_a : {false, true}) {
    for (const bool transpose_b : {false, true}) {
      const Shape a_shape = transpose_a ? Shape{kK, kM} : Shape{kM, kK};
      const Shape b_shape = transpose_b ? Shape{kN, kK} : Shape{kK, kN};
      std::vector<double> a(kM * kK), b(kK * kN), expected(kM * kN);
      for (double& value : a) value = digit(generator);
      for (double& value : b) value = digit(generator);
      for (std::int64_t i = 0; i < kM; ++i) {
        for (std::int64_t j = 0; j < kN; ++j) {
          for (std::int64_t l = 0; l < kK; ++l) {
            expected[static_cast<std::size_t>(i * kN + j)] +=
                a[static_cast<std::size_t>(transpose_a ? l * kM + i : i * kK + l)] *
                b[static_cast<std::size_t>(transpose_b ? j * kK + l : l * kN + j)];
          }
        }
      }
      const ColumnMajorProduct p = column_major_product(a_shape, transpose_a, b_shape, transpose_b, {kM, kN});
      EXPECT_EQ(column_major(p, b, a), expected) << transpose_a << transpose_b;
      EXPECT_EQ(p.first_rows() * p.first_columns(), kK * kN);
      EXPECT_LE(p.first_rows(), p.ld_first);
      EXPECT_LE(p.second_rows(), p.ld_second);
    }
  }
}

class ChoiceFileTest : public testing::Test {
 protected:
  void SetUp() override {
    path_ =
        std::filesystem::path(testing::TempDir()) /
        fmt::format("retort_choices_{}_{}", getpid(), testing::UnitTest::GetInstance()->current_test_info()->name());
    std::filesystem::remove(path_);
  }
  void TearDown() override { std::filesystem::remove(path_); }

  std::filesystem::path path_;
};

TEST_F(ChoiceFileTest, RemembersPerContextAndKey) {
  const ChoiceFile file(path_, "device one");
  EXPECT_EQ(file.find("conv a"), std::nullopt);
  EXPECT_EQ(file.record("conv a", "engine 3"), "engine 3");
  EXPECT_EQ(ChoiceFile(path_, "device one").find("conv a"), "engine 3");
  EXPECT_EQ(ChoiceFile(path_, "device one").find("conv"), std::nullopt);
  EXPECT_EQ(ChoiceFile(path_, "device two").find("conv a"), std::nullopt);
}

TEST_F(ChoiceFileTest, TheFirstChoiceStays) {
  ChoiceFile(path_, "device").record("conv", "engine 1");
  EXPECT_EQ(ChoiceFile(path_, "device").record("conv", "engine 2"), "engine 1");
  EXPECT_EQ(ChoiceFile(path_, "device").find("conv"), "engine 1");
}

TEST_F(ChoiceFileTest, ALineThatACrashCutOffIsNoChoice) {
  std::ofstream(path_) << "device\tother\tengine 5\ndevice\tconv\tengine 1";
  const ChoiceFile file(path_, "device");
  EXPECT_EQ(file.find("conv"), std::nullopt);
  EXPECT_EQ(file.record("conv", "engine 2"), "engine 2");
  EXPECT_EQ(file.find("conv"), "engine 2");
  EXPECT_EQ(file.find("other"), "engine 5");
}

TEST_F(ChoiceFileTest, WritersAgree) {
  std::vector<std::string> answers(8);
  std::vector<std::thread> writers;
  for (std::size_t i = 0; i < answers.size(); ++i) {
    writers.emplace_back(
        [&, i] { answers[i] = ChoiceFile(path_, "device").record("conv", fmt::format("engine {}", i)); });
  }
  for (std::thread& writer : writers) writer.join();
  EXPECT_THAT(answers, testing::Each(answers.front()));
}

TEST_F(ChoiceFileTest, WithoutAPathNothingIsRemembered) {
  const ChoiceFile file("", "device");
  EXPECT_FALSE(file.enabled());
  EXPECT_EQ(file.record("conv", "engine 1"), "engine 1");
  EXPECT_EQ(file.find("conv"), std::nullopt);
}

TEST_F(ChoiceFileTest, AFileThatCannotBeWrittenIsNamed) {
  const ChoiceFile file("/nonexistent/choices", "device");
  EXPECT_EQ(file.find("conv"), std::nullopt);
  try {
    file.record("conv", "engine 1");
    FAIL() << "no Error";
  } catch (const Error& error) {
    EXPECT_THAT(error.what(), testing::StartsWith("/nonexistent/choices: "));
  }
}

}  // namespace
}  // namespace retort::kernels
