#include "distill/console.h"

#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstring>

#include "kernels/error.h"

namespace retort {

std::string duration_text(double seconds) {
  if (seconds < 60) return fmt::format("{:.1f} s", seconds);
  const auto whole = static_cast<long long>(std::llround(seconds));
  if (whole < 3600) return fmt::format("{} min {:02} s", whole / 60, whole % 60);
  return fmt::format("{} h {:02} min", whole / 3600, whole % 3600 / 60);
}

std::string bytes_text(std::size_t bytes) {
  const double mib = static_cast<double>(bytes) / (1 << 20);
  return mib < 1024 ? fmt::format("{:.1f} MiB", mib) : fmt::format("{:.2f} GiB", mib / 1024);
}

std::string counted(std::int64_t n) {
  std::string digits = std::to_string(n);
  for (auto at = static_cast<std::ptrdiff_t>(digits.size()) - 3; at > 0; at -= 3) {
    digits.insert(static_cast<std::size_t>(at), ",");
  }
  return digits;
}

Console::Console(const std::string& log_path) : terminal_(isatty(STDOUT_FILENO) == 1) {
  if (log_path.empty()) return;
  log_.reset(std::fopen(log_path.c_str(), "ae"));
  check(log_ != nullptr, "{}: cannot be opened for writing: {}", log_path, std::strerror(errno));
}

void Console::line(const std::string& text) {
  erase();
  std::fprintf(stdout, "%s\n", text.c_str());
  std::fflush(stdout);
  if (log_) {
    std::fprintf(log_.get(), "%s\n", text.c_str());
    std::fflush(log_.get());
  }
  if (active_) draw();
}

void Console::begin_progress(std::string label, std::int64_t total, std::int64_t done) {
  label_ = std::move(label);
  total_ = total;
  first_ = done_ = done;
  samples_ = 0;
  loss_ = 0;
  started_ = last_drawn_ = Clock::now();
  active_ = terminal_;
}

void Console::advance_progress(double mean_loss, std::int64_t samples) {
  ++done_;
  samples_ += samples;
  loss_ = mean_loss;
  if (!active_ || Clock::now() - last_drawn_ < std::chrono::milliseconds(100)) return;
  last_drawn_ = Clock::now();
  draw();
}

void Console::end_progress() {
  erase();
  active_ = false;
}

void Console::draw() {
  constexpr std::int64_t kWidth = 28;
  const double elapsed = std::chrono::duration<double>(Clock::now() - started_).count();
  const std::int64_t filled = total_ > 0 ? kWidth * done_ / total_ : kWidth;
  std::string bar;
  for (std::int64_t i = 0; i < kWidth; ++i) bar += i < filled ? "━" : "─";
  std::string text = fmt::format("{} {} {}/{}", label_, bar, done_, total_);
  if (done_ > first_) {
    const double left = elapsed / static_cast<double>(done_ - first_) * static_cast<double>(total_ - done_);
    text += fmt::format("  loss {:.4f}  {:.0f} images/s  {} left", loss_,
                        static_cast<double>(samples_) / std::max(elapsed, 1e-9), duration_text(left));
  }
  std::fprintf(stdout, "\r\x1b[K%s", text.c_str());
  std::fflush(stdout);
  drawn_ = true;
}

void Console::erase() {
  if (!drawn_) return;
  std::fprintf(stdout, "\r\x1b[K");
  std::fflush(stdout);
  drawn_ = false;
}

}  // namespace retort
