#include "data/verify.h"

#include <openssl/evp.h>

#include <array>
#include <fstream>
#include <memory>

#include "kernels/error.h"

namespace retort {

namespace fs = std::filesystem;

std::string file_digest(const fs::path& path, const std::string& algorithm) {
  const EVP_MD* method = EVP_get_digestbyname(algorithm.c_str());
  check(method != nullptr, "{}: OpenSSL has no digest \"{}\"", path.string(), algorithm);
  const std::unique_ptr<EVP_MD_CTX, decltype(&EVP_MD_CTX_free)> context(EVP_MD_CTX_new(), EVP_MD_CTX_free);
  check(context != nullptr && EVP_DigestInit_ex(context.get(), method, nullptr) == 1, "{}: OpenSSL cannot compute {}",
        path.string(), algorithm);
  std::ifstream in(path, std::ios::binary);
  check(in.is_open(), "{}: cannot be opened", path.string());
  std::vector<char> buffer(1 << 20);
  while (in) {
    in.read(buffer.data(), std::ssize(buffer));
    EVP_DigestUpdate(context.get(), buffer.data(), static_cast<std::size_t>(in.gcount()));
  }
  check(in.eof(), "{}: reading failed", path.string());
  std::array<unsigned char, EVP_MAX_MD_SIZE> digest{};
  unsigned length = 0;
  check(EVP_DigestFinal_ex(context.get(), digest.data(), &length) == 1, "{}: OpenSSL cannot compute {}", path.string(),
        algorithm);
  std::string text;
  for (unsigned i = 0; i < length; ++i) text += fmt::format("{:02x}", digest[i]);
  return text;
}

namespace {

FileReport inspect(const KnownSet& set, const SetFile& file, const fs::path& path, bool checksums) {
  std::error_code problem;
  if (!fs::exists(path, problem)) return {&file, FileState::missing, fmt::format("{}: missing", path.string())};
  const auto bytes = static_cast<std::int64_t>(fs::file_size(path, problem));
  const std::int64_t expected = file.records * set.record_bytes();
  if (problem || bytes != expected) {
    return {&file, FileState::damaged,
            fmt::format("{}: {}: {} bytes, expected {}", path.string(),
                        problem ? "unreadable" : (bytes < expected ? "truncated" : "altered"), problem ? 0 : bytes,
                        expected)};
  }
  if (!checksums) return {&file, FileState::good, "size is right"};
  if (file.sha1.empty()) return {&file, FileState::good, "size is right (no published checksum)"};
  const std::string sha1 = file_digest(path, "sha1");
  if (sha1 != file.sha1) {
    return {&file, FileState::damaged,
            fmt::format("{}: altered: SHA-1 {}, expected {}", path.string(), sha1, file.sha1)};
  }
  return {&file, FileState::good, "SHA-1 is right"};
}

}  // namespace

std::vector<FileReport> inspect_files(const KnownSet& set, const fs::path& folder, bool checksums) {
  std::vector<FileReport> reports;
  for (const SetFile& file : set.files) reports.push_back(inspect(set, file, folder / file.name, checksums));
  return reports;
}

void verify_dataset(const KnownSet& set, const fs::path& root, bool complete) {
  for (const FileReport& report : inspect_files(set, root / set.folder, true)) {
    check(report.state != FileState::damaged, "{}; delete it and fetch it again with ./dataset {}", report.text,
          set.name);
    check(report.state != FileState::missing || !complete, "{}; fetch it with ./dataset {}", report.text, set.name);
  }
}

}  // namespace retort
