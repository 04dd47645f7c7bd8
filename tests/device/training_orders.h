// Tiny runs on the stand-in device in each of its orders, for comparison with one another and with the CPU.
#pragma once

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "engine/stream.h"
#include "tests/device/standin.h"
#include "tests/support/files.h"
#include "tests/support/program_test.h"
#include "tests/support/tiny_training.h"

namespace retort::standin {

inline const std::vector<std::string> kOrders = {"late", "others_first", "early", "seed:1", "seed:2"};

// What a run leaves: its log (times left out), its losses, and the files of all its learners.
struct TinyRun {
  std::vector<std::string> lines, files;
  std::vector<double> losses;  // of steps and epochs
};

class TrainingOrders : public testing::Test {
 protected:
  void SetUp() override { set_order("late"); }

  // `config` as TinyTraining takes it; `order` "" runs on the CPU. `students` are the folders of the learners.
  TinyRun run(const std::string& config, const std::string& order, const std::vector<std::string>& students = {""},
              DType dtype = DType::f32) {
    const Device device = order.empty() ? Device{} : Device{DeviceType::cuda, 0};
    const std::string name = std::to_string(++runs_);
    if (!order.empty()) set_order(order);
    TrainSummary summary;  // outlives the run's stream, as in the programs
    kernels::Backend& backend = kernels::backend(device);
    const Stream stream = backend.create_stream();
    TinyRun result;
    {
      const StreamGuard guard(device, stream);
      test::TinyTraining training(home_.path(), config, device);
      training.session.arithmetic.dtype = dtype;
      summary = training.run(name);
      for (const std::string& student : students) {
        const std::string folder = training.folder(name, student);
        for (const std::string& line : test::logged_lines(folder)) {
          result.lines.push_back(line);
          const auto object = nlohmann::json::parse(line);
          if (object.contains("loss")) result.losses.push_back(object["loss"]);
        }
        for (const char* file : {"/last.safetensors", "/best.safetensors"}) {
          result.files.push_back(test::read_file(folder + file));
        }
      }
    }
    backend.destroy_stream(stream);
    return result;
  }

  // Equal to the bit in every order, and near the CPU's: in f64, since training multiplies what f32 rounds.
  void expect_the_same_in_every_order(const std::string& config, double tolerance,
                                      const std::vector<std::string>& students = {""}) {
    const TinyRun cpu = run(config, "", students, DType::f64), device = run(config, "late", students, DType::f64);
    ASSERT_FALSE(cpu.losses.empty());
    ASSERT_EQ(device.losses.size(), cpu.losses.size());
    for (std::size_t i = 0; i < cpu.losses.size(); ++i) EXPECT_NEAR(device.losses[i], cpu.losses[i], tolerance) << i;
    const TinyRun first = run(config, kOrders[0], students);
    for (std::size_t i = 1; i < kOrders.size(); ++i) {
      const TinyRun other = run(config, kOrders[i], students);
      EXPECT_EQ(other.lines, first.lines) << kOrders[i];
      EXPECT_TRUE(other.files == first.files) << kOrders[i];
    }
  }

 private:
  test::TemporaryFolder home_;
  int runs_ = 0;
};

}  // namespace retort::standin
