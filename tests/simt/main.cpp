// The SIMT device stands in for "cuda:0" in this program. --lanes=ORDER runs everything in that order of lanes, but for
// the tests that choose theirs.
#include <gtest/gtest.h>
#include <omp.h>

#include <cstdio>
#include <string>

#include "tests/simt/backend.h"

namespace {

bool set_order_named(const std::string& name) {
  for (const retort::simt::LaneOrder order : retort::simt::kLaneOrders) {
    if (name != retort::simt::name_of(order)) continue;
    retort::simt::set_lane_order(order);
    return true;
  }
  return false;
}

}  // namespace

int main(int argc, char** argv) {
  testing::InitGoogleTest(&argc, argv);
  for (int i = 1; i < argc; ++i) {
    const std::string argument = argv[i], option = "--lanes=";
    if (argument.rfind(option, 0) == 0 && set_order_named(argument.substr(option.size()))) continue;
    std::fprintf(stderr, "retort_simt_tests: unknown argument %s\n", argv[i]);
    return 2;
  }
  omp_set_num_threads(1);  // the problems are tiny, and a team that waits for work takes more time than the work
  retort::kernels::set_cuda_provider(retort::simt::simt_provider());
  return RUN_ALL_TESTS();
}
