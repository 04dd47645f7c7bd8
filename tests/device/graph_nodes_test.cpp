// How much a recorded step consists of: nodes by kind, and bytes an image. Upper bounds, so that a pass or a copy that
// comes back is seen.
#include <gmock/gmock.h>

#include <iostream>
#include <regex>

#include "tests/device/training_orders.h"

namespace retort::standin {
namespace {

std::int64_t nodes(const GraphCounts& g) {
  return g.kernels + g.library_calls + g.copies + g.fills + g.allocations + g.frees;
}

void print(const char* what, const GraphCounts& g) {
  std::cout << what << ": " << nodes(g) << " nodes: " << g.kernels << " kernels, " << g.library_calls
            << " library calls, " << g.copies << " copies, " << g.fills << " fills, " << g.allocations
            << " allocations, " << g.frees << " frees\n";
}

void expect_no_memory_nodes(const GraphCounts& g) {
  EXPECT_EQ(g.allocations, 0);
  EXPECT_EQ(g.frees, 0);
}

class GraphNodes : public test::TinyRunTest {
 protected:
  // The first recording of a training of ResNet18 in bf16 on images of 32x32. Every block of the recording's memory is
  // an allocation of its own, or bytes would be counted to the end of a slab.
  GraphCounts recorded_step(int batch) {
    test::write_file(config(), test::kTinyConfig);
    const std::string root = "batch" + std::to_string(batch);
    const test::ProgramResult result =
        call("train",
             {config().string(), "--set", "device=cuda", "--set", "output.root=" + root, "--set", "model.arch=resnet18",
              "--set", "precision=bf16", "--set", "data.batch_size=" + std::to_string(batch), "--set",
              "data.validation=0", "--set", "train.max_steps=2", "--set", "train.evaluate_test=false"},
             [] {
               setenv("RETORT_STANDIN_STATS", "1", 1);
               setenv("RETORT_STANDIN_MULTIPROCESSORS", "132", 1);
               setenv("RETORT_CUDA_SLABS", "off", 1);
             });
    EXPECT_EQ(result.exit_code, 0) << result.out;
    const std::string& text = result.err;
    const std::regex line(
        "graph 1: (\\d+) kernels, (\\d+) library calls, (\\d+) copies, (\\d+) fills, (\\d+) allocations, (\\d+) frees; "
        "library calls and copies touch (\\d+) bytes, kernels at most (\\d+)");
    std::smatch match;
    EXPECT_TRUE(std::regex_search(text, match, line)) << text;
    if (match.empty()) return {};
    const auto number = [&](std::size_t i) { return std::stoll(match[i]); };
    return {number(1), number(2), number(3), number(4), number(5), number(6), number(7), number(8)};
  }
};

TEST_F(GraphNodes, AndBytesOfAStepOfResNet18AreFew) {
  const GraphCounts one = recorded_step(1), two = recorded_step(2);
  print("resnet18, bf16", two);
  for (const GraphCounts& g : {one, two}) {
    expect_no_memory_nodes(g);
    EXPECT_LE(g.kernels, 159);
    EXPECT_LE(g.library_calls, 85);  // 62, and some engines of the stand-in count twice
    EXPECT_EQ(g.copies + g.fills, 0);
    EXPECT_LT(nodes(g), 250);
  }
  // What kernels may touch at most: every array whose pointer they get, once. Libraries are left out, since what the
  // stand-in's engines do with their workspace is their own.
  const double per_image = static_cast<double>(two.kernel_bytes - one.kernel_bytes) / 1e6;
  std::cout << "kernels touch at most " << per_image << " MB an image\n";
  EXPECT_GT(per_image, 5);
  EXPECT_LT(per_image, 14);
}

class DistillationNodes : public TrainingOrders {};

TEST_F(DistillationNodes, AreFew) {
  run("[model]\narch = \"resnet18\"\n[train]\nepochs = 1\n[[teacher]]\npath = \"teacher\"\n"
      "[[loss]]\ntype = \"cross_entropy\"\n[[loss]]\ntype = \"soft_targets\"\n[[loss]]\ntype = \"fitnet\"\n",
      "late", {""}, "bf16");
  const GraphCounts g = last_graph();
  print("resnet18 with a resnet8 as teacher, bf16", g);
  expect_no_memory_nodes(g);
  EXPECT_GT(g.kernels, 100);
  EXPECT_LT(nodes(g), 330);
}

}  // namespace
}  // namespace retort::standin
