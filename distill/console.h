// What a run says: lines on stdout and in its log file, and on a terminal a progress bar below them.
#pragma once

#include <fmt/core.h>

#include <chrono>
#include <cstdint>
#include <cstdio>
#include <memory>
#include <string>

namespace retort {

std::string duration_text(double seconds);  // "2 h 03 min", "4 min 09 s", "8.3 s"
std::string bytes_text(std::size_t bytes);  // "1.2 GiB"
std::string counted(std::int64_t n);        // "278,324"

class Console {
 public:
  // Lines are appended to `log_path` too, where it is given. Throws Error where that cannot be opened.
  explicit Console(const std::string& log_path = "");

  template <typename... Args>
  void print(fmt::format_string<Args...> format, Args&&... args) {
    line(fmt::format(format, std::forward<Args>(args)...));
  }
  void line(const std::string& text);
  // Whether something printed on stdout could not be written: a full disk, a reader that has ended.
  bool lost() const { return std::ferror(stdout) != 0; }

  // The bar of an epoch of `total` batches, `done` of them earlier. Draws at most ten times a second, and nothing at
  // all where stdout is not a terminal.
  void begin_progress(std::string label, std::int64_t total, std::int64_t done);
  void advance_progress(double mean_loss, std::int64_t samples);
  void end_progress();

 private:
  using Clock = std::chrono::steady_clock;
  struct Close {
    void operator()(std::FILE* file) const { std::fclose(file); }
  };
  void draw();
  void erase();

  std::unique_ptr<std::FILE, Close> log_;
  bool terminal_;
  bool active_ = false, drawn_ = false;
  std::string label_;
  std::int64_t total_ = 0, done_ = 0, first_ = 0, samples_ = 0;
  double loss_ = 0;
  Clock::time_point started_, last_drawn_;
};

}  // namespace retort
