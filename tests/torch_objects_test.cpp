// What lies beside the weights in PyTorch's files: objects of Python's, which are never made, types that no network
// needs, tensors that expand() made, and folders with names in any alphabet.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <clocale>
#include <cstring>

#include "engine/torch_file.h"
#include "tests/support/torch_writer.h"

namespace retort {
namespace {

using test::bytes_of;
using test::error_of;
using test::Pickle;
using test::TemporaryFolder;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

const test::Storages kSix = {{"0", bytes_of<float>({0, 1, 2, 3, 4, 5})}};

std::vector<float> floats(const WeightFile& file, const std::string& name) {
  const NamedArray* const array = file.find(name);
  if (array == nullptr) return {};
  std::vector<float> values(array->bytes.size() / sizeof(float));
  std::memcpy(values.data(), array->bytes.data(), array->bytes.size());
  return values;
}

Pickle& add_weight(Pickle& p, const std::string& name = "w") {
  return p.tensor(name, "FloatStorage", "0", 6, 0, {6}, {1});
}

class TorchObjects : public testing::Test {
 protected:
  WeightFile read(const Pickle& pickle, const test::Storages& storages = kSix) const {
    test::write_new(folder_ / "w.pth", pickle.done(), storages);
    return read_torch_file(folder_ / "w.pth");
  }
  std::string refusal(const Pickle& pickle) const {
    return error_of([&] { read(pickle); });
  }

