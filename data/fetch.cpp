#include "data/fetch.h"

#include <spawn.h>
#include <sys/wait.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <vector>

#include "data/verify.h"
#include "kernels/error.h"

extern char** environ;

namespace retort {
namespace {

namespace fs = std::filesystem;

// The program's exit status. No shell is involved, so nothing in the arguments needs quoting.
int run_program(const std::vector<std::string>& command) {
  std::vector<char*> arguments;
  for (const std::string& word : command) arguments.push_back(const_cast<char*>(word.c_str()));
  arguments.push_back(nullptr);
  pid_t process = 0;
  const int problem = ::posix_spawnp(&process, arguments[0], nullptr, nullptr, arguments.data(), environ);
  check(problem != ENOENT, "{}: the program is not there; install it with apt-get install {}", command[0], command[0]);
  check(problem == 0, "{}: cannot be started: {}", command[0], std::strerror(problem));
  int status = 0;
  while (::waitpid(process, &status, 0) < 0) {
    check(errno == EINTR, "{}: {}", command[0], std::strerror(errno));
  }
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

void download(const std::string& url, const fs::path& part) {
  const auto curl = [&] {
    return run_program({"curl", "--fail", "--location", "--show-error", "--progress-bar", "--connect-timeout", "15",
                        "--continue-at", "-", "--output", part.string(), url});
  };
  const bool resumed = fs::exists(part);
  int status = curl();
  // The server refuses the range or cannot resume: what was kept is of no use.
  if (resumed && (status == 22 || status == 33 || status == 36)) {
    fs::remove(part);
    status = curl();
  }
  check(status == 0, "{}: the download failed (curl's exit code {}, its message is above){}", url, status,
        fs::exists(part)
            ? fmt::format("; what has arrived is kept in {}, the next try goes on from there", part.string())
            : "");
}

}  // namespace

void fetch_dataset(const KnownSet& set, const fs::path& root, const std::string& url,
                   const std::function<void(const std::string&)>& say) {
  check(!set.built_in(), "data set {}: it is made by the program, there is nothing to fetch", set.name);
  const fs::path folder = root / set.folder;
  verify_dataset(set, root, false);
  const auto is_missing = [](const FileReport& report) { return report.state == FileState::missing; };
  const auto present = inspect_files(set, folder, false);
  if (std::none_of(present.begin(), present.end(), is_missing)) {
    say(fmt::format("{} is complete in {}, all files verified", set.name, folder.string()));
    return;
  }

  const std::string address = url.empty() ? set.archive_url : url;
  const fs::path archive = root / (fs::path(set.archive_url).filename().string() + ".part");
  const fs::path unpacked = root / (set.folder + ".part");
  try {
    fs::create_directories(root);
    if (!fs::exists(archive) || file_digest(archive, "md5") != set.archive_md5) {
      say(fmt::format("fetching {} to {}", address, archive.string()));
      download(address, archive);
    }
    const std::string md5 = file_digest(archive, "md5");
    if (md5 != set.archive_md5) {
      if (url.empty()) {
        fs::remove(archive);
        fail("{}: MD5 {}, expected {}: the download is damaged and was deleted; try again", address, md5,
             set.archive_md5);
      }
      say(fmt::format("{} is not the official archive (MD5 {}): its files decide", address, md5));
    }

    fs::remove_all(unpacked);
    fs::create_directories(unpacked);
    const int status = run_program({"tar", "--extract", "--file", archive.string(), "--directory", unpacked.string(),
                                    "--no-same-owner", "--no-same-permissions"});
    if (status != 0) {  // the official archive is whole, so the disk may be full: keep it
      fs::remove_all(unpacked);
      if (md5 != set.archive_md5) fs::remove(archive);
      fail("{}: tar cannot unpack it (exit code {}, its message is above){}", archive.string(), status,
           md5 != set.archive_md5 ? "; it was deleted" : "");
    }
    for (const FileReport& report : inspect_files(set, unpacked / set.folder, true)) {
      if (report.state == FileState::good) continue;
      const std::string what = report.text;
      fs::remove_all(unpacked);
      fs::remove(archive);
      fail("{}: its content is wrong: {}; it was deleted", address, what);
    }

    fs::create_directories(folder);
    for (const fs::directory_entry& entry : fs::directory_iterator(unpacked / set.folder)) {
      const fs::path target = folder / entry.path().filename();
      if (!fs::exists(target)) fs::rename(entry.path(), target);
    }
    fs::remove_all(unpacked);
    fs::remove(archive);
  } catch (const fs::filesystem_error& error) {
    fail("data set {}: {}", set.name, error.what());
  }
  say(fmt::format("{} is complete in {}, all files verified", set.name, folder.string()));
}

}  // namespace retort
