// The SIMT device stands in for "cuda:0" in this program.
#include <gtest/gtest.h>
#include <omp.h>

#include "tests/simt/backend.h"

int main(int argc, char** argv) {
  testing::InitGoogleTest(&argc, argv);
  omp_set_num_threads(1);  // the problems are tiny, and a team that waits for work takes more time than the work
  retort::kernels::set_cuda_provider(retort::simt::simt_provider());
  return RUN_ALL_TESTS();
}
