// Training runs of a second's fraction inside the test's process: networks of 8x8 images in a session made by hand, so
// that a run can be cut at each of its steps, and its tensors touched.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "distill/distill_config.h"
#include "distill/trainer.h"

namespace retort::test {

// `images` random images of 7 classes, the last `validation` of them for validation; tested on all of them.
Session tiny_session(std::int64_t images, std::int64_t validation, Device device = {});

// What a cut leaves behind on purpose: neither a stop nor an error, as after SIGKILL.
struct Killed {};

class TinyTraining {
 public:
  // `config` in TOML; with [[teacher]] blocks a distillation, whose teachers' paths "teacher" and "second teacher" are
  // resnet8 made here.
  TinyTraining(const std::string& folder, const std::string& config, Device device = {},
               const std::string& precision = "f32");

  // From the beginning or resumed, in the folder `root`. Objects are made anew each time, as in a new process.
  TrainSummary run(const std::string& root, bool resume = false);
  // The folder of the run's first version, or of a student's in it.
  std::string folder(const std::string& root, const std::string& student = "") const;
  nlohmann::json info(const std::string& root) const;

  Session session;
  std::function<bool()> stop_requested;  // of TrainerOptions
  // In place of the config's objective, made of the network.
  std::function<std::unique_ptr<Objective>(const Model&)> objective;
  // The learners of the run in progress, for a hook to touch.
  std::vector<Learner>* learners = nullptr;

 private:
  std::string folder_, text_;
  bool distils_;
};

}  // namespace retort::test
