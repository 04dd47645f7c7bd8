#include "engine/safetensors.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <unistd.h>

#include <csignal>
#include <cstring>

#include "engine/atomic_file.h"
#include "engine/crc32.h"
#include "tests/support/files.h"

namespace retort {
namespace {

using test::error_of;
using test::read_file;
using test::TemporaryFolder;
using test::write_file;
using testing::ElementsAre;
using testing::EndsWith;
using testing::HasSubstr;
using testing::StartsWith;

template <typename T>
NamedArray array_of(const std::string& name, FileType type, std::vector<std::int64_t> shape, std::vector<T> values) {
  NamedArray a{name, type, std::move(shape), std::vector<std::byte>(values.size() * sizeof(T))};
  if (!values.empty()) std::memcpy(a.bytes.data(), values.data(), a.bytes.size());
  return a;
}

std::vector<NamedArray> samples() {
  return {array_of<std::uint8_t>("bytes", FileType::u8, {3}, {1, 2, 3}),
          array_of<float>("a.weight", FileType::f32, {2, 1, 2}, {1.5f, -0.0f, 3e-45f, 7}),
          array_of<double>("d", FileType::f64, {2}, {0.1, -1e300}),
          array_of<std::int64_t>("count", FileType::i64, {}, {std::int64_t{1} << 40}),
          array_of<std::int32_t>("i", FileType::i32, {1}, {-5}),
          array_of<std::uint16_t>("half", FileType::bf16, {2}, {0x3f80, 0xc000}),
          array_of<float>("empty", FileType::f32, {0, 4}, {})};
}

const std::map<std::string, std::string> kMetadata{{"arch", "resnet20"}, {"note", "a \"quoted\"\nline, \u00e9"}};

void expect_equal(const WeightFile& file, const std::vector<NamedArray>& arrays) {
  ASSERT_EQ(file.arrays.size(), arrays.size());
  for (const NamedArray& a : arrays) {
    const NamedArray* found = file.find(a.name);
    ASSERT_NE(found, nullptr) << a.name;
    EXPECT_EQ(found->dtype, a.dtype) << a.name;
    EXPECT_EQ(found->shape, a.shape) << a.name;
    EXPECT_EQ(found->bytes, a.bytes) << a.name;
  }
}

// A file as somebody else would write it.
std::string foreign(const std::string& header, const std::string& data = "") {
  const std::uint64_t length = header.size();
  return std::string(reinterpret_cast<const char*>(&length), 8) + header + data;
}

// Changes single bytes of a file where it lies.
class Patcher {
 public:
  explicit Patcher(const std::string& path) : descriptor_(open(path.c_str(), O_WRONLY)) {}
  ~Patcher() { close(descriptor_); }
  Patcher(const Patcher&) = delete;
  Patcher& operator=(const Patcher&) = delete;
  void put(std::size_t at, char byte) const { ASSERT_EQ(pwrite(descriptor_, &byte, 1, static_cast<off_t>(at)), 1); }

