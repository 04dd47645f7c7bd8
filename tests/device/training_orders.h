// Tiny runs on the stand-in device in each of its orders, for comparison with one another and with the CPU.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "tests/device/standin.h"
#include "tests/support/files.h"
#include "tests/support/program_test.h"
#include "tests/support/tiny_training.h"

namespace retort::standin {

inline const std::vector<std::string> kOrders = {"late", "others_first", "early", "seed:1", "seed:2"};
inline const Device kStandin = {DeviceType::cuda, 0};

// On a stream of its own, as in the programs.
inline TrainSummary run_on_stream(test::TinyTraining& training, const std::string& root, bool resume = false) {
  TrainSummary summary;  // outlives the run's stream
  const RunStream stream(training.session.device);
  summary = training.run(root, resume);
  return summary;
}

// What a run leaves: its log (times left out), what it measured, and the files of all its learners.
struct TinyRun {
  std::vector<std::string> lines, files;
  std::vector<double> figures;  // losses, their terms and the norms of their gradients
};

inline void gather_figures(const nlohmann::json& object, std::vector<double>& figures) {
  for (const auto& [key, value] : object.items()) {
    if (value.is_object() && key != "weights") gather_figures(value, figures);
    if (value.is_number_float() && key != "top1" && key != "top5" && key != "lr") figures.push_back(value);
  }
}

class TrainingOrders : public testing::Test {
 protected:
  void SetUp() override { set_order("late"); }

  // `config` as TinyTraining takes it; `order` "" runs on the CPU. `students` are the folders of the learners.
  TinyRun run(const std::string& config, const std::string& order, const std::vector<std::string>& students = {""},
              const std::string& precision = "f32") {
    const std::string name = std::to_string(++runs_);
    if (!order.empty()) set_order(order);
    test::TinyTraining training(home_.path(), config, order.empty() ? Device{} : kStandin, precision);
    EXPECT_TRUE(run_on_stream(training, name).finished);
    return result_of(training, name, students);
  }

  static TinyRun result_of(const test::TinyTraining& training, const std::string& root,
                           const std::vector<std::string>& students) {
    TinyRun result;
    for (const std::string& student : students) {
      const std::string folder = training.folder(root, student);
      for (const std::string& line : test::logged_lines(folder)) {
        result.lines.push_back(line);
        gather_figures(nlohmann::json::parse(line), result.figures);
      }
      for (const char* file : {"/last.safetensors", "/best.safetensors"}) {
        result.files.push_back(test::read_file(folder + file));
        EXPECT_FALSE(result.files.back().empty()) << folder << file;
      }
    }
    return result;
  }

  // Relative to the figure where that is above 1.
  static void expect_near(const TinyRun& actual, const TinyRun& expected, double bound) {
    ASSERT_FALSE(expected.figures.empty());
    ASSERT_EQ(actual.figures.size(), expected.figures.size());
    for (std::size_t i = 0; i < expected.figures.size(); ++i) {
      const double figure = expected.figures[i];
      EXPECT_NEAR(actual.figures[i], figure, bound * std::max(1.0, std::abs(figure))) << i;
    }
  }

  // Equal to the bit in every order.
  TinyRun expect_the_same_bits(const std::string& config, const std::vector<std::string>& students,
                               const std::string& precision) {
    TinyRun first = run(config, kOrders[0], students, precision);
    for (std::size_t i = 1; i < kOrders.size(); ++i) {
      const TinyRun other = run(config, kOrders[i], students, precision);
      EXPECT_EQ(other.lines, first.lines) << kOrders[i];
      EXPECT_TRUE(other.files == first.files) << kOrders[i];
    }
    return first;
  }

  // And near the CPU's: in f64, since training multiplies what f32 rounds.
  void expect_the_same_in_every_order(const std::string& config, const std::vector<std::string>& students = {""}) {
    expect_near(run(config, "late", students, "f64"), run(config, "", students, "f64"), 1e-9);
    expect_the_same_bits(config, students, "f32");
  }

  test::TemporaryFolder home_;

 private:
  int runs_ = 0;
};

}  // namespace retort::standin
