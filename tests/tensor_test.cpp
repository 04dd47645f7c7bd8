#include "engine/tensor.h"

#include <gtest/gtest.h>

namespace retort {
namespace {

TEST(Shape, PrintsAndCounts) {
  const Shape shape{2, 3, 4};
  EXPECT_EQ(shape.to_string(), "[2, 3, 4]");
  EXPECT_EQ(shape.numel(), 24);
  EXPECT_EQ(shape.rows(), 6);
  EXPECT_EQ(Shape{}.numel(), 1);
}

TEST(Tensor, UndefinedTensorIsAnError) {
  EXPECT_THROW(Tensor().shape(), Error);
}

}  // namespace
}  // namespace retort
