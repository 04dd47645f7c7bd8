// What a run says: lines on stdout and in its log file, and below them on a terminal a progress bar. Strings from files
// and configs are made printable. On a terminal lines are folded to its width, in a pipe and in the log they stay whole.
//
// What standard output does not take is in the log all the same; whoever prints asks output_error() (engine/terminal.h).
#pragma once

#include <fmt/core.h>

#include <chrono>
#include <cstdint>
#include <cstdio>
#include <functional>
#include <memory>
#include <string>

#include "engine/text.h"

namespace retort {

std::string duration_text(double seconds);  // "2 h 03 min", "4 min 09 s", "8.3 s"
std::string bytes_text(std::size_t bytes);  // "1.2 GiB"
std::string counted(std::int64_t n);        // "278,324"
std::string loss_text(double loss);         // "0.3727"; "3.7270e+12" where digits would be many

struct Progress {
  std::string label;  // "epoch 3/200"
  std::int64_t done = 0, total = 0;
  bool known = false;                           // the figures below are
  double loss = 0, rate = 0, seconds_left = 0;  // rate: images a second
};
// "epoch 3/200 ━━━━──── 45/391  loss 1.2345  812 images/s  4 min 09 s left" in at most `width` columns: first the bar
// shrinks, then bar, rate, loss and time go, at last the label. For kWhole there is no bar.
std::string progress_text(const Progress& progress, std::size_t width);

class Console {
 public:
  // Lines are appended to `log_path` too, where it is given. Throws Error where that cannot be opened. Where no bar can
  // be drawn, a line of progress is printed when nothing else was for `quiet`.
  explicit Console(const std::string& log_path = "", std::chrono::milliseconds quiet = std::chrono::minutes(1));
  ~Console() { erase(); }
  Console(const Console&) = delete;
  Console& operator=(const Console&) = delete;

  template <typename... Args>
  void print(fmt::format_string<Args...> format, Args&&... args) {
    line(format_printable(format, std::forward<Args>(args)...));
  }
  void line(const std::string& text);  // may be of several lines
  // What is laid out for a width: that of the terminal, and kWhole for pipe and log.
  void laid_out(const std::function<std::string(std::size_t width)>& text);

  // The progress of an epoch of `total` batches, `done` of them earlier. A bar is drawn at most ten times a second.
  void begin_progress(std::string label, std::int64_t total, std::int64_t done);
  void advance_progress(double mean_loss, std::int64_t samples);
  void end_progress();

 private:
  using Clock = std::chrono::steady_clock;
  struct Close {
    void operator()(std::FILE* file) const { std::fclose(file); }
  };
  Progress progress() const;
  void draw();
  std::string erasing();  // what takes the bar away
  void erase();
  void put(const std::string& text);

  std::string log_path_;
  std::unique_ptr<std::FILE, Close> log_;
  std::chrono::milliseconds quiet_;
  bool redraws_, active_ = false;
  std::size_t drawn_ = 0;  // columns of the bar that stands there now
  std::string label_;
  std::int64_t total_ = 0, done_ = 0, first_ = 0, samples_ = 0;
  double loss_ = 0;
  Clock::time_point started_, last_drawn_, last_spoken_;
};

}  // namespace retort
