// How ./evaluate, ./predict and ./export are told which network to load.
#pragma once

#include <CLI/CLI.hpp>
#include <string>

#include "data/augment_config.h"
#include "distill/evaluation.h"
#include "models/model.h"

namespace retort::tools {

// The group of options for what a file of weights may leave out.
inline const std::string kUnsaid = "For files that do not say it themselves";

inline void add_class_names_option(CLI::App& app, std::string& file) {
  app.add_option("--classes", file, "A text file of class names, one a line")->group(kUnsaid);
}

// Options --arch, --stem, --shortcut and --normalize for files that do not say it themselves; with a prefix,
// --<prefix>-arch and so on.
inline void add_network_options(CLI::App& app, NetworkChoice& choice, const std::string& prefix = "") {
  const std::string dashes = prefix.empty() ? "--" : "--" + prefix + "-";
  const std::string group = prefix.empty() ? kUnsaid : "For a file of the " + prefix + " that does not say it itself";
  app.add_option(dashes + "arch", choice.options.arch, "Architecture: resnet18, resnet20, ...")->group(group);
  app.add_option(dashes + "stem", choice.options.stem, "cifar (the default) or imagenet")
      ->check(CLI::IsMember({"cifar", "imagenet"}))
      ->group(group);
  app.add_option(dashes + "shortcut", choice.options.shortcut, "projection (the default) or pad")
      ->check(CLI::IsMember({"projection", "pad"}))
      ->group(group);
  app.add_option(dashes + "normalize", choice.normalize, "How images are normalised")
      ->check(CLI::IsMember(normalization_names()))
      ->group(group);
  choice.options.arch_hint = "give " + dashes + "arch";
}

inline void add_device_options(CLI::App& app, std::string& device, std::string& precision) {
  app.add_option("--device", device, "auto, cpu, cuda or cuda:N")->capture_default_str();
  app.add_option("--precision", precision, "f32, tf32, bf16 or f64")
      ->check(CLI::IsMember({"f32", "tf32", "bf16", "f64"}))
      ->capture_default_str();
}

}  // namespace retort::tools