 private:
  int descriptor_;
};

TEST(Crc32, MatchesPublishedValues) {
  const std::string nine = "123456789";  // the check value of every CRC catalogue
  EXPECT_EQ(crc32(0, nine.data(), nine.size()), 0xCBF43926u);
  EXPECT_EQ(crc32(0, nullptr, 0), 0u);
  const std::string fox = "The quick brown fox jumps over the lazy dog";
  EXPECT_EQ(crc32(0, fox.data(), fox.size()), 0x414FA339u);
  for (std::size_t cut = 0; cut <= fox.size(); ++cut) {
    EXPECT_EQ(crc32(crc32(0, fox.data(), cut), fox.data() + cut, fox.size() - cut), 0x414FA339u);
  }
}

TEST(Safetensors, ReadsBackWhatItWrote) {
  const TemporaryFolder folder;
  const std::string path = folder / "w.safetensors";
  write_safetensors(path, samples(), kMetadata);
  const WeightFile file = read_safetensors(path);
  expect_equal(file, samples());
  EXPECT_EQ(file.metadata, kMetadata);
  EXPECT_EQ(read_safetensors_metadata(path), kMetadata);
  EXPECT_THAT(folder.names(), ElementsAre("w.safetensors"));
  // The data begins aligned, and the widest types come first, so that every array can be mapped.
  std::uint64_t length = 0;
  const std::string bytes = read_file(path);
  std::memcpy(&length, bytes.data(), 8);
  EXPECT_EQ(length % 8, 0u);
  EXPECT_EQ(file.arrays.front().name, "d");
}

TEST(Safetensors, ReadsOthersFilesAndWidensHalves) {
  const TemporaryFolder folder;
  // 1, -2, 65504 (largest), 2^-24 (smallest), inf: worked out from the format.
  const std::string halves("\x00\x3c\x00\xc0\xff\x7b\x01\x00\x00\x7c", 10);
  const std::string path = folder.write(
      "f.safetensors",
      foreign(R"({"x":{"dtype":"F16","shape":[5],"data_offsets":[0,10]},"__metadata__":{"format":"pt"}}   )", halves));
  const WeightFile file = read_safetensors(path);
  EXPECT_EQ(file.metadata_or("format", ""), "pt");
  ASSERT_EQ(file.arrays.size(), 1u);
  EXPECT_EQ(file.arrays[0].dtype, FileType::f32);
  std::vector<float> values(5);
  std::memcpy(values.data(), file.arrays[0].bytes.data(), 20);
  EXPECT_THAT(values, ElementsAre(1.0f, -2.0f, 65504.0f, 0x1p-24f, INFINITY));
  EXPECT_TRUE(read_safetensors(folder.write("none", foreign("{}"))).arrays.empty());
}

TEST(Safetensors, RefusesWhatIsWrongInAForeignFile) {
  const TemporaryFolder folder;
  const auto refusal = [&](const std::string& bytes) {
    const std::string path = folder.write("bad", bytes);
    const std::string text = error_of([&] { read_safetensors(path); });
    EXPECT_THAT(text, StartsWith(path + ": "));
    return text.substr(path.size() + 2);
  };
  const auto entry = [](const std::string& name, const std::string& dtype, const std::string& shape,
                        const std::string& offsets) {
    return fmt::format(R"("{}":{{"dtype":"{}","shape":{},"data_offsets":{}}})", name, dtype, shape, offsets);
  };
  const auto braced = [](const std::string& entries) { return fmt::format("{{{}}}", entries); };
  const std::string eight(8, 'x'), sixteen(16, 'x');

  EXPECT_EQ(refusal(""), "0 bytes are too few for a safetensors file");
  EXPECT_EQ(refusal("1234567"), "7 bytes are too few for a safetensors file");
  EXPECT_THAT(refusal(eight), HasSubstr("above the limit of 100000000"));
  EXPECT_EQ(refusal(std::string("\x09\0\0\0\0\0\0\0{}", 10)),
            "byte 0: a header of 9 bytes in a file of 10: truncated or altered");
  EXPECT_EQ(refusal(foreign("{\"a\": }")), "byte 15: the header is not valid JSON");
  EXPECT_THAT(refusal(foreign("{\"a\xff\":1}")), HasSubstr("not valid JSON"));
  EXPECT_THAT(refusal(foreign("{\"a\":1e999}")), HasSubstr("not valid JSON"));
  EXPECT_THAT(refusal(foreign("")), HasSubstr("not valid JSON"));
  EXPECT_THAT(refusal(foreign(std::string(100000, '['))), HasSubstr("nested too deeply"));
  EXPECT_THAT(refusal(foreign("[]")), HasSubstr("the header is not an object"));
  EXPECT_THAT(refusal(foreign("{\"a\":3}")), HasSubstr("expected dtype, shape and data_offsets"));
  EXPECT_THAT(refusal(foreign("{\"__metadata__\":{\"a\":1}}")), HasSubstr("metadata \"a\" is not a string"));
  EXPECT_THAT(
      refusal(foreign(braced(entry("a", "F32", "[2]", "[0,8]") + "," + entry("a", "F32", "[2]", "[8,16]")), sixteen)),
      HasSubstr("the name \"a\" twice"));
  EXPECT_THAT(refusal(foreign(braced(entry("a", "F31", "[2]", "[0,8]")), eight)), HasSubstr("unknown dtype \"F31\""));
  EXPECT_THAT(refusal(foreign(braced(entry("a", "F32", "[-2]", "[0,8]")), eight)), HasSubstr("an extent of \"-2\""));
  EXPECT_THAT(refusal(foreign(braced(entry("a", "F32", "[2.0]", "[0,8]")), eight)), HasSubstr("an extent of"));
  EXPECT_THAT(refusal(foreign(braced(entry("a", "F32", "[3]", "[0,8]")), eight)),
              HasSubstr("data_offsets 0 to 8 hold 8 bytes, but F32 of shape [3] needs 12"));
  EXPECT_THAT(refusal(foreign(braced(entry("a", "F32", "[4611686018427387904, 4]", "[0,8]")), eight)),
              HasSubstr("too large"));
  EXPECT_THAT(refusal(foreign(braced(entry("a", "F32", "[2]", "[8,0]")), eight)), HasSubstr("run backwards"));
  EXPECT_THAT(refusal(foreign(braced(entry("a", "F32", "[2]", "[0]")), eight)), HasSubstr("not two numbers"));
  EXPECT_THAT(refusal(foreign(braced(entry("a", "F32", "[4]", "[0,16]")), eight)), HasSubstr("truncated or altered"));
  EXPECT_THAT(refusal(foreign(braced(entry("a", "F32", "[2]", "[18446744073709551608,18446744073709551615]")), eight)),
              HasSubstr("hold 7 bytes"));
  EXPECT_THAT(refusal(foreign(braced(entry("a", "F32", "[2]", "[0,8]")), sixteen)),
              HasSubstr("but the file ends at byte"));
  EXPECT_THAT(refusal(foreign(braced(entry("a", "F32", "[2]", "[8,16]")), sixteen)), HasSubstr("leave a gap"));
  EXPECT_THAT(refusal(foreign(braced(entry("a", "F32", "[2]", "[0,8]") + "," + entry("b", "F32", "[2]", "[4,12]")),
                              std::string(12, 'x'))),
              HasSubstr("overlap"));
  EXPECT_THAT(error_of([&] { read_safetensors(folder / "missing"); }), EndsWith("missing: no such file"));
  EXPECT_THAT(error_of([&] { read_safetensors(folder.path()); }), EndsWith(": is not a file"));
}

TEST(Safetensors, EveryFlippedByteOfOurOwnFileIsRefused) {
  const TemporaryFolder folder;
  const std::string path = folder / "w.safetensors";
  write_safetensors(path, samples(), kMetadata);
  const std::string good = read_file(path);
  const Patcher patcher(path);
  for (std::size_t i = 0; i < good.size(); ++i) {
    for (const int mask : {0x01, 0x20, 0x80}) {
      patcher.put(i, static_cast<char>(good[i] ^ mask));
      EXPECT_THAT(error_of([&] { read_safetensors(path); }), StartsWith(path + ": ")) << "byte " << i;
    }
    patcher.put(i, good[i]);
  }
  expect_equal(read_safetensors(path), samples());
}

TEST(Safetensors, EveryTruncationAndExtensionIsRefused) {
  const TemporaryFolder folder;
  const std::string path = folder / "w.safetensors";
  write_safetensors(path, samples(), kMetadata);
  const std::string good = read_file(path);
  write_file(path, good + std::string(1, '\0'));
  EXPECT_THAT(error_of([&] { read_safetensors(path); }), StartsWith(path + ": "));
  for (std::size_t n = good.size(); n-- > 0;) {
    std::filesystem::resize_file(path, n);
    EXPECT_THAT(error_of([&] { read_safetensors(path); }), StartsWith(path + ": ")) << n;
  }
}

TEST(Safetensors, AForeignFileWithAFlippedHeaderByteLoadsOrIsRefusedButNeverWorse) {
  const TemporaryFolder folder;
  const std::string good =
      foreign(R"({"__metadata__":{"format":"pt"},"w":{"dtype":"F32","shape":[1,2],"data_offsets":[0,8]},)"
              R"("b":{"dtype":"I64","shape":[],"data_offsets":[8,16]}} )",
              std::string(16, 'd'));
  const std::string path = folder.write("f.safetensors", good);
  const Patcher patcher(path);
  int loaded = 0;
  for (std::size_t i = 0; i < good.size() - 16; ++i) {
    for (int bit = 0; bit < 8; ++bit) {
      patcher.put(i, static_cast<char>(good[i] ^ (1 << bit)));
      try {
        const WeightFile file = read_safetensors(path);
        ++loaded;
        std::size_t bytes = 0;
        for (const NamedArray& a : file.arrays) bytes += a.bytes.size();
        EXPECT_EQ(bytes, 16u) << "byte " << i;  // a name or the metadata changed, never the data
      } catch (const Error& e) {
        EXPECT_THAT(e.what(), StartsWith(path + ": "));
      }
    }
    patcher.put(i, good[i]);
  }
  EXPECT_GT(loaded, 0);
}

TEST(Safetensors, RefusesToWriteNonsense) {
  const TemporaryFolder folder;
  const std::string path = folder / "w";
  NamedArray a = samples()[1];
  EXPECT_THAT(error_of([&] { write_safetensors(path, {a, a}); }), HasSubstr("two arrays named \"a.weight\""));
  a.shape = {5};
  EXPECT_THAT(error_of([&] { write_safetensors(path, {a}); }), HasSubstr("16 bytes for F32 of shape [5]"));
  EXPECT_THAT(error_of([&] { write_safetensors(path, {}, {{"a", "\xff"}}); }), HasSubstr("not UTF-8"));
  EXPECT_THAT(error_of([&] { write_safetensors(folder / "no/such", {}); }), HasSubstr("No such file"));
  EXPECT_TRUE(folder.names().empty());
}

TEST(AtomicFile, KeepsTheOldFileUntilTheNewOneIsWhole) {
  const TemporaryFolder folder;
  const std::string path = folder.write("f", "old");
  {
    AtomicFile file(path);
    file.write("new");
    EXPECT_EQ(read_file(path), "old");
    EXPECT_THAT(error_of([&] { AtomicFile second(path); }), HasSubstr("another process is writing this file"));
  }
  EXPECT_EQ(read_file(path), "old");
  EXPECT_THAT(folder.names(), ElementsAre("f"));
  folder.write("f.tmp", "left behind by a killed process");
  const std::string big(3'000'001, 'b');
  AtomicFile file(path);
  file.write("a");
  file.write(big);
  file.write("c");
  file.commit();
  EXPECT_EQ(read_file(path), "a" + big + "c");
  EXPECT_THAT(folder.names(), ElementsAre("f"));
}

// The kernel refuses to let a file grow beyond the limit: write() fails half-way, as on a full disk.
TEST(AtomicFile, AWriteThatFailsLeavesTheOldFile) {
  const TemporaryFolder folder;
  const std::string path = folder / "w.safetensors";
  write_safetensors(path, samples(), kMetadata);
  struct rlimit before;
  ASSERT_EQ(getrlimit(RLIMIT_FSIZE, &before), 0);
  const auto handler = std::signal(SIGXFSZ, SIG_IGN);
  rlimit limit = before;
  limit.rlim_cur = 2'000'000;
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &limit), 0);
  const NamedArray big = array_of<float>("big", FileType::f32, {1'000'000}, std::vector<float>(1'000'000));
  const std::string text = error_of([&] { write_safetensors(path, {big}); });
  setrlimit(RLIMIT_FSIZE, &before);
  std::signal(SIGXFSZ, handler);
  EXPECT_EQ(text, path + ": cannot be written: File too large");
  expect_equal(read_safetensors(path), samples());
  EXPECT_THAT(folder.names(), ElementsAre("w.safetensors"));
}

TEST(AtomicFile, AFullDiskLeavesTheOldFile) {
  const TemporaryFolder folder;
  if (mount("tmpfs", folder.path().c_str(), "tmpfs", 0, "size=1m") != 0) {
    GTEST_SKIP() << "a file system of its own cannot be mounted here";
  }
  {
    const std::string path = folder / "w.safetensors";
    write_safetensors(path, samples(), kMetadata);
    const NamedArray big = array_of<float>("big", FileType::f32, {1'000'000}, std::vector<float>(1'000'000));
    EXPECT_EQ(error_of([&] { write_safetensors(path, {big}); }), path + ": cannot be written: No space left on device");
    expect_equal(read_safetensors(path), samples());
    EXPECT_THAT(folder.names(), ElementsAre("w.safetensors"));
  }
  umount(folder.path().c_str());
}

}  // namespace
}  // namespace retort
