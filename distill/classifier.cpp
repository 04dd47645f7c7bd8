#include "distill/classifier.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "data/dataset.h"
#include "distill/checkpoint_path.h"
#include "distill/foreign_words.h"
#include "engine/file_kind.h"
#include "engine/suggest.h"
#include "engine/version.h"
#include "engine/weight_names.h"
#include "models/onnx_model.h"

namespace retort {
namespace {

namespace fs = std::filesystem;

constexpr std::int64_t kLargestInput = 16384;  // pixels a side
constexpr std::int64_t kMostClasses = 1'000'000;
constexpr std::string_view kLastLayer = "fc.weight";

// The rows of the last linear layer, or 0 where no array goes by one of its names. Of several that one counts which
// takes as many features as `network` has.
std::int64_t classes_in(const WeightFile& file, const Model& network) {
  const auto is_last = [](const std::string& name) { return name == kLastLayer; };
  std::int64_t features = 0, rows = 0;
  for (const WantedArray& wanted : network.parameters().wanted()) {
    if (is_last(wanted.name)) features = wanted.shape.at(1);
  }
  for (const NamedArray& array : file.arrays) {
    if (array.shape.size() != 2 || our_name(array.name, is_last).empty()) continue;
    if (rows == 0 || array.shape[1] == features) rows = array.shape[0];
  }
  return rows;
}

// Where only the last layer is missing, the number of classes is the trouble; else it is the network.
void check_body_fits(const WeightFile& file, const Model& network) {
  const std::vector<WantedArray> wanted = network.parameters().wanted();
  const ArrayMatch match = match_arrays(file, wanted, {"fc."});
  check(match.missing.empty() && match.unexpected.empty(), "{}: does not fit {}{}", file.path, network.spec().arch,
        misfit_text(file, wanted, match));
}

std::int64_t class_count(const ClassifierOptions& options, const WeightFile& file, const Model& network) {
  const std::string recorded = file.metadata_or("classes", "");
  const std::int64_t found = classes_in(file, network);
  if (options.classes > 0) {
    const std::string theirs = recorded.empty() && found > 0 ? std::to_string(found) : recorded;
    check(theirs.empty() || theirs == std::to_string(options.classes),
          "{}: the teacher {} tells {} classes apart, the student {}; they must be the same", options.where, file.path,
          theirs, options.classes);
    return options.classes;
  }
  std::int64_t said = 0;
  const char* const end = recorded.data() + recorded.size();
  const auto parsed = std::from_chars(recorded.data(), end, said);
  const bool known = parsed.ec == std::errc() && parsed.ptr == end && said > 0;
  if (!known && found == 0) check_body_fits(file, network);
  check(known || found > 0,
        "{}: does not say how many classes it tells apart, and has no fc.weight or linear.weight to tell", file.path);
  // Before memory is taken for them.
  check(!known || (found > 0 ? said == found : said <= kMostClasses),
        "{}: its metadata speak of {} classes, its weights of {}", file.path, said, found);
  return known ? said : found;
}

bool has_wide_stem(const WeightFile& file) {
  const auto is_first = [](const std::string& name) { return name == "conv1.weight"; };
  return std::any_of(file.arrays.begin(), file.arrays.end(), [&](const NamedArray& array) {
    return array.shape.size() == 4 && array.shape[2] == 7 && !our_name(array.name, is_first).empty();
  });
}

// What the network is but for its classes. What the caller says counts before what the file says.
ModelSpec spec_of(const ClassifierOptions& options, WeightFile& file) {
  const std::string word = file.metadata_or("arch", "");
  pass_over_foreign_words(file, options.arch, options.stem, options.shortcut);
  const auto known = [&](const char* key, const std::string& given, const std::string& fallback) {
    return !given.empty() ? given : file.metadata_or(key, fallback);
  };
  ModelSpec spec;
  spec.classes = 1;
  spec.arch = known("arch", options.arch, "");
  check(!spec.arch.empty(), "{}{}{} does not say its architecture{}; {}", options.where,
        options.where.empty() ? "" : ": ", file.path,
        word.empty() ? "" : fmt::format(" in our words, only {}", in_quotes(word)), options.arch_hint);
  spec.stem = known("stem", options.stem, has_wide_stem(file) ? "imagenet" : spec.stem);
  spec.shortcut = known("shortcut", options.shortcut, spec.shortcut);
  return spec;
}

// All the numbers that a text holds, or none where it is not `count` numbers.
std::vector<double> numbers(const std::string& text, std::size_t count) {
  std::istringstream in(text);
  std::vector<double> values;
  for (double v = 0; in >> v;) values.push_back(v);
  return in.eof() && values.size() == count ? values : std::vector<double>();
}

std::optional<Normalization> normalization_in(const Classifier& classifier) {
  const std::vector<double> mean = numbers(classifier.metadata_or("normalize_mean", ""), 3);
  const std::vector<double> deviation = numbers(classifier.metadata_or("normalize_std", ""), 3);
  const auto usable = [](double v) { return std::isfinite(v) && v > 0; };
  if (mean.empty() || deviation.empty() || !std::all_of(deviation.begin(), deviation.end(), usable))
    return std::nullopt;
  Normalization normalization;
  std::copy_n(mean.begin(), 3, normalization.mean);
  std::copy_n(deviation.begin(), 3, normalization.std);
  return normalization;
}

void read_metadata(Classifier& classifier) {
  classifier.normalization = normalization_in(classifier);
  const std::vector<double> size = numbers(classifier.metadata_or("input_size", ""), 2);
  const auto usable = [](double v) { return v >= 1 && v <= kLargestInput && v == std::floor(v); };
  const bool known = classifier.height > 0 && classifier.width > 0;
  if (!known && !size.empty() && usable(size[0]) && usable(size[1])) {
    classifier.height = static_cast<std::int64_t>(size[0]);
    classifier.width = static_cast<std::int64_t>(size[1]);
  }
  std::istringstream names(classifier.metadata_or("class_names", ""));
  classifier.class_names = class_names_in(names);
  const std::int64_t classes = classifier.model->spec().classes, known_names = std::ssize(classifier.class_names);
  if (known_names == 0 || known_names > classes) return classifier.class_names.clear();
  // A network may have more outputs than its data set has classes ([model] classes).
  classifier.class_names = named_classes(std::move(classifier.class_names), classes);
}

// A network of one of our architectures with the weights of a file.
Classifier from_weights(const std::string& path, const ClassifierOptions& options) {
  if (!options.arch.empty()) make_model({.arch = options.arch});  // an unknown one is said first
  WeightFile file = read_weight_file(path);
  ModelSpec spec = spec_of(options, file);
  const std::unique_ptr<Model> outline = make_model(spec);
  const std::int64_t classes = classes_in(file, *outline);
  if (classes > 0) pass_over_foreign_classes(file, classes);
  spec.classes = class_count(options, file, *outline);
  Classifier classifier;
  classifier.file = path;
  classifier.metadata = file.metadata;
  classifier.model = make_model(spec);
  Model& model = *classifier.model;
  model.parameters().freeze([](const Parameter&) { return true; });
  model.parameters().materialize(options.device, options.dtype, 0);
  LoadOptions load;
  load.arch = model.spec().arch;
  load.classes = static_cast<int>(model.spec().classes);
  classifier.note = model.parameters().load(file, load).note;
  if (options.fold) model.fold();
  return classifier;
}

Classifier from_onnx(const std::string& path, const ClassifierOptions& options) {
  std::unique_ptr<OnnxModel> model = read_onnx_model(path, {options.device, options.dtype, options.fold});
  check(options.classes == 0 || model->spec().classes == options.classes,
        "{}: the teacher {} tells {} classes apart, the student {}; they must be the same", options.where, path,
        model->spec().classes, options.classes);
  Classifier classifier;
  classifier.file = path;
  classifier.metadata = model->metadata();
  classifier.height = model->height();
  classifier.width = model->width();
  classifier.note = model->note();
  classifier.model = std::move(model);
  return classifier;
}

}  // namespace

std::string Classifier::metadata_or(const std::string& key, const std::string& fallback) const {
  const auto it = metadata.find(key);
  return it == metadata.end() ? fallback : it->second;
}

std::string Classifier::class_name(std::int64_t number) const {
  return class_names.empty() ? std::to_string(number) : class_names.at(static_cast<std::size_t>(number));
}

Classifier load_classifier(const ClassifierOptions& options) {
  // Each format that holds a classifier has its line here.
  const std::string path = resolve_checkpoint(options.path);
  Classifier classifier = is_onnx_file(path) ? from_onnx(path, options) : from_weights(path, options);
  read_metadata(classifier);
  return classifier;
}

std::map<std::string, std::string> network_metadata(const ModelSpec& spec, const std::vector<std::string>& class_names,
                                                    const std::optional<Normalization>& normalization,
                                                    std::int64_t height, std::int64_t width) {
  std::map<std::string, std::string> metadata{{"arch", spec.arch},
                                              {"classes", std::to_string(spec.classes)},
                                              {"stem", spec.stem},
                                              {"shortcut", spec.shortcut},
                                              {"retort", version()}};
  if (height > 0) metadata["input_size"] = fmt::format("{} {}", height, width);
  if (!class_names.empty()) metadata["class_names"] = fmt::format("{}", fmt::join(class_names, "\n"));
  if (normalization) {
    metadata["normalize_mean"] = fmt::format("{}", fmt::join(normalization->mean, " "));
    metadata["normalize_std"] = fmt::format("{}", fmt::join(normalization->std, " "));
  }
  return metadata;
}

std::vector<std::string> named_classes(std::vector<std::string> names, std::int64_t classes) {
  for (auto k = std::ssize(names); k < classes; ++k) names.push_back(std::to_string(k));
  return names;
}

std::vector<std::string> read_class_names(const std::string& path, std::int64_t classes) {
  std::ifstream in(path);
  check(in.is_open() && !fs::is_directory(path), "{}: cannot be read; expected a text file of one class name a line",
        path);
  std::stringstream text;
  text << in.rdbuf();
  const std::string_view bytes = text.view();
  check(!bytes.starts_with("\xff\xfe") && !bytes.starts_with("\xfe\xff") && bytes.find('\0') == bytes.npos,
        "{}: is UTF-16 (or no text: it holds its byte order mark or zero bytes); save it as UTF-8", path);
  std::vector<std::string> names = class_names_in(text);
  check(static_cast<std::int64_t>(names.size()) == classes, "{}: {} class names, the network tells {} classes apart",
        path, names.size(), classes);
  return names;
}

}  // namespace retort
