#include "data/fetch.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdlib>
#include <fstream>

#include "data/verify.h"
#include "kernels/error.h"

namespace retort {
namespace {

namespace fs = std::filesystem;
using testing::AllOf;
using testing::HasSubstr;

// A data set of two small files, packed into an archive at a file:// address.
class Fetch : public testing::Test {
 protected:
  Fetch() {
    std::string name = (fs::temp_directory_path() / "retort_fetch_XXXXXX").string();
    check(::mkdtemp(name.data()) != nullptr, "no temporary folder");
    folder_ = name;
    root_ = folder_ / "datasets";
    set_.name = "tiny";
    set_.folder = "tiny-set";
    set_.class_names = {"a", "b"};
    set_.label_bytes = 1;
    set_.height = set_.width = 2;
    set_.files = {{"train.bin", 30000, true, ""}, {"test.bin", 5, false, ""}};
    std::uint8_t byte = 0;
    for (SetFile& file : set_.files) {
      contents_.emplace_back();
      for (std::int64_t i = 0; i < file.records * 13; ++i)
        contents_.back().push_back(static_cast<char>(byte = static_cast<std::uint8_t>(byte * 5 + i)));
    }
    set_.archive_url = pack("tiny.tar.gz", contents_);
    set_.archive_md5 = file_digest(folder_ / "tiny.tar.gz", "md5");
    for (std::size_t i = 0; i < 2; ++i)
      set_.files[i].sha1 = file_digest(folder_ / "tiny-set" / set_.files[i].name, "sha1");
  }
  ~Fetch() override { fs::remove_all(folder_); }
  void SetUp() override {
    if (std::system("curl --version > /dev/null 2>&1") != 0) GTEST_SKIP() << "no curl on this machine";
  }

  // The archive's address.
  std::string pack(const std::string& name, const std::vector<std::string>& contents) {
    for (std::size_t i = 0; i < contents.size(); ++i) write(folder_ / "tiny-set" / set_.files[i].name, contents[i]);
    const std::string command = fmt::format("tar -czf {0}/{1} -C {0} tiny-set", folder_.string(), name);
    check(std::system(command.c_str()) == 0, "{} failed", command);
    return "file://" + (folder_ / name).string();
  }
  static void write(const fs::path& path, const std::string& content) {
    fs::create_directories(path.parent_path());
    std::ofstream(path, std::ios::binary) << content;
  }
  static std::string read(const fs::path& path) {
    std::ifstream in(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(in), {}};
  }
  std::string fetch(const std::string& url = "") {
    try {
      fetch_dataset(set_, root_, url, [](const std::string&) {});
    } catch (const Error& error) {
      return error.what();
    }
    return "fetched";
  }
  void expect_complete() const {
    for (std::size_t i = 0; i < 2; ++i) EXPECT_TRUE(read(root_ / "tiny-set" / set_.files[i].name) == contents_[i]);
    std::vector<std::string> there;
    for (const auto& entry : fs::directory_iterator(root_)) there.push_back(entry.path().filename().string());
    EXPECT_EQ(there, std::vector<std::string>{"tiny-set"}) << "nothing else is left";
  }

