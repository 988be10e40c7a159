#include "progress.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>

namespace rtlynx::cli {

Progress::Progress(std::string label, std::string unit, bool quiet)
    : label_(std::move(label)),
      unit_(std::move(unit)),
      quiet_(quiet),
      is_terminal_(isatty(STDERR_FILENO) == 1),
      start_(std::chrono::steady_clock::now()) {}

Progress::~Progress() {
  if (line_open_) std::fputc('\n', stderr);
}

void Progress::update(int64_t done, int64_t total) {
  if (quiet_ || total <= 0) return;
  if (first_done_ < 0) {
    first_done_ = done;
    start_ = std::chrono::steady_clock::now();
  }
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count();
  if (is_terminal_) {
    draw(done, total, seconds);
    line_open_ = done < total;
    if (!line_open_) std::fputc('\n', stderr);
    return;
  }
  const int64_t tenth = done * 10 / total;
  if (tenth == last_tenth_) return;
  last_tenth_ = tenth;
  draw(done, total, seconds);
  std::fputc('\n', stderr);
}

void Progress::draw(int64_t done, int64_t total, double seconds) const {
  const double rate = static_cast<double>(done - first_done_) / std::max(seconds, 1e-9);
  std::string tail;
  if (done < total && rate > 0) {
    tail = fmt::format(", {} left", format_duration(static_cast<double>(total - done) / rate));
  } else if (done >= total) {
    tail = fmt::format(", {}", format_duration(seconds));
  }
  const std::string counts = fmt::format("{}/{} {}, {:.2f} {}/s{}", done, total, unit_, rate, unit_, tail);
  if (!is_terminal_) {
    fmt::print(stderr, "{}: {}", label_, counts);
    return;
  }
  constexpr int64_t kWidth = 30;
  const auto filled = static_cast<std::size_t>(std::clamp<int64_t>(done * kWidth / total, 0, kWidth));
  fmt::print(stderr, "\r{} [{}{}] {}\x1b[K", label_, std::string(filled, '='),
             std::string(static_cast<std::size_t>(kWidth) - filled, ' '), counts);
  std::fflush(stderr);
}

std::string format_duration(double seconds) {
  if (seconds < 10) return fmt::format("{:.1f} s", seconds);
  const auto whole = static_cast<int64_t>(seconds + 0.5);
  if (whole < 60) return fmt::format("{} s", whole);
  if (whole < 3600) return fmt::format("{} min {:02} s", whole / 60, whole % 60);
  return fmt::format("{} h {:02} min", whole / 3600, whole / 60 % 60);
}

}  // namespace rtlynx::cli
