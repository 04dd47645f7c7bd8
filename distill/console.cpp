#include "distill/console.h"

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstring>
#include <utility>

#include "engine/terminal.h"
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

std::string loss_text(double loss) {
  if (std::isnan(loss)) return "nan";
  return std::abs(loss) < 1e6 ? fmt::format("{:.4f}", loss) : fmt::format("{:.4e}", loss);
}

std::string progress_text(const Progress& p, std::size_t width) {
  const std::string count = fmt::format("{}/{}", p.done, p.total), label = printable(p.label);
  const std::string percent = fmt::format("{} %", p.total > 0 ? 100 * p.done / p.total : 100);
  std::string text = label + " " + count;
  for (const std::string& shorter : {label + " " + percent, count, percent}) {
    if (display_width(text) <= width) break;
    text = shorter;
  }
  const std::string loss = "  loss " + loss_text(p.loss), rate = fmt::format("  {:.0f} images/s", p.rate),
                    left = "  " + duration_text(p.seconds_left) + " left";
  // The most important first; what they take of the width.
  std::size_t fields = 0, used = display_width(text);
  for (const std::string& field : {left, loss, rate}) {
    if (!p.known || used + field.size() > width) break;
    used += field.size();
    ++fields;
  }
  constexpr std::size_t kLongestBar = 28, kShortestBar = 6;
  const bool labelled = text.starts_with(label + " ");
  if (width != kWhole && labelled && used + 1 + kShortestBar <= width) {
    const std::size_t bar = std::min(kLongestBar, width - used - 1);
    const auto filled = p.total > 0 ? bar * static_cast<std::size_t>(p.done) / static_cast<std::size_t>(p.total) : bar;
    std::string drawn;
    for (std::size_t i = 0; i < bar; ++i) drawn += i < filled ? "━" : "─";
    text.insert(label.size() + 1, drawn + " ");
  }
  if (fields > 1) text += loss;
  if (fields > 2) text += rate;
  if (fields > 0) text += left;
  return shortened(text, width);
}

Console::Console(const std::string& log_path, std::chrono::milliseconds quiet)
    : log_path_(log_path), quiet_(quiet), redraws_(output_redraws()), last_spoken_(Clock::now()) {
  if (log_path.empty()) return;
  log_.reset(std::fopen(log_path.c_str(), "ae"));
  check(log_ != nullptr, "{}: cannot be opened for writing: {}", log_path, std::strerror(errno));
}

void Console::line(const std::string& text) {
  constexpr std::size_t kIndent = 4;
  const std::string clean = printable_lines(text);
  laid_out([&](std::size_t width) { return folded(clean, width, kIndent); });
}

void Console::laid_out(const std::function<std::string(std::size_t width)>& text) {
  put(erasing() + text(output_width()) + "\n");
  if (log_) {
    const bool written = std::fputs((text(kWhole) + "\n").c_str(), log_.get()) >= 0 && std::fflush(log_.get()) == 0;
    check(written, "{}: cannot be written: {}", log_path_, std::strerror(errno));
  }
  last_spoken_ = Clock::now();
  if (active_ && redraws_) draw();
}

void Console::begin_progress(std::string label, std::int64_t total, std::int64_t done) {
  label_ = std::move(label);
  total_ = total;
  first_ = done_ = done;
  samples_ = 0;
  loss_ = 0;
  started_ = last_drawn_ = Clock::now();
  active_ = true;
}

void Console::advance_progress(double mean_loss, std::int64_t samples) {
  ++done_;
  samples_ += samples;
  loss_ = mean_loss;
  if (!active_) return;
  const Clock::time_point now = Clock::now();
  if (redraws_) {
    if (now - last_drawn_ >= std::chrono::milliseconds(100)) draw();
  } else if (now - last_spoken_ >= quiet_) {
    put(progress_text(progress(), kWhole) + "\n");
    last_spoken_ = now;
  }
}

void Console::end_progress() {
  erase();
  active_ = false;
}

Progress Console::progress() const {
  const double elapsed = std::max(1e-9, std::chrono::duration<double>(Clock::now() - started_).count());
  Progress p{label_, done_, total_, done_ > first_, loss_, static_cast<double>(samples_) / elapsed, 0};
  if (p.known) p.seconds_left = elapsed / static_cast<double>(done_ - first_) * static_cast<double>(total_ - done_);
  return p;
}

void Console::draw() {
  // The last column stays free: a cursor behind it would stand on the next row.
  const std::string text = progress_text(progress(), std::max<std::size_t>(2, output_width()) - 1);
  put(erasing() + text);
  drawn_ = display_width(text);
  last_drawn_ = Clock::now();
}

std::string Console::erasing() {
  if (drawn_ == 0) return "";
  // A terminal that has become narrower than the bar has broken it into several rows.
  const std::size_t rows_above = (std::exchange(drawn_, 0) - 1) / output_width();
  return rows_above > 0 ? fmt::format("\r\x1b[{}A\x1b[J", rows_above) : "\r\x1b[K";
}

void Console::erase() {
  if (drawn_ > 0) put(erasing());
}

void Console::put(const std::string& text) {
  std::fwrite(text.data(), 1, text.size(), stdout);
  output_error();
}

}  // namespace retort