  fs::path folder_, root_;
  KnownSet set_;
  std::vector<std::string> contents_;
};

TEST_F(Fetch, MakesTheSetCompleteAndKeepsWhatIsThere) {
  EXPECT_EQ(fetch(), "fetched");
  expect_complete();
  fs::remove(folder_ / "tiny.tar.gz");
  EXPECT_EQ(fetch(), "fetched") << "a complete set needs no archive";
}

TEST_F(Fetch, AddsMissingFilesOnly) {
  write(root_ / "tiny-set" / "test.bin", contents_[1]);
  const auto before = fs::last_write_time(root_ / "tiny-set" / "test.bin");
  EXPECT_EQ(fetch(), "fetched");
  expect_complete();
  EXPECT_EQ(fs::last_write_time(root_ / "tiny-set" / "test.bin"), before);
}

TEST_F(Fetch, GoesOnWhereADownloadWasCutOff) {
  const std::string archive = read(folder_ / "tiny.tar.gz");
  write(root_ / "tiny.tar.gz.part", archive.substr(0, archive.size() / 3));
  EXPECT_FALSE(fs::exists(root_ / "tiny-set")) << "half an archive is no data set";
  EXPECT_EQ(fetch(), "fetched");
  expect_complete();
}

TEST_F(Fetch, RecoversFromAnUnfinishedUnpacking) {
  write(root_ / "tiny-set.part" / "tiny-set" / "train.bin", contents_[0].substr(0, 100));
  write(root_ / "tiny.tar.gz.part", read(folder_ / "tiny.tar.gz"));
  EXPECT_EQ(fetch(), "fetched");
  expect_complete();
}

TEST_F(Fetch, RefusesAWrongChecksum) {
  std::string archive = read(folder_ / "tiny.tar.gz");
  archive[archive.size() / 2] = static_cast<char>(archive[archive.size() / 2] ^ 1);
  write(folder_ / "tiny.tar.gz", archive);
  EXPECT_THAT(fetch(), AllOf(HasSubstr("MD5"), HasSubstr(set_.archive_md5), HasSubstr("deleted")));
  EXPECT_FALSE(fs::exists(root_ / "tiny-set"));
  EXPECT_FALSE(fs::exists(root_ / "tiny.tar.gz.part")) << "the next try must start afresh";
}

TEST_F(Fetch, AnotherAddressIsJudgedByItsFiles) {
  EXPECT_EQ(fetch(pack("same.tar", contents_)), "fetched");
  expect_complete();
  fs::remove_all(root_);

  auto altered = contents_;
  altered[0][1000] = static_cast<char>(altered[0][1000] ^ 4);
  EXPECT_THAT(fetch(pack("altered.tar.gz", altered)),
              AllOf(HasSubstr("train.bin"), HasSubstr("altered"), HasSubstr("SHA-1")));
  auto truncated = contents_;
  truncated[1].pop_back();
  EXPECT_THAT(fetch(pack("truncated.tar.gz", truncated)),
              AllOf(HasSubstr("test.bin"), HasSubstr("truncated"), HasSubstr("64 bytes, expected 65")));
  EXPECT_TRUE(fs::is_empty(root_)) << "nothing of a wrong archive is kept";
}

TEST_F(Fetch, ADownloadThatFailsIsOneClearError) {
  EXPECT_THAT(fetch("file://" + (folder_ / "nowhere.tar.gz").string()),
              AllOf(HasSubstr("nowhere.tar.gz"), HasSubstr("the download failed"), HasSubstr("curl")));
  EXPECT_FALSE(fs::exists(root_ / "tiny-set"));
}

TEST_F(Fetch, AnArchiveThatIsNone) {
  write(folder_ / "text.tar.gz", "not found");
  EXPECT_THAT(fetch("file://" + (folder_ / "text.tar.gz").string()), HasSubstr("tar cannot unpack it"));
  EXPECT_TRUE(fs::is_empty(root_));
}

TEST_F(Fetch, ADamagedFileIsNamedAndRefused) {
  ASSERT_EQ(fetch(), "fetched");
  std::string content = contents_[0];
  content[7] = static_cast<char>(content[7] ^ 1);
  write(root_ / "tiny-set" / "train.bin", content);
  EXPECT_THAT(fetch(), AllOf(HasSubstr("tiny-set/train.bin: altered"), HasSubstr(set_.files[0].sha1)));
  EXPECT_THROW(verify_dataset(set_, root_, true), Error);
  EXPECT_EQ(inspect_files(set_, root_ / "tiny-set", false)[0].state, FileState::good) << "sizes alone do not show it";

  fs::resize_file(root_ / "tiny-set" / "train.bin", 389999);
  EXPECT_THAT(fetch(), AllOf(HasSubstr("tiny-set/train.bin: truncated"), HasSubstr("389999"), HasSubstr("390000")));
  EXPECT_EQ(inspect_files(set_, root_ / "tiny-set", false)[0].state, FileState::damaged);
}

TEST(FileDigest, KnownValues) {
  const fs::path path = fs::temp_directory_path() / fmt::format("retort_digest_{}", ::getpid());
  std::ofstream(path) << "abc";
  EXPECT_EQ(file_digest(path, "md5"), "900150983cd24fb0d6963f7d28e17f72");
  EXPECT_EQ(file_digest(path, "sha1"), "a9993e364706816aba3e25717850c26c9cd0d89d");
  fs::remove(path);
  EXPECT_THROW(file_digest(path, "md5"), Error);
}

}  // namespace
}  // namespace retort
