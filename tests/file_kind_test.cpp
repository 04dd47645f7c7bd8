// What was given in the place of weights is called what it is, by its content alone, with what to do.
#include "engine/file_kind.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>

#include "distill/checkpoint_path.h"
#include "engine/weight_file.h"
#include "tests/support/onnx_builder.h"
#include "tests/support/program_test.h"
#include "tests/support/torch_writer.h"

namespace retort {
namespace {

namespace fs = std::filesystem;
using test::error_of;
using test::TemporaryFolder;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::StartsWith;

using namespace std::string_literals;

const std::string kPointer =
    "version https://git-lfs.github.com/spec/v1\noid sha256:0000000000000000000000000000000000000000000000000000000000"
    "000000\nsize 94\n";

TEST(FileKind, IsToldByContent) {
  struct Kind {
    std::string bytes, said, advice;
  };
  const std::string zeros(64, '\0');
  const std::vector<Kind> kinds = {
      {"", "empty", "0 bytes"},
      {kPointer, "Git LFS pointer", "git lfs pull"},
      {"<!DOCTYPE html>\n<html><body>404</body></html>", "HTML page", "download"},
      {"\xef\xbb\xbf \n<HTML lang='en'>", "HTML page", "download"},
      {"<?xml version=\"1.0\"?><Error><Code>AccessDenied</Code></Error>", "XML", "download"},
      {"\x1f\x8b\x08\0\0\0\0\0"s + zeros, "gzip", "unpack"},
      {"\x28\xb5\x2f\xfd"s + zeros, "zstd", "unpack"},
      {"BZh91AY&SY" + zeros, "bzip2", "unpack"},
      {"\xfd\x37zXZ\0"s + zeros, "xz", "unpack"},
      {std::string(257, 'x') + "ustar\0\60\60"s + zeros, "tar archive", "unpack"},
      {"\x93NUMPY\x01\0v\0{'descr': '<f4', }"s + zeros, ".npy", "safetensors"},
      {"\x89HDF\r\n\x1a\n" + zeros, "HDF5", "ONNX"},
      {"\xff\xd8\xff\xe0\0\x10JFIF"s + zeros, "JPEG picture", "network"},
      {"\x89PNG\r\n\x1a\n" + zeros, "PNG picture", "network"},
      {"BM\x46\x01\0\0\0\0\0\0\x36\0\0\0\x28\0"s + zeros, "BMP picture", "network"},
      {"RIFF\x10\0\0\0WEBPVP8 "s + zeros, "WebP picture", "network"},
      {"GIF89a" + zeros, "GIF picture", "network"},
      {"%PDF-1.7\n", "PDF", "no file of weights"},
      {"\x08\x01\x12\x80\x01\x0a\x10"s + zeros, "TensorFlow", "ONNX"},
      {"\x0a\x1e\x0a\x05input\x12\x0bPlaceholder"s + zeros, "TensorFlow", "ONNX"},
      {"\x1c\0\0\0TFL3"s + zeros, "TensorFlow", "ONNX"},
      {"\x80\x04\x95\x10\0\0\0\0\0\0\0}\x94."s + zeros, "pickle", "torch.save"},
      {"{\"metadata\": {}, \"weight_map\": {\"fc.weight\": \"model-00001.safetensors\"}}", "index", "join"},
      {"{\"architectures\": [\"ResNet\"]}", "JSON", "no file of weights"},
      {"name = \"student\"\n[data]\n", "a text, which begins \"name", "no file of weights"},
      {"PK\5\6"s + std::string(18, '\0'), "empty zip", "download"},
      {"\x7f\x45LF\2\1\1"s + zeros, "ELF", "no file of weights"},
  };
  const TemporaryFolder folder;
  for (const Kind& kind : kinds) {
    for (const char* name : {"w.pth", "w.safetensors", "w.onnx", "w"}) {
      const std::string path = folder.write(name, kind.bytes);
      const std::string text = error_of([&] { read_weight_file(path); });
      EXPECT_THAT(text, AllOf(StartsWith(path + ": is "), HasSubstr(kind.said), HasSubstr(kind.advice)));
      EXPECT_THAT(text, Not(HasSubstr("header")));
    }
  }
}

TEST(FileKind, ArchivesAreToldByTheirEntries) {
  const TemporaryFolder folder;
  const std::string path = folder / "w.pt";
  const auto kind_of = [&](const test::Storages& entries, const char* compression = "store") {
    test::write_entries(path, entries, compression);
    return error_of([&] { read_weight_file(path); });
  };
  // Its code is compressed.
  const std::string code(4000, 'c');
  EXPECT_THAT(kind_of({{"data.pkl", "x"}, {"code/__torch__/net.py", code}, {"constants.pkl", "x"}}, "deflate"),
              AllOf(HasSubstr("TorchScript"), HasSubstr("torch.jit.load"), HasSubstr("state_dict")));
  EXPECT_THAT(kind_of({{"data.pkl", "x"}, {"code/__torch__.py", code}}), HasSubstr("TorchScript"));
  EXPECT_THAT(kind_of({{"arr_0.npy", "x"}, {"fc.npy", "x"}}), AllOf(HasSubstr(".npz"), HasSubstr("safetensors")));
  EXPECT_THAT(kind_of({{"config.json", "{}"}, {"model.weights.h5", "x"}}),
              AllOf(HasSubstr("Keras"), HasSubstr("ONNX")));
  EXPECT_THAT(kind_of({{"models/model.json", "{}"}, {"archive_format", "pt2"}}), HasSubstr("torch.export"));
  EXPECT_THAT(kind_of({{"word/document.xml", "x"}}), HasSubstr("without data.pkl"));
}

TEST(FileKind, FoldersSayWhatIsInThem) {
  const TemporaryFolder folder;
  folder.write("hub/config.json", "{}");
  folder.write("hub/model.safetensors", "x");
  folder.write("saved/saved_model.pb", "x");
  folder.write("none/readme", "x");
  EXPECT_THAT(foreign_kind(folder / "hub"), AllOf(StartsWith("a folder"), HasSubstr("\"model.safetensors\"")));
  EXPECT_THAT(foreign_kind(folder / "saved"), HasSubstr("TensorFlow"));
  EXPECT_THAT(foreign_kind(folder / "none"), HasSubstr("give a file"));
  EXPECT_THAT(error_of([&] { resolve_checkpoint(folder / "hub/"); }),
              AllOf(HasSubstr("no checkpoint"), HasSubstr("\"model.safetensors\"")));
}

TEST(FileKind, WeightsAndOnnxAreNeverTakenForSomethingElse) {
  const TemporaryFolder folder;
  // A header of 0x4d42 bytes begins like a bitmap, one of 0x8b1f like gzip.
  for (const std::size_t length : {std::size_t{0x4d42}, std::size_t{0x8b1f}, std::size_t{0x0a3c}}) {
    std::string header = "{\"w\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]}}";
    header.resize(length, ' ');
    const std::uint64_t size = length;
    folder.write("w", std::string(reinterpret_cast<const char*>(&size), 8) + header + "x");
    EXPECT_EQ(read_weight_file(folder / "w").arrays.size(), 1u) << length;
  }
  test::OnnxBuilder onnx;
  onnx.input("x", {-1, 3, 4, 4});
  onnx.output("x");
  folder.write("model", onnx.bytes());
  EXPECT_THAT(error_of([&] { read_weight_file(folder / "model"); }), AllOf(HasSubstr("ONNX"), HasSubstr("teacher")));
}

using FileKinds = test::TinyRunTest;

TEST_F(FileKinds, EveryProgramThatTakesWeightsSaysSo) {
  home_.write("w.pth", kPointer);
  home_.write("a.png", "x");
  const auto said = AllOf(HasSubstr("w.pth: is a Git LFS pointer"), HasSubstr("git lfs pull"));
  expect_error(call("evaluate", {"w.pth", "--arch", "resnet8", "--data", "shapes", "--normalize", "half"}), said);
  expect_error(call("predict", {"w.pth", "a.png", "--arch", "resnet8", "--normalize", "half"}), said);
  expect_error(call("export", {"w.pth", "--arch", "resnet8", "--safetensors", "out"}), said);
  expect_error(train({"--set", "model.init=w.pth"}), said);
  const fs::path file = distill_config("[[loss]]\ntype = \"soft_targets\"\n");
  expect_error(call("distill", {file.string(), "--set", "teacher.0.path=w.pth", "--set", "teacher.0.arch=resnet8"}),
               said);
}

}  // namespace
}  // namespace retort
