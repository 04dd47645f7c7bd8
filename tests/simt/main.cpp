// The SIMT device stands in for "cuda:0" in this program.
#include <gtest/gtest.h>

#include "tests/simt/backend.h"

int main(int argc, char** argv) {
  testing::InitGoogleTest(&argc, argv);
  retort::kernels::set_cuda_provider(retort::simt::simt_provider());
  return RUN_ALL_TESTS();
}
