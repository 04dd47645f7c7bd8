// ./predict RUN|FILE images...: what a trained classifier says about image files.
#include <algorithm>

#include "distill/prediction.h"
#include "engine/atomic_file.h"
#include "tools/classifier_arguments.h"
#include "tools/program.h"

namespace {

constexpr const char* kFooter = R"(
Images are JPEG or PNG files, folders (with all below them, links followed; .jpg, .jpeg, .png) or quoted patterns such as
"photos/*.jpg". A network of up to 64x64 pixels gets them resized to exactly its size; a larger one of size S gets the
shorter side resized to S / 0.875 and the middle cut out: 256 and 224 for ImageNet. --resize N changes the first, --crop
the second, --resize WxH resizes exactly. Images that cannot be read or classified are named on stderr and left out; the
exit code is then 1.)";

struct Outputs {
  std::string csv, logits;
};

// On a terminal folded to its width.
void print(const std::string& line) {
  constexpr std::size_t kIndent = 4;
  retort::write_output(retort::folded(retort::printable(line), retort::output_width(), kIndent) + "\n");
}

int predict(const retort::Predictor& predictor, const std::vector<std::string>& images, const Outputs& outputs) {
  retort::PassedOver passed_over;
  const std::vector<std::string> files = retort::find_images(images, &passed_over);
  for (const std::string& note : passed_over.notes) retort::tools::complain("note: {}", note);
  for (const std::string& error : passed_over.errors) retort::tools::complain("error: {}", error);
  std::size_t longest = 0;
  for (const std::string& file : files) longest = std::max(longest, retort::display_width(retort::printable(file)));
  print(predictor.description());
  if (const std::string& note = predictor.classifier().note; !note.empty()) retort::tools::complain("note: {}", note);
  std::vector<std::string> read;
  std::vector<float> logits;
  std::string lines;
  std::size_t guesses = 1, broken = 0;
  predictor.run(
      files,
      [&](const retort::Prediction& prediction) {
        std::string line = retort::padded(retort::printable(prediction.file), longest);
        for (const retort::Guess& guess : prediction.best) {
          line += fmt::format("  {} {:.1f} %", predictor.class_name(guess.number), 100 * guess.probability);
        }
        print(line);
        guesses = prediction.best.size();
        if (!outputs.csv.empty()) lines += csv_line(prediction, predictor);
        if (outputs.logits.empty()) return;
        read.push_back(prediction.file);
        logits.insert(logits.end(), prediction.logits.begin(), prediction.logits.end());
      },
      [&](const std::string& error) {
        retort::tools::complain("error: {}", error);
        ++broken;
      });
  if (!outputs.csv.empty()) retort::write_file_atomically(outputs.csv, retort::csv_header(guesses) + lines);
  if (!outputs.logits.empty()) retort::write_logits(outputs.logits, logits, read, predictor);
  if (broken > 0) retort::tools::complain("error: {} of {} images could not be classified", broken, files.size());
  return broken == 0 && passed_over.errors.empty() ? 0 : 1;
}

int run(int argc, char** argv) {
  CLI::App app{"Classifies images.\n\n  ./predict runs/student photos/\n", "predict"};
  app.footer(kFooter);
  retort::PredictionRequest request;
  std::vector<std::string> images;
  Outputs outputs;
  app.add_option(
         "network", request.network.options.path,
         "A run (NAME: its newest version), a version (NAME/v1), a student (NAME/STUDENT), or a file of weights")
      ->required();
  app.add_option("images", images, "Image files, folders or quoted patterns")->required();
  app.add_option("--top", request.top, "How many classes are named for an image")
      ->check(CLI::Range(1, 100000))
      ->capture_default_str();
  app.add_option("--csv", outputs.csv, "Writes file, label, probability (and label_2, ... up to --top) to this file");
  app.add_option("--logits", outputs.logits, "Writes the logits of all images to this safetensors file");
  app.add_option("--resize", request.resize, "N: the shorter side; WxH: exactly");
  app.add_option("--crop", request.crop, "N or WxH: the middle that is cut out");
  retort::tools::add_device_options(app, request.device, request.precision);
  retort::tools::add_network_options(app, request.network);
  retort::tools::add_class_names_option(app, request.class_names_file);
  if (const auto ended = retort::tools::parse(app, argc, argv)) return *ended;
  return predict(retort::Predictor(request), images, outputs);
}

}  // namespace

int main(int argc, char** argv) {
  return retort::tools::guarded([&] { return run(argc, argv); });
}
