// Weights of others where weights of ours may stand: as a classifier, as [model] init, as a teacher to copy from.
#include "tests/support/foreign_weights.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <filesystem>
#include <limits>

#include "distill/checkpoint_path.h"
#include "distill/classifier.h"
#include "distill/copy_weights.h"
#include "distill/session.h"
#include "engine/safetensors.h"
#include "tests/support/program_test.h"
#include "tests/support/torch_writer.h"

namespace retort {
namespace {

namespace fs = std::filesystem;
using test::error_of;
using test::renamed;
using test::some_network;
using test::TemporaryFolder;
using test::write_foreign;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::StartsWith;

using Arrays = std::vector<NamedArray>;
using Metadata = std::map<std::string, std::string>;

// As Lightning, torch.compile and a loss with class weights leave them, in kuangliu's names.
std::string theirs(const std::string& name) {
  std::string out = name.starts_with("fc.") ? "linear." + name.substr(3) : name;
  if (const std::size_t at = out.find("downsample"); at != std::string::npos) out.replace(at, 10, "shortcut");
  return "model._orig_mod." + out;
}

Arrays their_arrays(const Model& model) {
  Arrays arrays = renamed(model.parameters().to_arrays(), theirs);
  arrays.push_back(float_array("criterion.weight", {3}, {1, 1, 1}));
  return arrays;
}

NamedArray& find(Arrays& arrays, const std::string& name) {
  for (NamedArray& array : arrays) {
    if (array.name == name) return array;
  }
  throw std::logic_error(name);
}

void write_torch(const std::string& path, const Arrays& arrays) {
  test::Pickle pickle;
  test::Storages storages;
  pickle.code("}(");
  for (const NamedArray& array : arrays) {
    std::vector<std::int32_t> shape(array.shape.begin(), array.shape.end()), strides(shape.size(), 1);
    for (std::size_t d = shape.size(); d-- > 1;) strides[d - 1] = strides[d] * shape[d];
    const std::string key = std::to_string(storages.size());
    const char* const type = array.dtype == FileType::i64 ? "LongStorage" : "FloatStorage";
    pickle.tensor(array.name, type, key, static_cast<std::int32_t>(array.numel()), 0, shape, strides);
    storages.emplace_back(key, std::string(reinterpret_cast<const char*>(array.bytes.data()), array.bytes.size()));
  }
  test::write_new(path, pickle.code("u").done(), storages);
}

Classifier load(const std::string& path, const std::string& arch = "resnet8", std::int64_t classes = 0) {
  ClassifierOptions options;
  options.path = path;
  options.arch = arch;
  options.classes = classes;
  options.fold = false;
  options.arch_hint = "give --arch";
  return load_classifier(options);
}

void expect_same(const Model& a, const Model& b) {
  EXPECT_EQ(a.parameters().values().to_host<float>(), b.parameters().values().to_host<float>());
}

TEST(ForeignWeights, AreReadAlikeEverywhereAndFromEveryFormat) {
  const TemporaryFolder folder;
  const auto model = some_network("resnet8");
  const Arrays arrays = their_arrays(*model);
  write_foreign(folder / "w.safetensors", arrays);
  write_torch(folder / "w.pth", arrays);
  for (const char* name : {"w.safetensors", "w.pth"}) {
    const Classifier classifier = load(folder / name);
    expect_same(*classifier.model, *model);
    EXPECT_EQ(classifier.model->spec().classes, 3);
    EXPECT_THAT(classifier.note, AllOf(HasSubstr("criterion.weight"), HasSubstr("passed over")));
    const auto begun = some_network("resnet8", 3, 1);
    EXPECT_THAT(load_weights(*begun, folder / name), HasSubstr("criterion.weight"));
    expect_same(*begun, *model);
    const auto copied = some_network("resnet8", 3, 1);
    copy_weights(*copied, folder / name, {});
    expect_same(*copied, *model);
  }
}

TEST(ForeignWeights, BlocksOfATeacherInOthersNamesCanBeDropped) {
  const TemporaryFolder folder;
  const auto teacher = some_network("resnet14"), student = some_network("resnet8", 3, 1);
  write_foreign(folder / "w", their_arrays(*teacher));
  const std::string report = copy_weights(*student, folder / "w", {"layer1.0", "layer2.1", "layer3.1"});
  const WeightFile from{"", {}, teacher->parameters().to_arrays()};
  const WeightFile to{"", {}, student->parameters().to_arrays()};
  EXPECT_TRUE(to.find("layer1.0.conv1.weight")->bytes == from.find("layer1.1.conv1.weight")->bytes);
  EXPECT_TRUE(to.find("layer2.0.downsample.0.weight")->bytes == from.find("layer2.0.downsample.0.weight")->bytes);
  EXPECT_TRUE(to.find("fc.weight")->bytes == from.find("fc.weight")->bytes);
  EXPECT_THAT(report, AllOf(StartsWith("56 of the student's 56 arrays"), Not(HasSubstr("; not"))));
  const auto wide = some_network("resnet8", 5, 1);
  EXPECT_THAT(copy_weights(*wide, folder / "w", {}), HasSubstr("; not fc.weight, fc.bias"));
}

TEST(ForeignWeights, CountersMayBeOfAnyTypeAndShape) {
  const TemporaryFolder folder;
  const auto model = some_network("resnet8");
  Arrays arrays = model->parameters().to_arrays();
  const float seven = 7;
  NamedArray& as_float = find(arrays, "bn1.num_batches_tracked");
  as_float = float_array(as_float.name, {1}, {seven});
  NamedArray& several = find(arrays, "layer1.0.bn1.num_batches_tracked");
  several = float_array(several.name, {2}, {1, 2});
  NamedArray& nan = find(arrays, "layer1.0.bn2.num_batches_tracked");
  nan = float_array(nan.name, {}, {std::numeric_limits<float>::quiet_NaN()});
  find(arrays, "layer2.0.bn1.num_batches_tracked").shape = {1, 1};
  std::erase_if(arrays, [](const NamedArray& a) { return a.name == "layer2.0.bn2.num_batches_tracked"; });
  write_foreign(folder / "w", arrays);
  const Classifier classifier = load(folder / "w");
  expect_same(*classifier.model, *model);
  EXPECT_EQ(classifier.note, "");
  for (const auto& buffer : classifier.model->parameters().buffers()) {
    if (buffer->name == "bn1.num_batches_tracked") {
      EXPECT_EQ(buffer->value.item(), 7);
    }
  }
}

TEST(ForeignWeights, AnArrayThatIsNotFiniteIsNamedWithItsFile) {
  const TemporaryFolder folder;
  const auto model = some_network("resnet8");
  for (const float bad : {std::numeric_limits<float>::quiet_NaN(), -std::numeric_limits<float>::infinity()}) {
    for (const char* name : {"layer3.0.conv2.weight", "fc.bias", "bn1.running_var"}) {
      Arrays arrays = their_arrays(*model);
      std::memcpy(find(arrays, theirs(name)).bytes.data() + 4, &bad, sizeof bad);
      write_foreign(folder / "w.safetensors", arrays);
      write_torch(folder / "w.pth", arrays);
      for (const char* file : {"w.safetensors", "w.pth"}) {
        const auto said = AllOf(StartsWith(folder / file), HasSubstr(theirs(name)), HasSubstr("NaN or infinity"));
        const auto net = some_network("resnet8", 3, 1);
        EXPECT_THAT(error_of([&] { load(folder / file); }), said);
        EXPECT_THAT(error_of([&] { load_weights(*net, folder / file); }), said);
        expect_same(*net, *some_network("resnet8", 3, 1));
      }
    }
  }
  // What is skipped may hold anything.
  Arrays arrays = model->parameters().to_arrays();
  const float nan = std::numeric_limits<float>::quiet_NaN();
  std::memcpy(find(arrays, "fc.bias").bytes.data(), &nan, sizeof nan);
  write_foreign(folder / "w", arrays);
  load_weights(*some_network("resnet8"), folder / "w", {"fc."});
}

TEST(ForeignWeights, WordsOfOthersDoNotCount) {
  const TemporaryFolder folder;
  const auto model = some_network("resnet8");
  const Metadata theirs{{"arch", "ResNet"}, {"classes", "twenty"}, {"stem", "deep"},
                        {"shortcut", "B"},  {"format", "pt"},      {"validation_top1", "93.1"}};
  write_foreign(folder / "w", model->parameters().to_arrays(), theirs);
  const Classifier classifier = load(folder / "w");
  expect_same(*classifier.model, *model);
  for (const char* word : {"ResNet", "twenty", "deep", "\"B\""}) EXPECT_THAT(classifier.note, HasSubstr(word));
  EXPECT_EQ(classifier.metadata_or("arch", ""), "");
  EXPECT_THAT(error_of([&] { load(folder / "w", ""); }),
              AllOf(HasSubstr("does not say its architecture"), HasSubstr("\"ResNet\""), HasSubstr("--arch")));
  EXPECT_THAT(load_weights(*some_network("resnet8"), folder / "w"), HasSubstr("ResNet"));
  // A name that we know too, of another network.
  write_foreign(folder / "w", model->parameters().to_arrays(), {{"arch", "resnet20"}, {"classes", "1000"}});
  expect_same(*load(folder / "w").model, *model);
  EXPECT_THAT(load(folder / "w").note, AllOf(HasSubstr("resnet20"), HasSubstr("1000")));
  load_weights(*some_network("resnet8"), folder / "w");
  // Our words, though not in a file of ours.
  write_foreign(folder / "w", model->parameters().to_arrays(), {{"arch", "resnet8"}, {"classes", "3"}});
  EXPECT_EQ(load(folder / "w", "").note, "");
}

TEST(ForeignWeights, TheTroubleThatThereIsIsSaid) {
  const TemporaryFolder folder;
  const auto model = some_network("resnet8");
  write_foreign(folder / "w", model->parameters().to_arrays());
  EXPECT_THAT(error_of([&] { load(folder / "w", "resnet9"); }), AllOf(HasSubstr("unknown arch"), HasSubstr("resnet8")));
  // Another network altogether, without a last layer of any name: the names are the trouble, not the classes.
  write_foreign(folder / "w", renamed(model->parameters().to_arrays(), [](const std::string& n) { return "x." + n; }));
  EXPECT_THAT(error_of([&] { load(folder / "w"); }),
              AllOf(HasSubstr("missing (conv1.weight"), HasSubstr("nearest to conv1.weight is \"x.conv1.weight\""),
                    Not(HasSubstr("how many classes"))));
  Arrays headless = model->parameters().to_arrays();
  std::erase_if(headless, [](const NamedArray& a) { return a.name.starts_with("fc."); });
  write_foreign(folder / "w", headless);
  EXPECT_THAT(error_of([&] { load(folder / "w"); }), HasSubstr("how many classes"));
  write_foreign(folder / "w", model->parameters().to_arrays());
  EXPECT_THAT(error_of([&] { load(folder / "w", "resnet8", 20); }), HasSubstr("tells 3 classes apart, the student 20"));
}

TEST(ForeignWeights, TheStemIsThatOfTheFirstConvolution) {
  const TemporaryFolder folder;
  auto model = make_model({.arch = "resnet10", .classes = 3, .stem = "imagenet"});
  model->parameters().materialize({}, DType::f32, 7);
  write_foreign(folder / "w", renamed(model->parameters().to_arrays(), theirs));
  EXPECT_EQ(load(folder / "w", "resnet10").model->spec().stem, "imagenet");
}

TEST(ForeignWeights, AStateOfOursStaysStrict) {
  const TemporaryFolder folder;
  const auto model = some_network("resnet8");
  Arrays arrays = model->parameters().to_arrays();
  arrays.push_back(float_array("n_averaged", {}, {1}));
  write_safetensors(folder / "w", arrays, {{"arch", "resnet8"}, {"classes", "3"}});
  EXPECT_THAT(error_of([&] { load(folder / "w"); }), HasSubstr("1 unexpected (n_averaged)"));
}

TEST(Students, OfARunAreFoundByTheirNames) {
  const TemporaryFolder folder;
  const auto network = some_network("resnet8");
  const auto put = [&](const std::string& place, const char* name = "best.safetensors") {
    fs::create_directories(fs::path(folder / place));
    write_safetensors((fs::path(folder / place) / name).string(), network->parameters().to_arrays());
  };
  put("q/v1/alone");
  put("q/v1/taught");
  put("q/v2/alone", "last.safetensors");
  fs::create_directories(folder / "q/v2/taught");  // has not got so far
  fs::create_directories(folder / "q/v3");
  EXPECT_EQ(resolve_checkpoint(folder / "q/alone"), folder / "q/v2/alone/last.safetensors");
  EXPECT_EQ(resolve_checkpoint(folder / "q/taught/"), folder / "q/v1/taught/best.safetensors");
  EXPECT_EQ(resolve_checkpoint(folder / "q/v1/alone"), folder / "q/v1/alone/best.safetensors");
  EXPECT_THAT(error_of([&] { resolve_checkpoint(folder / "q"); }), HasSubstr("q/v2/alone"));
  for (const char* whole : {"q/v1", "q/v1/"}) {
    EXPECT_THAT(error_of([&] { resolve_checkpoint(folder / whole); }),
                AllOf(HasSubstr("several students"), HasSubstr("q/v1/alone"), HasSubstr("q/v1/taught")));
  }
  for (const char* wrong : {"q/tought", "q/v1/tought"}) {
    EXPECT_THAT(error_of([&] { resolve_checkpoint(folder / wrong); }), AllOf(HasSubstr("alone"), HasSubstr("tought")));
  }
  EXPECT_THAT(error_of([&] { resolve_checkpoint(folder / "nothing/here"); }), HasSubstr("no such file or folder"));
}

using ForeignRuns = test::TinyRunTest;

TEST_F(ForeignRuns, SayWhatTheyPassedOver) {
  auto model = make_model({.arch = "resnet8", .classes = 20});
  model->parameters().materialize({}, DType::f32, 7);
  Arrays arrays = their_arrays(*model);
  write_foreign(folder_ / "w", arrays);
  const auto note = HasSubstr("passed over: criterion.weight");
  EXPECT_THAT(call("evaluate", {"w", "--arch", "resnet8", "--normalize", "half", "--data", "shapes", "--no-speed"}).out,
              note);
  EXPECT_THAT(call("export", {"w", "--arch", "resnet8", "--safetensors", "w.safetensors"}).out, note);
  const test::ProgramResult trained = train({"--set", "model.init=w", "--set", "train.max_steps=1"});
  EXPECT_EQ(trained.exit_code, 0) << trained.err;
  EXPECT_THAT(trained.out, note);
  const float nan = std::numeric_limits<float>::quiet_NaN();
  std::memcpy(find(arrays, theirs("conv1.weight")).bytes.data(), &nan, sizeof nan);
  write_foreign(folder_ / "bad", arrays);
  expect_error(train({"--set", "model.init=bad"}),
               AllOf(HasSubstr("bad"), HasSubstr("conv1.weight"), HasSubstr("NaN"), Not(HasSubstr("learning rate"))));
}

}  // namespace
}  // namespace retort