  TemporaryFolder folder_;
};

// As CPython writes them, each the value of one key.
Pickle& every_object(Pickle& p) {
  p.text("args").name("argparse", "Namespace").code(")\x81}").text("lr").number(1).code("sb");
  p.text("best").name("numpy._core.multiarray", "scalar").name("numpy", "dtype").text("f8").code("\x89\x88\x87R(");
  p.number(3).text("<").code("NNN").number(-1).number(-1).number(0).code("tb");
  p.name("_codecs", "encode").text("93.1").text("latin1").code("\x86R\x86R");
  p.text("device").name("torch", "device").text("cuda").number(0).code("\x86R");
  p.text("dtype").name("torch", "float32");
  p.text("seen").name("__builtin__", "set").code("](").number(1).number(2).code("e\x85R");
  p.text("milestones").name("collections", "Counter").code("}").number(30).number(1).code("s\x85R");
  p.text("path").name("pathlib", "PosixPath").text("/").text("data").code("\x86R");
  p.text("meters").name("collections", "defaultdict").name("utils", "Meter").code("\x85R").text("loss");
  p.name("utils", "Meter").code(")R}").text("sum").number(7).code("sbs");
  p.text("schedule").name("functools", "partial").name("os", "system").code("\x85R(").name("os", "system");
  p.code(")}Ntb").text("called").name("functools", "partial").name("os", "system").code("\x85R)R");
  p.text("list").name("custom", "List").code(")R(").number(1).number(2).code("e");
  return p.text("old").code("(").number(1).code("iutils\nOld\n").text("older").code("(").name("utils", "Old").code("o");
}

TEST_F(TorchObjects, BesideTheStateDictAreInert) {
  Pickle p;
  every_object(p.code("}(")).text("state_dict").code("}(");
  add_weight(p).code("uu");
  const WeightFile file = read(p);
  EXPECT_THAT(floats(file, "w"), ElementsAre(0, 1, 2, 3, 4, 5));
  EXPECT_TRUE(file.unread.empty());
}

TEST_F(TorchObjects, AmongTheWeightsAreNamedAsUnread) {
  Pickle p;
  every_object(p.code("}("));
  const WeightFile file = read(add_weight(p).code("u"));
  EXPECT_EQ(file.arrays.size(), 1u);
  ASSERT_GT(file.unread.size(), 5u);
  EXPECT_EQ(file.unread[0].name, "args");
  EXPECT_EQ(file.unread[0].what, "an object of \"argparse.Namespace\"");
}

TEST_F(TorchObjects, InThePlaceOfAStateDictAreRefusedByName) {
  Pickle whole;
  whole.name("torchvision.models.resnet", "ResNet").code(")\x81}b");
  EXPECT_THAT(refusal(whole), AllOf(HasSubstr("\"torchvision.models.resnet.ResNet\""), HasSubstr("refused"),
                                    HasSubstr("torch.save(model.state_dict()")));
  Pickle inside;
  inside.code("}(").text("epoch").number(3).text("model").name("nets", "Student").code(")\x81}bu");
  EXPECT_THAT(refusal(inside), AllOf(HasSubstr("\"nets.Student\""), HasSubstr("\"model\""), HasSubstr("torch.save")));
  Pickle unlike;
  EXPECT_THAT(refusal(unlike.code("}").name("torch._utils", "_rebuild_parameter").text("x").code("\x85Ru")),
              HasSubstr("w.pth"));
}

TEST_F(TorchObjects, TypesOfNoNetworkAreLeftUnread) {
  Pickle p;
  p.code("}(").tensor("phase", "ComplexFloatStorage", "1", 1, 0, {1}, {1});
  p.tensor("scale", "Float8_e4m3fnStorage", "1", 8, 0, {8}, {1});
  const WeightFile file = read(add_weight(p).code("u"), {kSix[0], {"1", std::string(8, '\1')}});
  EXPECT_EQ(file.arrays.size(), 1u);
  ASSERT_EQ(file.unread.size(), 2u);
  EXPECT_EQ(file.unread[0].what, "of type \"ComplexFloatStorage\"");
}

TEST_F(TorchObjects, ExpandedTensorsAreRead) {
  Pickle p;
  p.code("}(")
      .tensor("ones", "FloatStorage", "0", 6, 1, {2, 3}, {0, 0})
      .tensor("rows", "FloatStorage", "0", 6, 4, {2, 2}, {0, 1});
  const WeightFile file = read(p.code("u"));
  EXPECT_THAT(floats(file, "ones"), ElementsAre(1, 1, 1, 1, 1, 1));
  EXPECT_THAT(floats(file, "rows"), ElementsAre(4, 5, 4, 5));
}

TEST_F(TorchObjects, ParametersWithAttributesAndDerivedTensorsAreTensors) {
  Pickle p;
  p.code("}(").text("a").name("torch._utils", "_rebuild_parameter_with_state").code("(");
  p.name("torch._utils", "_rebuild_tensor_v2").code("((").text("storage").name("torch", "FloatStorage").text("0");
  p.text("cpu").number(6).code("tQ").number(0).numbers({2}).numbers({1}).code("\x89}tR");
  p.code("\x88}}tR").text("b").name("torch._tensor", "_rebuild_from_type_v2").code("(");
  p.name("torch._utils", "_rebuild_tensor_v2").name("custom", "Tensor").code("((").text("storage");
  p.name("torch", "FloatStorage").text("0").text("cpu").number(6).code("tQ").number(2).numbers({2}).numbers({1});
  p.code("\x89}t}tRu");
  const WeightFile file = read(p);
  EXPECT_THAT(floats(file, "a"), ElementsAre(0, 1));
  EXPECT_THAT(floats(file, "b"), ElementsAre(2, 3));
}

TEST_F(TorchObjects, TheStateDictIsFound) {
  const auto lies_under = [&](const std::vector<std::string>& keys) {
    Pickle p;
    for (const std::string& key : keys) p.code("}(").text("epoch").number(1).text(key);
    add_weight(p.code("}(")).code("u");
    for (std::size_t n = 0; n < keys.size(); ++n) p.code("u");
    return floats(read(p), "w").size() == 6;
  };
  for (const char* key : {"state_dict", "model_state_dict", "model", "net", "params", "student", "anything"}) {
    EXPECT_TRUE(lies_under({key})) << key;
  }
  EXPECT_TRUE(lies_under({"model", "state_dict"}));
  Pickle halves;
  add_weight(halves.code("}(").text("teacher").code("}("), "t").code("u").text("student").code("}(");
  const WeightFile file = read(add_weight(halves).code("uu"));
  EXPECT_EQ(file.arrays.at(0).name, "w");
  EXPECT_THAT(file.note, HasSubstr("the student's is taken"));
  Pickle doubt;
  add_weight(doubt.code("}(").text("first").code("}(")).code("u").text("second").code("}(");
  EXPECT_THAT(refusal(add_weight(doubt).code("uu")), AllOf(HasSubstr("\"first\""), HasSubstr("\"second\"")));
}

TEST_F(TorchObjects, TheArchitectureBesideTheStateDictIsRead) {
  Pickle p;
  p.code("}(").text("arch").text("resnet18").text("state_dict").code("}(");
  EXPECT_EQ(read(add_weight(p).code("uu")).metadata_or("arch", ""), "resnet18");
  Pickle number;
  number.code("}(").text("arch").number(18).text("state_dict").code("}(");
  EXPECT_EQ(read(add_weight(number).code("uu")).metadata_or("arch", "none"), "none");
}

TEST_F(TorchObjects, TheArchivesFolderMayHaveAnyName) {
  Pickle p;
  const std::string pickle = add_weight(p.code("}(")).code("u").done();
  const char* const before = std::setlocale(LC_ALL, nullptr);
  const std::string kept = before == nullptr ? "C" : before;
  for (const char* locale : {"C", "C.UTF-8"}) {
    for (const char* folder : {"модель", "模型", "n\xe9seau", "a b"}) {
      // Named in the archive as the writer's locale has it, or by its bytes.
      std::setlocale(LC_ALL, "C.UTF-8");
      test::write_entries(folder_ / "w.pth", {{"data.pkl", pickle}, {"data/0", kSix[0].second}}, "store", folder);
      std::setlocale(LC_ALL, locale);
      EXPECT_EQ(floats(read_torch_file(folder_ / "w.pth"), "w").size(), 6u) << folder << " in " << locale;
    }
  }
  std::setlocale(LC_ALL, kept.c_str());
}

}  // namespace
}  // namespace retort
